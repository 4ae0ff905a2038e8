#!/usr/bin/env bash
# What systemd.sh runs inside: the folder of all users under a real systemd, logouts, units, and cgroups.
set -euo pipefail
export LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin
fail() { echo "FAIL: $*"; exit 1; }
wait_for() { for _ in $(seq 150); do "$@" && return 0; sleep 0.2; done; fail "not in 30 s: $*"; }
there() { [ -e "$1" ]; }
gone() { [ ! -e "$1" ]; }

echo "-- the folder"
systemctl is-active --quiet run-allot.mount || fail "/run/allot is not mounted"
findmnt -n -o FSTYPE,OPTIONS /run/allot
[ "$(stat -c '%a %U' /run/allot)" = "1777 root" ] || fail "/run/allot is $(stat -c '%a %U' /run/allot)"
systemd-tmpfiles --create --clean
su -l bob -c 'allot doctor || true' | grep '^ok *region' || fail "doctor finds fault with the folder"

echo "-- a logout while a service of the user runs (RemoveIPC as systemd has it: $(grep RemoveIPC /etc/systemd/logind.conf))"
systemd-run --quiet --unit=own -p User=ann -p Environment=ALLOT_DIR=/dev/shm/allot-1000 allot run --sim --name own -- sleep 600
systemd-run --quiet --unit=all -p User=ann allot run --sim --name all --gpu-share 30 -- sleep 600
wait_for there /dev/shm/allot-1000/own.slice
wait_for there /run/allot/all.slice
su -l ann -c true
wait_for gone /dev/shm/allot-1000/own.slice
echo "a user's own folder in /dev/shm is gone at logout"
said() { journalctl -u own --no-pager | grep 'own.slice was removed'; }
wait_for said
[ -e /run/allot/all.slice ] || fail "/run/allot lost a slice at logout"
su -l bob -c 'allot run --sim --gpu-share 80 -- true' && fail "30 % and 80 % were both promised"
su -l bob -c 'allot run --sim --gpu-share 70 -- true'
systemctl stop own all
wait_for gone /run/allot/all.slice

echo "-- a unit's processes are held without their environment"
systemd-run --quiet --unit=serve -p User=ann allot run --sim --cgroup --name serve --gpu-mem 1G -- sleep 600
wait_for there /run/allot/serve.slice
group=$(systemctl show -p ControlGroup --value serve)
total() {  # as a process of user $1 that entered the unit's group as $2 does, with an empty environment
  bash -c "$2"'
    exec env -i LD_PRELOAD=/usr/lib/allot/libcuda.so.1 ALLOT_REAL_CUDA=/usr/lib/allot-sim/libcuda.so.1 \
      ALLOT_REAL_NVML=/usr/lib/allot-sim/libnvidia-ml.so.1 setpriv --reuid '"$1 --regid $1"' --clear-groups \
      allot bench alloc --json' | tr ',{' '\n\n' | sed -n 's/^"total"://p' | tr -d '}' | head -1
}
enter='for f in /sys/fs/cgroup'$group' /sys/fs/cgroup/systemd'$group' /sys/fs/cgroup/unified'$group'; do
  [ -e $f/cgroup.procs ] && echo $$ >$f/cgroup.procs; done; true;'
[ "$(total ann "$enter")" = 1073741824 ] || fail "inside the unit's group a process sees $(total ann "$enter") bytes"
[ "$(total ann true\;)" -gt 1073741824 ] || fail "outside the unit's group a process is held"
systemctl stop serve
allot run --unit --sim --name scoped --gpu-mem 1G -- cat /proc/self/cgroup | grep 'allot-scoped.scope$' || fail "no scope"
echo "systemd: passed"
