#!/usr/bin/env bash
# gpu_check.sh [memory|time [quick]|life] [--sim] [--only PREFIX,...] [--level L] [--build DIR] [--list] [--repeat N] [--merge DIR,...]:
# checks a built tree against a real card.
#
# Needs build/bin and build/lib (or DIR's) as `./dev build` leaves them, and python3. Frameworks, a toolkit or
# nvidia-smi that are missing become named skips. Results go to $OUT, or else to
# bench/results/<date>-<driver>/. --sim runs the same steps on the software GPU, those that need a
# framework or a card left out. Ends with 0 if no step failed, 1 if one did, 2 for wrong usage.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
exec python3 "$root/tools/gpu_check/main.py" --root "$root" "$@"
