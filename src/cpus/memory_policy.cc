// Memory nodes: see memory_policy.h. Raw calls; numbers from linux/mempolicy.h, which the kernel
// keeps.
#include "cpus/memory_policy.h"

#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace allot::cpus {

CpuSet nodes_for(const Topology& t, const CpuSet& cpus) {
  CpuSet chosen;
  auto usable = [&t](const Node& node) {
    return node.has_memory && (t.allowed_mems.empty() || t.allowed_mems.has(node.id));
  };
  for (int cpu = cpus.first(); cpu >= 0; cpu = cpus.next(cpu)) {
    int home = cpu < static_cast<int>(t.cpus.size()) ? t.cpus[static_cast<size_t>(cpu)].node : -1;
    if (home < 0) continue;
    int best = 1 << 30, best_id = -1;
    for (const Node& node : t.nodes) {
      if (usable(node) && t.distance(home, node.id) < best) {
        best = t.distance(home, node.id);
        best_id = node.id;
      }
    }
    chosen.add(best_id);
  }
  return chosen;
}

std::optional<MemoryPolicy> memory_policy_named(std::string_view word) {
  if (word == "bind") return MemoryPolicy::kBind;
  if (word == "preferred") return MemoryPolicy::kPreferred;
  if (word == "interleave") return MemoryPolicy::kInterleave;
  if (word == "local") return MemoryPolicy::kLocal;
  return std::nullopt;
}

int set_memory_policy(MemoryPolicy policy, const CpuSet& nodes) {
  // The kernel reads maxnode - 1 bits.
  constexpr unsigned long kNodes = CpuSet::bytes() * 8 + 1;
  constexpr int kPreferredMany = 5;  // MPOL_PREFERRED_MANY, which older headers lack
  switch (policy) {
    case MemoryPolicy::kLocal:
      return syscall(SYS_set_mempolicy, MPOL_LOCAL, nullptr, 0) == 0 ? 0 : errno;
    case MemoryPolicy::kPreferred: {
      int mode = nodes.count() > 1 ? kPreferredMany : MPOL_PREFERRED;
      return syscall(SYS_set_mempolicy, mode, nodes.words(), kNodes) == 0 ? 0 : errno;
    }
    case MemoryPolicy::kInterleave:
      return syscall(SYS_set_mempolicy, MPOL_INTERLEAVE, nodes.words(), kNodes) == 0 ? 0 : errno;
    case MemoryPolicy::kBind:
    case MemoryPolicy::kNone:
      break;
  }
  return bind_memory(nodes);
}

int bind_memory(const CpuSet& nodes) {
  if (nodes.empty()) return syscall(SYS_set_mempolicy, MPOL_DEFAULT, nullptr, 0) == 0 ? 0 : errno;
  // The kernel reads maxnode - 1 bits.
  return syscall(SYS_set_mempolicy, MPOL_BIND, nodes.words(), CpuSet::bytes() * 8 + 1) == 0 ? 0
                                                                                            : errno;
}

int migrate_memory(pid_t pid, const CpuSet& nodes) {
  CpuSet from = CpuSet::range(0, kMaxCpus - 1) - nodes;
  long left = syscall(SYS_migrate_pages, pid, CpuSet::bytes() * 8 + 1, from.words(), nodes.words());
  return left >= 0 ? 0 : errno;
}

CpuSet bound_memory() {
  CpuSet nodes;
  int mode = 0;
  if (syscall(SYS_get_mempolicy, &mode, nodes.words(), CpuSet::bytes() * 8, nullptr, 0) != 0)
    return {};
  return mode == MPOL_BIND ? nodes : CpuSet{};
}

}  // namespace allot::cpus
