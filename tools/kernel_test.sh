#!/usr/bin/env bash
# Compares the cpuset model (src/model) with a real kernel in QEMU; see kernel_test.py for the options.
exec python3 "$(dirname "$(readlink -f "$0")")/kernel_test.py" "$@"
