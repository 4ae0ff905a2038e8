#!/bin/busybox sh
# /init of the guest for `tools/kernel_test.sh --commands`: the real `allot` on a real kernel, in
# version 1 or 2 of cpusets, on 8 CPUs and 2 memory nodes. The machine that builds allot seldom has more
# than one of these, and nobody wants its CPUs taken off line.
#
# Each check prints "ok NAME" or "FAIL NAME: why". What must not happen: a check that passes because
# nothing ran; so every one compares with a value that it read from the kernel.
/bin/busybox mkdir -p /proc /sys /tmp /dev /etc /root
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root ALLOT_DIR=/tmp/leases
mount -t proc none /proc
mount -t sysfs none /sys
mount -t tmpfs none /tmp
mount -t devtmpfs none /dev
mkdir -p /dev/shm
mount -t tmpfs none /dev/shm
echo "nobody:x:65534:65534:nobody:/:/bin/sh" > /etc/passwd
hierarchy=$(sed -n 's/.*allot.hierarchy=\([a-z0-9]*\).*/\1/p' /proc/cmdline)
only=$(sed -n 's/.*allot.only=\([a-z_0-9,]*\).*/\1/p' /proc/cmdline)
without=$(sed -n 's/.*allot.without=\([a-z_0-9,]*\).*/\1/p' /proc/cmdline)
CG=/sys/fs/cgroup
if [ "$hierarchy" = v1 ]; then mount -t cgroup -o cpuset none $CG; else mount -t cgroup2 none $CG; fi
echo "KERNEL $(uname -r) $hierarchy"
failed=0 checks=0

# check NAME: runs the function of that name; it says why by `no`.
check() {
  case ",$only," in ,,|*",$1,"*) ;; *) return ;; esac
  case ",$without," in *",$1,"*) return ;; esac
  why=
  "$1"
  checks=$((checks + 1))
  if [ -z "$why" ]; then echo "ok $1"; else failed=$((failed + 1)); echo "FAIL $1: $why"; fi
}
no() { [ -n "$why" ] || why="$*"; }
is() { [ "$2" = "$3" ] || no "$1: expected '$3', found '$2' $(tail -n 2 /tmp/err | tr '\n' ' ')"; }
has() { case "$2" in *"$3"*) ;; *) no "$1: no '$3' in '$2'" ;; esac; }
mask() { sed -n 's/^Cpus_allowed_list:\t//p' "/proc/$1/status"; }
groups() { find $CG -type d -name 'allot-*' | wc -l; }
# Waits up to 60 s until a command's output is as expected.
until_is() {
  for _ in $(seq 1200); do [ "$(eval "$2")" = "$3" ] && return; usleep 50000; done
  is "$1" "$(eval "$2")" "$3"
}
none_left() { until_is "groups left" groups 0; is "leases left" "$(ls $ALLOT_DIR | grep -c 'lease$')" 0; }
inside='sed -n "s/^Cpus_allowed_list:\t//p" /proc/self/status'
group_of() { if [ "$hierarchy" = v1 ]; then sed -n 's/.*:cpuset://p' "/proc/$1/cgroup"; else sed -n 's/^0:://p' "/proc/$1/cgroup"; fi; }

