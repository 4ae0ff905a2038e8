// The balancing domains that partitions make on 6.12, as far as they decide an errno: each domain
// carries the deadline servers of its CPUs, and a CPU that is the last active one of a domain with
// servers cannot go off line, nor can a partition be given only CPUs that are off line.
//
// Written from 6.12.117: generate_sched_domains and rebuild_sched_domains_locked
// (kernel/cgroup/cpuset.c), partition_sched_domains_locked (kernel/sched/topology.c),
// dl_bw_check_overflow, dl_cpuset_cpumask_can_shrink (kernel/sched/deadline.c). A rebuild clears
// the count of a domain that stays the same and does not count its servers again.
#include <algorithm>

#include "model/cpuset_state.h"

namespace allot::model {

std::vector<Mask> State::wanted_domains() const {
  std::vector<Mask> wanted{css(0).effective_cpus};
  if (subpartitions.empty()) return wanted;
  std::vector<int> pending = children_with_css(0);
  while (!pending.empty()) {
    int group = pending.back();
    pending.pop_back();
    const Cpuset& own = css(group);
    if (own.partition == kRootPartition && !own.effective_cpus.empty())
      wanted.push_back(own.effective_cpus);
    if (own.partition <= kMember && own.exclusive_cpus.empty()) continue;
    for (int child : children_with_css(group)) pending.push_back(child);
  }
  return wanted;
}

void State::rebuild_domains() {
  if (!rebuild || !v2() || era < Era::k6_12) return;
  rebuild = false;
  if (subpartitions.empty() && css(0).effective_cpus != active()) return;
  std::vector<int> pending = children_with_css(0);
  while (!subpartitions.empty() && !pending.empty()) {
    int group = pending.back();
    pending.pop_back();
    if (css(group).partition <= kMember) continue;
    if (!css(group).effective_cpus.subset_of(active())) return;
    for (int child : children_with_css(group)) pending.push_back(child);
  }
  std::vector<Domain> next;
  for (const Mask& cpus : wanted_domains()) {
    bool stays = std::any_of(domains.begin(), domains.end(),
                             [&](const Domain& domain) { return domain.cpus == cpus; });
    next.push_back({cpus, !stays && cpus.intersects(active())});
  }
  domains = std::move(next);
}

bool State::deadline_load(int cpu) const {
  return std::any_of(domains.begin(), domains.end(),
                     [&](const Domain& domain) { return domain.cpus.test(cpu) && domain.counted; });
}

}  // namespace allot::model
