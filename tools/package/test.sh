#!/usr/bin/env bash
# Installs, upgrades, removes and purges the packages of FOLDER in a bare Debian 12, as root, and runs held programs
# there. Use: test.sh FOLDER [BASE], BASE being a folder that debootstrap made; without it, it is made beside
# FOLDER. Nothing is written into FOLDER, which may be another user's.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
folder=$(readlink -f "$1")
base=${2:-$(dirname "$folder")/debian-12}
[ "$(id -u)" = 0 ] || { echo "package-test: needs root, for a chroot with mounts of its own" >&2; exit 2; }
[ -x "$base/usr/bin/dpkg" ] || debootstrap --variant=minbase bookworm "$base" >"$base.log" ||
  { tail -5 "$base.log" >&2; exit 1; }

# The same packages under a later version, to upgrade to.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
newer=$work/newer
mkdir -p "$newer" "$work/mount"
for package in allot allot-sim; do
  dpkg-deb -R "$folder/${package}"_*_amd64.deb "$newer/tree"
  version=$(sed -n 's/^Version: //p' "$newer/tree/DEBIAN/control")
  sed -i "s/^Version: .*/Version: $version+next/; s/(= $version)/(= $version+next)/" "$newer/tree/DEBIAN/control"
  dpkg-deb --root-owner-group -b "$newer/tree" "$newer/${package}.deb" >/dev/null
  rm -rf "$newer/tree"
done

# An overlay: the base stays bare. Its own pid namespace ends whatever is left.
export here folder newer base work
unshare --mount --pid --fork --kill-child bash -euo pipefail -c '
  mount -t tmpfs none "$work/mount"
  mkdir "$work/mount/upper" "$work/mount/work" "$work/mount/root"
  mount -t overlay overlay -o "lowerdir=$base,upperdir=$work/mount/upper,workdir=$work/mount/work" "$work/mount/root"
  root=$work/mount/root
  mkdir -p "$root/packages/newer"
  cp "$folder"/allot*_amd64.deb "$root/packages/"
  cp "$newer"/*.deb "$root/packages/newer/"
  cp "$here/inside.sh" "$root/packages/"
  mount -t proc proc "$root/proc"
  mount -t sysfs -o ro sysfs "$root/sys"
  mount --rbind /dev "$root/dev"
  mount -t tmpfs -o mode=1777 none "$root/dev/shm"
  exec chroot "$root" /bin/bash /packages/inside.sh
'
