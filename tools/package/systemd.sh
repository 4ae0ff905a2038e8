#!/usr/bin/env bash
# Boots a Debian 12 with systemd and the packages of FOLDER in a container, and runs systemd_inside.sh there as a service.
# Root; needs debootstrap and systemd-nspawn (systemd-container). Use: systemd.sh FOLDER [BASE]
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
folder=$(readlink -f "$1")
base=${2:-$(dirname "$folder")/debian-12-systemd}
[ "$(id -u)" = 0 ] || { echo "systemd: needs root" >&2; exit 2; }
[ -x "$base/usr/bin/dpkg" ] ||
  debootstrap --variant=minbase --include=systemd,libpam-systemd,dbus,systemd-sysv bookworm "$base" >"$base.log" ||
  { tail -5 "$base.log" >&2; exit 1; }

work=$(mktemp -d)
mkdir "$work/mount"
mount -t tmpfs none "$work/mount"
trap 'umount -R "$work/mount"; rmdir "$work/mount" "$work"' EXIT
mkdir "$work/mount/upper" "$work/mount/work" "$work/mount/root"
mount -t overlay overlay -o "lowerdir=$base,upperdir=$work/mount/upper,workdir=$work/mount/work" "$work/mount/root"
root=$work/mount/root
mkdir -p "$root/packages"
cp "$folder"/allot_*_amd64.deb "$folder"/allot-sim_*_amd64.deb "$root/packages/"
cp "$here/systemd_inside.sh" "$root/packages/"
mount -t proc proc "$root/proc"
chroot "$root" sh -ec 'dpkg -i /packages/*.deb >/dev/null; for user in ann bob; do id $user >/dev/null 2>&1 || useradd -m $user; done'
cat >"$root/etc/systemd/system/allot-test.service" <<'EOF'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash /packages/systemd_inside.sh
ExecStopPost=/bin/systemctl poweroff
StandardOutput=append:/packages/said
StandardError=append:/packages/said
[Install]
WantedBy=default.target
EOF
umount "$root/proc"
chroot "$root" systemctl enable allot-test.service 2>/dev/null
timeout 180 systemd-nspawn -D "$root" --boot --register=no --keep-unit --private-network >"$work/mount/console" 2>&1 </dev/null ||
  { tail -20 "$work/mount/console"; echo "systemd: the container did not come to its end"; exit 1; }
cat "$root/packages/said"
grep -q '^systemd: passed$' "$root/packages/said"
