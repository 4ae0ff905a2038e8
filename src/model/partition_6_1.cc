// Partitions as Linux 6.1 has them: a partition's CPUs go from its parent's effective set to the
// parent's subparts_cpus.
//
// Written from kernel/cgroup/cpuset.c of 6.1.192 (update_parent_subparts_cpumask,
// update_cpumasks_hier, update_sibling_cpumasks, update_cpumask, update_prstate,
// cpuset_hotplug_update_tasks). Odd results are that kernel's: emptying cpuset.cpus of a valid
// partition leaves it "root", and a partition that lost its parent keeps its exclusive flag.
#include <cerrno>

#include "model/cpuset_state.h"

namespace allot::model {

// What an update finds: CPUs that go to the partition, CPUs that come back, and why it cannot be.
struct State::Subparts {
  Mask add, give_back;
  bool adding = false, deleting = false;
  PartitionError error = PartitionError::kNone;
};

State::Subparts State::update_subparts(int group, const Mask* next) const {
  const Cpuset& own = css(group);
  const Cpuset& above = css(at(group).parent);
  int parent = at(group).parent;
  bool emptied = is(Broken::kPartitionTakesLastCpus);
  Subparts out;
  if (next != nullptr) {
    out.give_back = (own.cpus - *next) & above.subparts_cpus;
    out.deleting = !out.give_back.empty();
    out.add = (*next & above.cpus) - above.subparts_cpus;
    out.adding = !out.add.empty();
    if (out.adding && above.effective_cpus.subset_of(out.add) &&
        !out.give_back.intersects(active()) && partition_populated(parent, group) && !emptied) {
      out.error = PartitionError::kNoCpus;
      out.adding = false;
      out.give_back = own.cpus & above.subparts_cpus;
      out.deleting = !out.give_back.empty();
    }
    return out;
  }
  out.add = (own.cpus & above.cpus) - above.subparts_cpus;
  out.adding = !out.add.empty();
  bool valid = own.partition > kMember;
  if ((valid && above.subparts_cpus.empty()) ||
      (out.adding && above.effective_cpus.subset_of(out.add) &&
       partition_populated(parent, group))) {
    out.error = PartitionError::kNoCpus;
    out.adding = false;
  }
  if (out.error != PartitionError::kNone && valid && !above.subparts_cpus.empty()) {
    out.give_back = own.cpus & above.subparts_cpus;
    out.deleting = !out.give_back.empty();
  }
  return out;
}

PartitionError State::parent_subparts(int group, PartitionStep step, const Mask* next) {
  Cpuset& own = css(group);
  int parent = at(group).parent;
  Cpuset& above = css(parent);
  if (above.partition <= kMember && !is(Broken::kPartitionUnderMember)) {
    return above.partition < 0 ? PartitionError::kInvalidParent : PartitionError::kNotPartition;
  }
  if (next != nullptr ? next->empty() : own.cpus.empty()) return PartitionError::kEmpty;
  Subparts change;
  int before = own.partition;
  int after = before;
  if (step == PartitionStep::kEnable) {
    if (!own.cpus.intersects(above.cpus)) return PartitionError::kInvalidCpus;
    if (above.effective_cpus.subset_of(own.cpus) && partition_populated(parent, group) &&
        !is(Broken::kPartitionTakesLastCpus)) {
      return PartitionError::kNoCpus;
    }
    change.add = own.cpus;
    change.adding = true;
  } else if (step == PartitionStep::kDisable || step == PartitionStep::kInvalidate) {
    if (step == PartitionStep::kInvalidate && before < 0) return PartitionError::kNone;
    change.give_back = own.cpus & above.subparts_cpus;
    change.deleting = before >= 0 && !change.give_back.empty();
    if (step == PartitionStep::kInvalidate && before > 0) {
      after = -before;
      change.error = PartitionError::kNotExclusive;
    }
  } else {
    change = update_subparts(group, next);
  }
  if (change.error != PartitionError::kNone) own.partition_error = change.error;
  if (step == PartitionStep::kUpdate && before != kMember) {
    bool failed = change.error != PartitionError::kNone;
    if (failed == (before > 0) && !(before < 0 && is(Broken::kPartitionStaysInvalid)))
      after = -before;
  }
  if (!change.adding && !change.deleting && after == before) return PartitionError::kNone;
  if (before != after) {
    if (before < 0 && !own.cpu_exclusive && !try_flag(group, &Cpuset::cpu_exclusive, true))
      return PartitionError::kNotExclusive;
    if (after < 0 && own.cpu_exclusive) try_flag(group, &Cpuset::cpu_exclusive, false);
  }
  if (change.adding) {
    above.subparts_cpus = above.subparts_cpus | change.add;
    if (!is(Broken::kPartitionLeavesParent))
      above.effective_cpus = above.effective_cpus - change.add;
  }
  if (change.deleting) {
    above.subparts_cpus = above.subparts_cpus - change.give_back;
    if (!is(Broken::kPartitionKeepsCpus))
      above.effective_cpus = above.effective_cpus | (change.give_back & active());
  }
  own.partition = after;
  if (change.adding || change.deleting) update_task_cpus(parent);
  if (before != after && (before == kIsolated || after == kIsolated))
    try_flag(group, &Cpuset::sched_load_balance, before == kIsolated);
  partition_changed(group, before);
  return PartitionError::kNone;
}

// One group of update_cpumasks_hier(). False: nothing changed here, so its subtree is left alone.
bool State::update_one_6_1(int group, bool first, bool force) {
  Cpuset& own = css(group);
  const Cpuset& above = css(at(group).parent);
  Mask next = compute_effective(own, at(group).parent);
  bool all_given = next.empty() && own.partition > kMember && own.cpus == own.subparts_cpus;
  if (!all_given) {
    own.use_parent_ecpus = next.empty();
    if (next.empty() && !is(Broken::kEmptyResultStaysEmpty)) next = above.effective_cpus;
    if (own.partition == kMember && !force && next == own.effective_cpus &&
        above.sched_load_balance == own.sched_load_balance &&
        !is(Broken::kUnchangedEffectiveResets))
      return false;
  }
  int before = own.partition;
  int after = before;
  if (!first && before != kMember) {
    if (above.partition > kMember) {
      parent_subparts(group, PartitionStep::kUpdate, nullptr);
      after = own.partition;
    } else {
      if (before > kMember) after = -before;
      own.partition_error =
          above.partition < 0 ? PartitionError::kInvalidParent : PartitionError::kNotPartition;
    }
  }
  if (!own.subparts_cpus.empty() && own.partition <= kMember) {
    next = (next | own.subparts_cpus) & active();
    own.subparts_cpus = {};
  }
  own.effective_cpus = next - own.subparts_cpus;
  own.partition = after;
  partition_changed(group, before);
  if (!is(Broken::kWriteKeepsTaskMasks)) update_task_cpus(group);
  if (own.partition <= kMember) own.sched_load_balance = above.sched_load_balance;
  return true;
}

void State::update_below_6_1(int from, bool force) {
  std::vector<int> pending{from};
  while (!pending.empty()) {
    int group = pending.back();
    pending.pop_back();
    if (!update_one_6_1(group, group == from, force)) continue;
    std::vector<int> children = children_with_css(group);
    pending.insert(pending.end(), children.rbegin(), children.rend());
  }
}

void State::update_siblings_6_1(int parent, int except) {
  for (int sibling : children_with_css(parent)) {
    if (sibling != except && css(sibling).use_parent_ecpus) update_below_6_1(sibling, false);
  }
}

Outcome State::write_cpus_6_1(int group, const Cpuset& trial) {
  Cpuset& own = css(group);
  int parent = at(group).parent;
  Outcome checked = validate(group, trial);
  bool overlap = checked.err == EINVAL;
  if (overlap && !is(Broken::kPartitionSurvivesOverlap)) {
    for (int sibling : children_with_css(parent)) {
      if (css(sibling).partition > kMember && trial.cpus.intersects(css(sibling).cpus))
        parent_subparts(sibling, PartitionStep::kInvalidate, nullptr);
    }
  }
  if (!checked.ok() && !overlap) return checked;
  if (own.partition != kMember) {
    if (overlap) {
      parent_subparts(group, PartitionStep::kInvalidate, nullptr);
    } else {
      parent_subparts(group, PartitionStep::kUpdate, &trial.cpus);
    }
  }
  Mask effective = compute_effective(trial, parent);
  own.cpus = trial.cpus;
  if (!own.subparts_cpus.empty()) {
    bool starved = effective.subset_of(own.subparts_cpus) && partition_populated(group, -1);
    if (own.partition <= kMember || starved) {
      own.subparts_cpus = {};
    } else {
      own.subparts_cpus = own.subparts_cpus & own.cpus;
    }
  }
  update_below_6_1(group, false);
  if (own.partition != kMember) update_siblings_6_1(parent, group);
  return partition_outcome(group);
}

void State::set_partition_6_1(int group, int state) {
  Cpuset& own = css(group);
  int parent = at(group).parent;
  int before = own.partition;
  if (state != kMember && before < 0) {
    own.partition = -state;
    return;
  }
  PartitionError error = PartitionError::kNone;
  if (before == kMember) {
    if (own.cpus.empty()) {
      error = PartitionError::kEmpty;
    } else if (!try_flag(group, &Cpuset::cpu_exclusive, true) &&
               !is(Broken::kPartitionOverlapAllowed)) {
      error = PartitionError::kNotExclusive;
    } else {
      error = parent_subparts(group, PartitionStep::kEnable, nullptr);
      if (error != PartitionError::kNone) try_flag(group, &Cpuset::cpu_exclusive, false);
    }
    if (error == PartitionError::kNone && state == kIsolated)
      try_flag(group, &Cpuset::sched_load_balance, false);
  } else if (state != kMember) {
    try_flag(group, &Cpuset::sched_load_balance, state != kIsolated);
  } else {
    parent_subparts(group, PartitionStep::kDisable, nullptr);
    if (!own.subparts_cpus.empty()) {
      own.subparts_cpus = {};
      own.effective_cpus = compute_effective(own, parent);
    }
    try_flag(group, &Cpuset::cpu_exclusive, false);
    if (!own.sched_load_balance) try_flag(group, &Cpuset::sched_load_balance, true);
  }
  bool only_balance = before != kMember && state != kMember;
  if (error == PartitionError::kNone && !only_balance) {
    update_task_cpus(parent);
    update_siblings_6_1(parent, group);
  }
  own.partition = error == PartitionError::kNone ? state : -state;
  own.partition_error = error;
  if (!children_with_css(group).empty()) update_below_6_1(group, own.partition == kMember);
  partition_changed(group, before);
}

// The root after a CPU came or went. True when the groups below have to be looked at.
bool State::hotplug_root_6_1() {
  Cpuset& top = css(0);
  Mask next = active();
  if (next == top.effective_cpus && top.subparts_cpus.empty()) return false;
  if (next.subset_of(top.subparts_cpus)) {
    top.subparts_cpus = {};
  } else {
    next = next - top.subparts_cpus;
  }
  top.effective_cpus = next;
  return true;
}

Mask State::hotplug_partition_6_1(int group, Mask next) {
  Cpuset& own = css(group);
  int parent = at(group).parent;
  const Cpuset& above = css(parent);
  if (!own.subparts_cpus.empty() && own.partition > kMember && next.empty() &&
      partition_populated(group, -1)) {
    own.subparts_cpus = {};
    next = compute_effective(own, parent);
  }
  bool starved = next.empty() && partition_populated(group, -1);
  if (own.partition > kMember && (above.subparts_cpus.empty() || starved) &&
      !is(Broken::kPartitionSurvivesHotplug)) {
    parent_subparts(group, PartitionStep::kDisable, nullptr);
    if (!own.subparts_cpus.empty()) {
      own.subparts_cpus = {};
      next = compute_effective(own, parent);
    }
    if (own.partition > kMember) {
      own.partition = -own.partition;
      own.partition_error = above.partition < 0          ? PartitionError::kInvalidParent
                            : above.partition == kMember ? PartitionError::kNotPartition
                                                         : PartitionError::kHotplug;
    }
  } else if (above.partition > kMember && own.partition < 0) {
    parent_subparts(group, PartitionStep::kUpdate, nullptr);
  }
  return next;
}

void State::hotplug_6_1(int group) {
  Cpuset& own = css(group);
  Mask next = compute_effective(own, at(group).parent) - own.subparts_cpus;
  if (own.partition != kMember) next = hotplug_partition_6_1(group, next);
  apply_hotplug(group, next);
}

}  // namespace allot::model