run_list() {
  is mask "$(allot run --cpus 2-3 -- sh -c "$inside" 2>/tmp/err)" 2-3
  has level "$(cat /tmp/err)" "CPUs 2-3: enforced (cpuset $CG/allot-"
  none_left
}
run_is_in_its_group_from_the_start() {
  has group "$(allot run --cpus 4,6 --name born -- sh -c 'cat /proc/self/cgroup' 2>/dev/null)" /allot-born.
  is effective "$(allot run --cpus 4,6 -- sh -c "cat $CG/allot-*/cpuset.cpus" 2>/tmp/err)" 4,6
  none_left
}
run_count() {
  allot run --cpus 4 -- sh -c "$inside" >/tmp/out 2>/tmp/err
  is "one node, not the first core's" "$(cat /tmp/out)" 4-7
}
run_status_and_exec() {
  allot run --cpus 1, -- sh -c 'exit 7' 2>/dev/null; is status $? 7
  is mask "$(allot run --cpus 5, --exec -- sh -c "$inside" 2>/tmp/err)" 5
  allot run --cpus 1, -- true 2>/dev/null
  none_left
}
pinned_parent_does_not_pin_the_slice() {
  is mask "$(taskset 1 allot run --cpus 4-5 --any-cpu -- sh -c "$inside" 2>/tmp/err)" 4-5
}
threads_stay_inside() {
  # A program that asks for all CPUs gets those of its slice.
  is mask "$(allot run --cpus 2-3 -- taskset ff sh -c "$inside" 2>/tmp/err)" 2-3
}
memory_is_local() {
  for node in 0 1; do
    allot run --cpus $((node * 4 + 1))-$((node * 4 + 2)) --mems auto -- \
      sh -c 'x=$(seq 20000); grep -E "heap|stack|anon=" /proc/self/numa_maps' >/tmp/maps 2>/tmp/err
    other=$((1 - node))
    [ "$(grep -c "anon=.* N$node=" /tmp/maps)" -gt 1 ] || no "no pages on node $node: $(head -n 3 /tmp/maps)"
    is "anonymous pages on node $other" "$(grep 'anon=' /tmp/maps | grep -v 'file=' | grep -c "N$other=")" 0
    has level "$(cat /tmp/err)" "memory node $node: enforced"
  done
}
exclusive_is_kept_from_others() {
  allot run --cpus 4-5 --exclusive --name first -- sleep 10000 2>/tmp/first &
  until_is placed "grep -c enforced /tmp/first" 1
  allot run --cpus 5, -- true 2>/tmp/err; is status $? 125
  has line "$(cat /tmp/err)" "CPU 5 is leased to first"
  allot run --cpus 3 --cores -- sh -c "$inside" >/tmp/out 2>/tmp/err
  case "$(cat /tmp/out)" in *[45]*) no "took CPUs of the exclusive slice: $(cat /tmp/out)" ;; esac
  kill %1; wait
  none_left
}
attach_moves_every_thread() {
  attach_storm 3 200 >/tmp/storm 2>&1 || no "$(tail -n 1 /tmp/storm)"
  sed 's/^/  /' /tmp/storm
}
attach_enforced() {
  sleep 10000 & pid=$!
  allot cpus attach $pid --cpus 6-7 >/tmp/out 2>/tmp/err; is status $? 0
  has line "$(cat /tmp/out)" "CPUs 6-7: enforced"
  is mask "$(mask $pid)" 6-7
  has group "$(group_of $pid)" /allot-
  kill $pid; wait
  allot run --cpus 1, -- true 2>/dev/null
  none_left
}
dying_process() {
  for i in 1 2 3 4 5 6 7 8; do
    (usleep $((i * 30000))) & pid=$!
    allot cpus attach $pid --cpus 6-7 >/tmp/out 2>/tmp/err
    case $? in
      0) ;;
      125) is "one line" "$(wc -l </tmp/err)" 1; has line "$(cat /tmp/err)" "process $pid" ;;
      *) no "status of attach to a dying process: $(cat /tmp/err)" ;;
    esac
    wait
  done
  allot run --cpus 1, -- true 2>/dev/null
  none_left
}
bad_input() {
  before="$(groups) $(ls $ALLOT_DIR)"
  refused() {
    words=$3; status=$1; line=$2
    eval "allot run $words -- true" >/tmp/out 2>/tmp/err; is "status of $words" $? "$status"
    is "lines of $words" "$(wc -l </tmp/err)" 1
    has "$words" "$(cat /tmp/err)" "$line"
  }
  refused 2 "there is no CPU 8-999" "--cpus 0-999"
  refused 2 "empty" "--cpus ''"
  refused 2 "not a number" "--cpus x-"
  refused 125 "no room for 99" "--cpus 99"
  refused 2 "there is no memory node 5" "--cpus 1, --mems 5"
  refused 2 "--cpus" "--exclusive"
  echo 0 > /sys/devices/system/cpu/cpu7/online
  refused 2 "CPU 7 is offline" "--cpus 6-7"
  echo 1 > /sys/devices/system/cpu/cpu7/online
  is "what is left" "$(groups) $(ls $ALLOT_DIR)" "$before"
}
no_permission() {
  mkdir /tmp/nobody; chown 65534 /tmp/nobody
  as_nobody() { start-stop-daemon -S -c nobody -x /bin/env -- ALLOT_DIR=/tmp/nobody "$@"; }
  as_nobody allot run --cpus 2-3 -- sh -c "$inside" >/tmp/out 2>/tmp/err; is status $? 0
  is mask "$(cat /tmp/out)" 2-3
  has level "$(cat /tmp/err)" "advised: no permission to make groups"
  sleep 10000 & pid=$!
  before=$(mask $pid)
  as_nobody allot cpus attach $pid --cpus 2-3 >/tmp/out 2>/tmp/err; is status $? 125
  has line "$(cat /tmp/err)" "belongs to another user"
  is "mask of the other's process" "$(mask $pid)" "$before"
  kill $pid; wait
}
group_of_systemd() {
  mkdir -p /run/systemd/system $CG/system.slice
  mkdir $CG/system.slice/x.service
  for group in system.slice system.slice/x.service; do
    if [ "$hierarchy" = v2 ]; then
      echo +cpuset > "$CG/$(dirname $group)/cgroup.subtree_control"
    else
      for f in cpus mems; do cat $CG/cpuset.$f > $CG/$group/cpuset.$f; done
    fi
  done
  sleep 10000 & pid=$!
  echo $pid > $CG/system.slice/x.service/cgroup.procs
  allot cpus attach $pid --cpus 2-3 >/tmp/out 2>/tmp/err; is status $? 0
  has level "$(cat /tmp/out)" advised
  is mask "$(mask $pid)" 2-3
  is group "$(group_of $pid)" /system.slice/x.service
  has explain "$(allot cpus explain write $CG/system.slice/x.service/cpuset.cpus 2-3)" "owned by systemd"
  if [ "$hierarchy" = v2 ]; then
    sh -c "echo 0 > $CG/system.slice/x.service/cgroup.procs; allot run --cpus 2-3 -- true" 2>/tmp/err; is status $? 0
    has run "$(cat /tmp/err)" "advised: $CG/system.slice/x.service is owned by systemd"
  fi
  is "its CPUs" "$(cat $CG/system.slice/x.service/cpuset.cpus.effective $CG/system.slice/x.service/cpuset.effective_cpus 2>/dev/null)" 0-7
  kill $pid; wait
  rmdir $CG/system.slice/x.service $CG/system.slice
  rm -r /run/systemd
  allot run --cpus 1, -- true 2>/dev/null
  none_left
}
explain_says_what_the_kernel_does() {
  mkdir $CG/e $CG/e/f
  if [ "$hierarchy" = v1 ]; then
    echo 0-1 > $CG/e/cpuset.mems; echo 0-3 > $CG/e/cpuset.cpus
    echo 0 > $CG/e/f/cpuset.mems; echo 1-2 > $CG/e/f/cpuset.cpus
  else
    echo +cpuset > $CG/cgroup.subtree_control; echo +cpuset > $CG/e/cgroup.subtree_control
    echo 0-3 > $CG/e/cpuset.cpus; echo 1-2 > $CG/e/f/cpuset.cpus
  fi
  sleep 10000 & pid=$!
  echo $pid > $CG/e/f/cgroup.procs
  echo 0 > /sys/devices/system/cpu/cpu7/online
  while read -r file text; do
    said=$(allot cpus explain --json write "$CG/$file" "$text" | sed -n 's/.*"errno_name": "\(.*\)".*/\1/p')
    (echo "$text" > "$CG/$file") 2>/tmp/err
    case "$(cat /tmp/err)" in
      "") found= ;;
      *"ermission denied"*) found=EACCES ;;
      *"nvalid argument"*) found=EINVAL ;;
      *"busy"*) found=EBUSY ;;
      *"No space"*) found=ENOSPC ;;
      *"out of range"*) found=ERANGE ;;
      *) found=$(cat /tmp/err) ;;
    esac
    [ -e "$CG/$file" ] || found=ENOENT  # the shell asked to make it, and was refused that
    is "'$text' to $file" "$said" "$found"
  done <<EOF
