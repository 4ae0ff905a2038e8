#!/usr/bin/env bash
# Builds the Debian packages in a copy of the files that git knows or does not ignore, and puts them into FOLDER; then
# lintian and check.sh judge them. Use: build.sh FOLDER
set -euo pipefail
out=$1
here=$(dirname "$(readlink -f "$0")")
cd "$here/../.."
copy=$out/source
rm -rf "$out"; mkdir -p "$copy"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --no-dereference -t "$copy"
cd "$copy"
ALLOT_CMAKE_FLAGS="-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache" \
  dpkg-buildpackage --build=binary --no-sign --jobs="$(nproc)"
cd "$out"
rm -rf source
echo "== lintian"
lintian --allow-root --display-info --fail-on error,warning,info allot_*.changes && echo "lintian: clean"
bash "$here/check.sh" "$out"
