// Moving a running process to other CPUs with all its threads, none lost while it makes new ones.
//
// A pass over /proc/PID/task that sets each mask loses threads: one that is created behind the pass by a
// thread not yet bound starts with the old mask, and readdir skips entries while others vanish, so even
// a pass that finds nothing more to do proves nothing. Two ways are sound:
//
//   cgroup   writing the pid to cgroup.procs moves the whole thread group at once; the kernel holds off
//            clone meanwhile.
//   stop     SIGSTOP, wait until every thread is stopped (their number is checked against the
//            process's own count), set each mask, SIGCONT. The parent sees the stop (CLD_STOPPED), and
//            the program pauses for a few milliseconds per thousand threads.
//
// Both are verified afterwards by every thread's mask. Last-run CPUs are not looked at: a sleeping
// thread keeps its old one until it wakes.
//
// Must not happen: a process left stopped. A helper process sends SIGCONT if we die in between.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "cpus/failure.h"
#include "cpus/placement.h"

namespace allot::cpus {

struct BindReport {
  int threads = 0;       // bound
  int unverified = 0;    // outside the set afterwards, for whatever reason
  double stop_ms = 0;    // from SIGSTOP until all threads were stopped
  double paused_ms = 0;  // from SIGSTOP to SIGCONT
};

// Binds every thread of a process by stopping it.
// Errors: kNotFound (ESRCH: gone, also meanwhile), kNoPermission (EPERM), kBadValue (EINVAL: no CPU of
// the set is allowed to it), kSystem (ETIMEDOUT: a thread did not stop within `timeout_ms`, for example
// one waiting for a dead file server; nothing is changed then).
Expected<BindReport> bind_stopped(pid_t pid, const CpuSet& cpus, int timeout_ms = 10'000);

// Threads of `pid` whose mask is not within `cpus`.
int threads_outside(pid_t pid, const CpuSet& cpus);

struct AttachRequest {
  pid_t pid = 0;
  PlacementRequest placement;
  bool follow = false;  // its descendants too
};

struct AttachReport {
  Placement placement;
  Level level = Level::kNone;
  std::string reason;  // why not enforced
  int processes = 0;
  int threads = 0;
  double ms = 0;
};

// Chooses CPUs as place() does and moves the process there. The group and the lease belong to the
// process, not to us, and end with it.
// Errors: those of place() and bind_stopped(); after one, group and lease are gone again and every
// thread has the mask it had, except that a process that could be moved only in part is told so.
Expected<AttachReport> attach(const AttachRequest& request);

// Children, grandchildren and so on, parents first.
std::vector<pid_t> descendants_of(const FsRoot& fs, pid_t pid);

}  // namespace allot::cpus
