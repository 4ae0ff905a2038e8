// The affinity calls of Linux, for any thread, and what /proc says about threads.
//
// Affinity is advice: a thread may set its own mask back to anything within its cpuset. What
// matters here is that every figure is read back, because the kernel silently drops what the cpuset
// forbids and, from 6.2 on, remembers the mask that was asked for and applies it again after each
// change of the cpuset. A child of a pinned shell is therefore pinned in any wider cpuset until
// reset_user_mask.
#pragma once

#include <sys/types.h>

#include <optional>
#include <vector>

#include "cpus/cpu_set.h"
#include "cpus/fs_root.h"

namespace allot::cpus {

// Sets the mask of one thread (0 = the caller). Returns 0 or the kernel's errno: EINVAL (no CPU of
// the set is both allowed by the cpuset and active, or the thread may not be moved), ESRCH (gone),
// EPERM (another user's thread). Blocks until a running thread has left a CPU it may not use any
// more. Safe between fork and exec; does not allocate.
int set_affinity(pid_t tid, const CpuSet& set);

// The mask now in force among active CPUs; empty when a thread's only CPU is offline.
// Returns 0, ESRCH, or EINVAL (the kernel knows more CPUs than kMaxCpus). Does not allocate.
int get_affinity(pid_t tid, CpuSet* set);

// Asks for all CPUs, which the kernel clips to the cpuset: the thread then follows its cpuset
// again. Same errors and safety as set_affinity.
int reset_user_mask(pid_t tid);

// Numbers of a process's threads, as one pass over /proc/PID/task gives them. A pass may miss
// threads while others end; only a stopped process gives a complete one. Empty: process gone.
std::vector<pid_t> threads_of(const FsRoot& fs, pid_t pid);

// "Cpus_allowed_list" of a thread's status: the mask including offline CPUs. Nothing: thread gone.
std::optional<CpuSet> mask_in_proc(const FsRoot& fs, pid_t pid, pid_t tid);

// One thread's /proc/PID/task/TID/stat.
struct ThreadStat {
  char state = '?';  // R, S, D, T, t, Z, X
  pid_t parent = 0;  // of the process
  uint64_t start_ticks = 0;
  uint64_t cpu_ticks = 0;  // user + system
  int last_cpu = -1;
  unsigned flags = 0;  // PF_*
};
std::optional<ThreadStat> thread_stat(const FsRoot& fs, pid_t pid, pid_t tid);

// Kernel flags of ThreadStat::flags (include/linux/sched.h).
inline constexpr unsigned kPfNoSetAffinity = 0x04000000;
inline constexpr unsigned kPfKthread = 0x00200000;

// Identity of a process over time: pids are reused, (pid, start time) is not.
struct ProcessId {
  pid_t pid = 0;
  uint64_t start_ticks = 0;
  bool operator==(const ProcessId&) const = default;
};
// Nothing when there is no such process.
std::optional<ProcessId> identify(const FsRoot& fs, pid_t pid);
// True when the same process is still there and not a zombie.
bool alive(const FsRoot& fs, const ProcessId& id);

}  // namespace allot::cpus
