// Moving a running process to other CPUs with all its threads, none lost while it makes new ones.
//
// A pass over /proc/PID/task that sets each mask loses threads: one that is created behind the pass
// by a thread not yet bound starts with the old mask, and readdir skips entries while others
// vanish, so even a pass that finds nothing more to do proves nothing. Two ways are sound:
//
//   cgroup   writing the pid to cgroup.procs moves the whole thread group at once; the kernel
//            holds off clone meanwhile.
//   stop     SIGSTOP, wait until every thread is stopped (their number is checked against the
//            process's own count), set each mask, SIGCONT. The parent sees the stop (CLD_STOPPED),
//            and the program pauses for a few milliseconds per thousand threads.
//
// Both are verified afterwards by every thread's mask. Last-run CPUs are not looked at: a sleeping
// thread keeps its old one until it wakes.
//
// Must not happen: a process left stopped. A helper process sends SIGCONT if we die in between.
#pragma once

#include <sys/types.h>

#include <optional>
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

// Binds every thread of a process by stopping it; with `only` those alone whose mask is that one.
// Errors: kNotFound (ESRCH: gone, also meanwhile),
// kNoPermission (EPERM), kBadValue (EINVAL: no CPU of the set is allowed to it), kSystem
// (ETIMEDOUT: a thread did not stop within `timeout_ms`, for example one waiting for a dead file
// server; nothing is changed then).
Expected<BindReport> bind_stopped(pid_t pid, const CpuSet& cpus, int timeout_ms = 10'000,
                                  const CpuSet* only = nullptr);

// Threads of `pid` whose mask is not within `cpus`.
int threads_outside(pid_t pid, const CpuSet& cpus);

struct AttachRequest {
  pid_t pid = 0;
  PlacementRequest placement;
  bool follow = false;           // its descendants too
  std::optional<CpuSet> within;  // of the descendants only those whose masks lie in this set
};

struct AttachReport {
  Placement placement;
  Level level = Level::kNone;
  std::string reason;  // why not enforced
  int processes = 0;
  int threads = 0;
  double ms = 0;
  CpuSet granted;  // CPUs in the masks of its living threads, read back
};

// Chooses CPUs as place() does and moves the process there. The group and the lease belong to the
// process, not to us, and end with it. A process that holds CPUs already keeps its group, name and
// lease, which are changed in place. Errors: those of place(), bind_stopped() and change_group();
// after one, the process is as it was, with the lease it had, except that a process that could be
// moved only in part is told so.
Expected<AttachReport> attach(const AttachRequest& request);

// Processes of a slice without a group: its program, if that lives, and those of the program's
// descendants that are bound to the slice's CPUs. Any thread; allocates.
std::vector<pid_t> bound_processes(const FsRoot& fs, const Lease& lease);

// Gives an existing group other CPUs, and mems where asked for, and its lease with them; the lease
// is never dropped. Errors: those of choose(); kUnsupported, kNoPermission, kSystem with the file
// and the kernel's errno; the group is as before then.
Expected<AttachReport> change_group(LockedLedger* ledger, const Hierarchy& h, const Topology& t,
                                    const std::vector<Lease>& leases, const Lease& old,
                                    const AttachRequest& request);

// The lease that a name, or a process in it, stands for.
// Errors: kNotFound; kBadValue (several leases have that name).
Expected<Lease> find_lease(const std::string& folder, const std::string& name_or_pid);

// The process by which a slice is changed: its program, or somebody else of it once that has ended.
pid_t process_of(const Lease& lease);

struct DetachReport {
  int processes = 0;
  CpuSet granted;  // CPUs in the masks of their living threads, read back
};

// Takes a slice's processes out of its CPUs: back to the group above, or to all CPUs of their
// cpuset, and ends the lease. A mask that a thread chose itself stays. Errors: those of
// find_lease(); kNoPermission, kSystem.
Expected<DetachReport> detach(const std::string& folder, const std::string& name_or_pid);

// Fills in level, reason, threads and granted of a report from what the kernel shows now.
void read_back(AttachReport* report, pid_t pid);

// CPUs in the masks of a process's living threads.
CpuSet cpus_in_force(const FsRoot& fs, pid_t pid);

// Children, grandchildren and so on, parents first.
std::vector<pid_t> descendants_of(const FsRoot& fs, pid_t pid);

}  // namespace allot::cpus
