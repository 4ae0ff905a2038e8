// The memory nodes of a program: which nodes go with a set of CPUs, and binding a process to them.
//
// With a cpuset the group's mems file fences memory; without one the process's own policy is the
// only means. It is kept over exec and inherited by children, so setting it before exec covers the
// program. libnuma is not used: it aborts on machines whose node numbers have holes, and two system
// calls do.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string_view>

#include "cpus/cpu_set.h"
#include "cpus/topology.h"

namespace allot::cpus {

// The nodes with memory that serve `cpus` best: their own, and for a node without memory its
// nearest with some. Cut to the nodes allowed here; empty when the machine has no nodes to speak
// of.
CpuSet nodes_for(const Topology& topology, const CpuSet& cpus);

// How a program takes memory from its nodes, as numactl names it.
enum class MemoryPolicy {
  kNone,        // none asked for: with nodes, bound to them
  kBind,        // from these nodes only
  kPreferred,   // from these first
  kInterleave,  // page by page from one after the other
  kLocal,       // from the node of the CPU that asks, whatever policy was inherited
};
// Nothing for a word that is none of "bind", "preferred", "interleave", "local".
std::optional<MemoryPolicy> memory_policy_named(std::string_view word);

// Sets the caller's policy; kNone is kBind. Several preferred nodes need Linux 5.15. Returns 0 or
// the errno as bind_memory(). Safe between fork and exec.
int set_memory_policy(MemoryPolicy policy, const CpuSet& nodes);

// Binds the caller's later allocations to `nodes` (MPOL_BIND). Empty = the default policy again.
// Returns 0 or the errno: EINVAL (no node of the set is allowed or has memory), ENOSYS (kernel
// without NUMA), EPERM (forbidden by a sandbox). Safe between fork and exec.
int bind_memory(const CpuSet& nodes);

// Moves the pages that a process has to `nodes`, as migrate_pages(2) does. Returns 0 or the errno:
// EPERM (another user's process), EINVAL (no node of the set is allowed to it), ENOSYS. Blocks for
// as long as copying takes.
int migrate_memory(pid_t pid, const CpuSet& nodes);

// The nodes the caller's memory is bound to; empty when it is under no MPOL_BIND policy.
CpuSet bound_memory();

}  // namespace allot::cpus