e/cpuset.cpus 0
e/cpuset.cpus 0-5
e/cpuset.cpus 0-99
e/cpuset.cpus x
e/cpuset.cpus 7
e/cpuset.cpus 1-7
e/f/cpuset.cpus 6
e/f/cpuset.cpus
e/cpuset.mems 1
e/cpuset.mems 5
e/f/cpuset.mems 0-1
cpuset.cpus 0-3
e/f/cpuset.cpu_exclusive 1
e/cpuset.cpu_exclusive 1
EOF
  echo 1 > /sys/devices/system/cpu/cpu7/online
  kill $pid; wait
  rmdir $CG/e/f $CG/e
}
partitions_are_predicted() {
  [ "$hierarchy" = v2 ] || return
  mkdir $CG/p $CG/q; echo 4-5 > $CG/p/cpuset.cpus; echo 5-6 > $CG/q/cpuset.cpus
  allot cpus explain write $CG/p/cpuset.cpus.partition root >/tmp/out 2>/tmp/err
  has explain "$(cat /tmp/out)" "not exclusive"
  echo root > $CG/p/cpuset.cpus.partition
  has "what the kernel says" "$(cat $CG/p/cpuset.cpus.partition)" "not exclusive"
  echo 6 > $CG/q/cpuset.cpus; echo member > $CG/p/cpuset.cpus.partition
  echo root > $CG/p/cpuset.cpus.partition
  is partition "$(cat $CG/p/cpuset.cpus.partition)" root
  allot cpus explain write $CG/p/cpuset.cpus 4 >/tmp/out 2>/tmp/err; is status $? 0
  has explain "$(cat /tmp/out)" "has CPUs 4"
  echo member > $CG/p/cpuset.cpus.partition; rmdir $CG/p $CG/q
}
exclusive_is_a_partition() {
  [ "$hierarchy" = v2 ] || return
  allot run --cpus 2-3 --exclusive --name alone -- sleep 10000 2>/tmp/alone &
  until_is placed "grep -c enforced /tmp/alone" 1
  is partition "$(cat $CG/allot-alone.*/cpuset.cpus.partition)" root
  is "others' CPUs" "$(cat $CG/cpuset.cpus.effective)" 0-1,4-7
  allot cpus set alone --cpus 4-5 --exclusive >/tmp/out 2>/tmp/err; is status $? 0
  is partition "$(cat $CG/allot-alone.*/cpuset.cpus.partition)" root
  is "others' CPUs" "$(cat $CG/cpuset.cpus.effective)" 0-3,6-7
  kill %1; wait
  # The kernel gives them back when it takes the removed group offline, a moment after rmdir returns.
  until_is "others' CPUs" "cat $CG/cpuset.cpus.effective" 0-7
  none_left
}
killed_launcher_is_cleaned_up() {
  allot run --cpus 2-3 --name orphan -- sleep 10000 2>/tmp/orphan & pid=$!
  until_is placed "grep -c enforced /tmp/orphan" 1
  program=$(cat $CG/allot-orphan.*/cgroup.procs)
  kill -9 $pid; wait $pid  # not for its orphan, which is ours now
  allot run --cpus 1, -- true 2>/dev/null
  is "its program stays where it is" "$(mask "$program")" 2-3
  is groups "$(groups)" 1
  kill "$program"
  until_is "the program's end" "ls -d /proc/$program 2>/dev/null" ""
  allot run --cpus 1, -- true 2>/dev/null
  none_left
}
# Two users of one sticky folder, where the kernel refuses to open another's files for making (Debian's value).
two_users_share_leases() {
  [ -e /proc/sys/fs/protected_regular ] && echo 2 > /proc/sys/fs/protected_regular
  echo "other:x:1001:1001:other:/:/bin/sh" >> /etc/passwd
  mkdir -m 1777 /tmp/shared; chmod 1777 /tmp/shared
  as() { user=$1; shift; (umask 022; exec start-stop-daemon -S -c "$user" -x /bin/env -- ALLOT_DIR=/tmp/shared "$@"); }
  ALLOT_DIR=/tmp/shared allot run --cpus 1, -- true 2>/tmp/err; is "status of root" $? 0
  for user in nobody other; do
    as $user allot run --cpus 2-3 -- sh -c "$inside" >/tmp/out 2>/tmp/err; is "status of $user" $? 0
    is "mask of $user" "$(cat /tmp/out)" 2-3
  done
  as nobody allot run --cpus 5, --exclusive --name theirs -- sleep 10000 2>/tmp/theirs &
  until_is placed "grep -c 'CPUs 5: ' /tmp/theirs" 1
  has "what the other sees" "$(as other allot cpus show)" theirs
  as other allot run --cpus 5, -- true 2>/tmp/err; is status $? 125
  has line "$(cat /tmp/err)" "CPU 5 is leased to theirs"
  kill $(pidof allot); wait
  until_is "the CPU comes back" "as other allot run --cpus 5, -- true 2>/dev/null; echo \$?" 0
  [ "$(cat /proc/sys/fs/protected_regular 2>/dev/null || echo 2)" = 2 ] || no "fs.protected_regular is not 2"
}
# The CPUs asked for, after a placement without a cpuset; from 6.2 on the kernel remembers that mask.
set_after_affinity_alone() {
  sleep 10000 & pid=$!
  allot cpus attach $pid --cpus 3, --no-cpuset --name alone >/tmp/out 2>/tmp/err; is status $? 0
  is mask "$(mask $pid)" 3
  for list in 2-5 6 2-5; do
    allot cpus set alone --cpu-list $list >/tmp/out 2>/tmp/err; is "status of $list" $? 0
    is mask "$(mask $pid)" $list
    has line "$(cat /tmp/out)" "CPUs $list: enforced"
  done
  is detach "$(allot cpus detach alone)" "alone: 1 process may use CPUs 0-7 now"
  is mask "$(mask $pid)" 0-7
  kill $pid; wait
  none_left
}
# Everybody else is kept off an exclusive slice's CPUs for as long as somebody watches; a partition needs none of it.
strangers_are_kept_off() {
  [ "$hierarchy" = v1 ] || return
  sleep 10000 & stranger=$!
  allot run --cpus 2-3 --exclusive --name alone -- sleep 10000 2>/tmp/alone &
  until_is placed "grep -c enforced /tmp/alone" 1
  has note "$(cat /tmp/alone)" "may still run on CPUs 2-3"
  allot cpus watch --move-strangers >/tmp/watch 2>&1 & watcher=$!
  until_is "the stranger's mask" "mask $stranger" 0-1,4-7
  is "init's mask" "$(mask 1)" 0-1,4-7
  sh -c 'sleep 10000' & child=$!
  is "who was born since" "$(mask $child)" 0-1,4-7
  is "the slice's own" "$(mask "$(cat $CG/allot-alone.*/cgroup.procs)")" 2-3
  kill $watcher; wait $watcher
  for pid in 1 $stranger $child; do is "mask of $pid afterwards" "$(mask $pid)" 0-7; done
  sed 's/^/  /' /tmp/watch
  kill $child $stranger %2; wait
  none_left
}
# Milliseconds of uptime.
now_ms() { sed 's/^\([0-9]*\)\.\([0-9]*\) .*/\1\20/' /proc/uptime; }
watch_puts_back() {
  allot run --cpus 2-3 --name kept -- sleep 10000 2>/tmp/kept &
  until_is placed "grep -c enforced /tmp/kept" 1
  group=$(echo $CG/allot-kept.*)
  allot cpus watch --for 60 >/tmp/watch 2>&1 & watcher=$!
  until_is watching "grep -c watching /tmp/watch" 1
  echo 3 > "$group/cpuset.cpus"; from=$(now_ms)
  until_is "after somebody's write" "cat $group/cpuset.cpus" 2-3
  took=$(($(now_ms) - from)); [ $took -le 1000 ] || no "restored after $took ms"
  echo "  a foreign write was put back after $took ms"
  echo 0 > /sys/devices/system/cpu/cpu3/online
  usleep 500000
  echo 1 > /sys/devices/system/cpu/cpu3/online; from=$(now_ms)
  until_is "after hotplug" "cat $group/cpuset.cpus" 2-3
  took=$(($(now_ms) - from)); [ $took -le 1000 ] || no "restored after $took ms"
  echo "  CPUs were whole $took ms after CPU 3 came back"
  sed 's/^/  /' /tmp/watch
  kill $watcher %1; wait
  none_left
}
rebalance_pinned_spinners() {
  slice_bench rebalance 12 >/tmp/bench 2>/tmp/err || no "slice_bench: $(cat /tmp/bench /tmp/err)"
  sed 's/^/  /' /tmp/bench
  part=$(sed -n 's/.* \([0-9.]*\) % of what it could.*/\1/p' /tmp/bench)
  awk "BEGIN { exit !($part >= 95) }" || no "$part % of the possible throughput"
}
no_action_when_balanced() {
  slice_bench balanced 60 >/tmp/bench 2>/tmp/err || no "slice_bench: $(tail -n 3 /tmp/bench)"
  sed 's/^/  /' /tmp/bench
}

mkdir -p $ALLOT_DIR
for name in run_list run_is_in_its_group_from_the_start run_count run_status_and_exec \
    pinned_parent_does_not_pin_the_slice threads_stay_inside memory_is_local exclusive_is_kept_from_others \
    attach_enforced attach_moves_every_thread dying_process bad_input no_permission group_of_systemd \
    explain_says_what_the_kernel_does partitions_are_predicted exclusive_is_a_partition killed_launcher_is_cleaned_up watch_puts_back \
    two_users_share_leases set_after_affinity_alone strangers_are_kept_off \
    rebalance_pinned_spinners no_action_when_balanced; do
  check $name
done
echo "DONE checks=$checks failed=$failed"
reboot -f
