#!/usr/bin/env bash
# What must not happen to the packages in FOLDER: the private libcuda.so.1 is offered to other packages, a package
# depends on itself or on a driver's package, the linker finds our libraries. Use: check.sh FOLDER
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
cd "$1"
wrong=0
fault() { echo "package: $*" >&2; wrong=1; }
for package in allot allot-sim; do
  deb=$(echo "${package}"_*_amd64.deb)
  depends=$(dpkg-deb -f "$deb" Depends)
  provides=$(dpkg-deb -f "$deb" Provides)
  echo "$deb: depends on $depends"
  [ -z "$provides" ] || fault "$deb provides $provides; it must provide nothing"
  case ",${depends// /}" in *",$package("* | *",$package,"*) fault "$deb depends on itself" ;; esac
  case "$depends" in *nvidia* | *cuda*) fault "$deb depends on a driver: $depends" ;; esac
  control=$(dpkg-deb --ctrl-tarfile "$deb" | tar -t)
  case "$control" in *shlibs* | *triggers* | *symbols*) fault "$deb has shlibs, symbols or an ldconfig trigger" ;; esac
  if dpkg-deb -c "$deb" | grep -E ' \./(usr/)?lib/([^/]*-linux-gnu/)?lib[^/]*\.so'; then fault "$deb puts a library into the linker's path"; fi
done
# The flags of packages (hardening) must not raise what the programs in slices need.
tree=$(mktemp -d)
dpkg-deb -x allot_*_amd64.deb "$tree"
for library in libcuda.so.1 libnvidia-ml.so.1; do
  bash "$here/../../src/shm/check_floor.sh" "$tree/usr/lib/allot/$library" 2>"$tree/said" ||
    { cat "$tree/said"; fault "$library needs too new a glibc"; }
done
rm -rf "$tree"
[ $wrong = 0 ] && echo "package: nothing of it reaches other packages"
exit $wrong
