#!/usr/bin/env bash
# What test.sh runs inside the bare system. Every step says what it saw; the first that fails ends it.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin
fail() { echo "FAIL: $*"; exit 1; }
files() { find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /packages -o -path /tmp -o -path /var/lib/dpkg \
  -o -path /var/log -o -path /var/cache -o -path /etc/ld.so.cache \) -prune -o -print | sort; }
as_user() { setpriv --reuid="$1" --regid="$1" --clear-groups env HOME=/tmp "${@:2}"; }
# memory_seen USER: bytes that a program in a slice of 1 GiB got, and bytes that it takes for the whole GPU.
memory_seen() { as_user "$1" allot run --sim=80G --gpu-mem 1G -- allot bench alloc --json |
  sed -n 's/.*"granted_bytes":\([0-9]*\).*"memory_before":{[^}]*"total":\([0-9]*\).*/\1 \2/p'; }
held() {
  read -r granted total <<<"$(memory_seen "$1")"
  [ "${total:-0}" = 1073741824 ] && [ "$granted" -gt 0 ] && [ "$granted" -lt 1073741824 ] ||
    fail "user $1 saw ${total:-nothing} bytes and got ${granted:-none} under a limit of 1 GiB"
  echo "user $1: limit 1 GiB, seen $total bytes, got $granted"
}

. /etc/os-release; echo "system: $PRETTY_NAME, $(dpkg-query -f . -W | wc -c) packages"
files >/tmp/before

echo "-- install"
dpkg -i /packages/allot_*_amd64.deb /packages/allot-sim_*_amd64.deb
allot version | tail -1
held 1000; held 1001
[ "$(stat -c '%a %U' /run/allot)" = "1777 root" ] || fail "/run/allot is $(stat -c '%a %U' /run/allot)"
as_user 1000 allot run --sim --name first --gpu-share 30 -- sleep 30 & first=$!
for _ in $(seq 100); do [ -e /run/allot/first.slice ] && break; sleep 0.1; done
as_user 1001 allot run --sim --gpu-share 80 -- true 2>/tmp/said && fail "30 % and 80 % were both promised"
cat /tmp/said
as_user 1001 allot run --sim --gpu-share 70 -- true
as_user 1000 allot stop first >/dev/null; wait $first || true
dpkg-query -s allot | grep -q '/etc/allot/allot.conf' || fail "/etc/allot/allot.conf is no conffile"
printf '[all]\nmost-gpu-mem = 512M\n' >/etc/allot/limits.d/site.conf
as_user 1000 allot run --sim --gpu-mem 1G -- true 2>/tmp/said && fail "a rule was not kept"
cat /tmp/said
rm /etc/allot/limits.d/site.conf
dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\n' allot allot-sim
ldconfig -p | grep -i -e 'lib/allot' -e libcuda && fail "the linker finds the private libraries"
[ -e /usr/lib/tmpfiles.d/allot.conf ] || fail "nothing makes /run/allot at boot"
for completion in bash-completion/completions/allot zsh/vendor-completions/_allot fish/vendor_completions.d/allot.fish; do
  # A bare system may leave out /usr/share/doc and man, not these.
  [ -s "/usr/share/$completion" ] || fail "/usr/share/$completion is missing"
done
dpkg -V allot allot-sim

echo "-- upgrade while a program runs in a slice"
as_user 1000 allot run --sim --name before --gpu-mem 1G -- allot bench load --seconds 20 >/tmp/load.log 2>&1 &
load=$!
for _ in $(seq 200); do as_user 1000 allot ps before 2>/dev/null | grep -q 'bench load' && break; sleep 0.1; done
program=$(as_user 1000 allot ps before --json | tr ',{' '\n\n' | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' | tail -1)
grep -q '/usr/lib/allot/libcuda.so.1$' "/proc/$program/maps" || fail "process $program has not the installed library"
dpkg -i /packages/newer/allot.deb /packages/newer/allot-sim.deb
grep -q '/usr/lib/allot/libcuda.so.1 (deleted)$' "/proc/$program/maps" || fail "the old process lost the old library"
echo "process $program continues with the old library"
as_user 1000 allot ps before | head -2
held 1000
as_user 1000 allot set before --gpu-mem 2G
wait "$load" || fail "the program that ran during the upgrade: $(cat /tmp/load.log)"
echo "it ended with 0"

echo "-- remove, install again, purge"
dpkg -r allot-sim allot
[ ! -e /usr/bin/allot ] && [ ! -e /usr/lib/allot ] || fail "files are still there"
dpkg -i /packages/newer/allot.deb /packages/newer/allot-sim.deb
dpkg -P allot-sim allot
dpkg-query -W -f '${db:Status-Status}\n' allot 2>/dev/null | grep -v not-installed && fail "dpkg still knows allot"
files >/tmp/after
diff /tmp/before /tmp/after || fail "purge left files"
echo "purge left nothing"
echo "package-test: passed"
