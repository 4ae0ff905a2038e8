// A slice of CPUs for one program: chosen, fenced, entered, read back, given back.
//
// Three moments, because `allot run` forks between them:
//
//   place()    in the launcher, before fork: choose CPUs under the ledger's lock, make the group,
//              write the lease. On failure nothing is left changed.
//   enter()    in the child, before exec: into the group, drop the inherited mask, bind memory,
//              read back what the kernel really gave. Says the level that was reached.
//   release()  in the launcher, after the program ended: remove group and lease. If the launcher is
//              killed first, the next place() on the machine does it.
//
// Levels: enforced - the kernel holds every thread and child inside (cpuset). advised - only the
// affinity mask was set, which the program may widen again. none - not even that.
//
// Must not happen: a lease without the CPUs, a group without a lease, or a level claimed without
// reading it back.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cpus/cpuset_fs.h"
#include "cpus/leases.h"
#include "cpus/memory_policy.h"
#include "cpus/planner.h"
#include "cpus/topology.h"

namespace allot::cpus {

enum class Level { kNone, kAdvised, kEnforced };
std::string_view level_name(Level level);

struct PlacementRequest {
  std::string name = "run";
  std::string cpus;  // "4" (a number of CPUs), "0-3,8" or "3," (cpu_words.h), "gpu" (those near it)
  bool is_list = false;            // a number alone is a CPU too
  std::string option = "--cpus ";  // what stands before `cpus` where the user wrote it, for errors
  Unit unit = Unit::kWhole;
  std::string mems = "";  // "" = none asked for, "auto" = the nodes of the CPUs, or a list
  MemoryPolicy policy = MemoryPolicy::kNone;  // without mems: those of the CPUs
  bool exclusive = false;
  bool isolated = false;    // with exclusive, in version 2: no load balancing on these CPUs
  bool any_cpu = false;     // also CPUs outside the mask that this process was given
  int gpu = -1;             // index by bus address, to be near to; -1 = none
  std::string folder = "";  // of the ledger; "" = lease_folder(nullptr)
  bool use_cpuset = true;   // false: affinity only, as on a machine without cpusets
};

struct Placement {
  std::string name;
  CpuSet cpus;
  CpuSet mems;  // empty: memory is left alone
  MemoryPolicy policy = MemoryPolicy::kNone;
  // The nodes that the group is held to: a preferred or interleaved program may take from others.
  CpuSet fenced_mems() const {
    return policy == MemoryPolicy::kNone || policy == MemoryPolicy::kBind ? mems : CpuSet{};
  }
  Level planned = Level::kAdvised;
  std::string reason;              // why not enforced; empty when it is
  std::vector<std::string> notes;  // what else the user should know, one line each
  std::string group;               // absolute path; empty without a cpuset
  std::string procs;               // its cgroup.procs
  // Where enter() writes itself. In version 1 it is "tasks": a thread that moves itself alone needs
  // no lock against clones of all processes (Linux 5.5 and later), which waits for an RCU grace
  // period, 10-20 ms on a busy machine.
  std::string entry;
  std::string folder;
  CpusetKind kind = CpusetKind::kNone;
  Lease lease;
  int lease_fd = -1;
};

// Chooses CPUs and prepares everything that is done before fork. Errors, each with one line for the
// user: kBadValue (the request's text; offline or missing CPUs), kFull (no room, or leased to
// someone else), kNotFound (no such GPU), kNoPermission, kSystem. Blocks up to 10 s for the
// ledger's lock. Single-threaded callers only, as it is meant for launchers.
Expected<Placement> place(const PlacementRequest& request);

// The number of CPUs that a request asks for, kTooManyCpus beyond any machine; nothing for a list.
inline constexpr int kTooManyCpus = 1 << 30;
std::optional<int> cpu_count_of(const PlacementRequest& request);

// Only the choice: what place() would take on `topology` with `leases` held, without changing a
// thing.
Expected<Placement> choose(const Topology& topology, const CpuSet& allowed,
                           const std::vector<Lease>& leases, const PlacementRequest& request);

// What the child found after entering. Plain data, so that it can be sent through a pipe.
struct Entered {
  Level level = Level::kNone;
  int group_errno = 0;   // of entering the group
  int mask_errno = 0;    // of resetting or setting the mask
  int memory_errno = 0;  // of the memory policy
  CpuSet granted;        // the mask in force afterwards
};

// Puts the caller into the slice. The caller is the child after fork; nothing here allocates.
// Returns what was reached; level kEnforced only when the mask read back lies within the slice.
Entered enter(const Placement& placement);

// Takes the caller out of the slice's group again, for when it entered and cannot continue. The
// mask stays.
void leave(const Placement& placement);

// fork(), and in version 2 directly into the group (clone3 with CLONE_INTO_CGROUP), which spares
// the move. Returns like fork(); falls back to it when the kernel or a sandbox does not know
// clone3. The child must only call enter() and exec.
pid_t fork_into(const Placement& placement);

// Tells the ledger which process is the program. Without it a lease ends with the launcher.
void set_member(Placement* placement, pid_t program);

// Removes the group (waiting up to 200 ms for the last tasks to leave) and the lease. When tasks
// are still in it, both are left for a later run's sweep, since the slice is still in use.
void release(Placement* placement);

// Where its memory comes from: "memory node 0", "memory interleaved over nodes 0-1"; "" = anywhere.
std::string memory_text(const Placement& placement);

// One line: "CPUs 4-7, node 0: enforced (cpuset /sys/fs/cgroup/cpuset/allot-...)".
std::string describe(const Placement& placement, const Entered& entered);

}  // namespace allot::cpus
