// Partitions as Linux 6.12 has them: exclusive CPUs handed down the tree (cpuset.cpus.exclusive and
// its effective form), local partitions below a partition, and remote ones below ordinary groups.
//
// Written from kernel/cgroup/cpuset.c of 6.12.117 (update_parent_effective_cpumask,
// compute_effective_exclusive_cpumask, compute_partition_effective_cpumask, update_cpumasks_hier,
// remote_partition_*, update_cpumask, update_exclusive_cpumask, update_prstate). That kernel passes
// three scratch masks from function to function, and a callee may overwrite one that its caller
// reads afterwards; results depend on it, so Scratch is passed here the same way. What happens at
// hotplug and at a write is in partition_write_6_12.cc.
#include "model/partition_6_12.h"

#include <cerrno>

namespace allot::model {

// The CPUs a group may have to itself: what it asks for, within what the parent has, without those
// of its siblings. Returns how many siblings were in the way. `as` is the group whose place `own`
// takes (a trial), -1 for the group itself.
int State::exclusive_cpus(const Cpuset& own, int group, bool trial, Mask* out) const {
  *out = user_exclusive(own) & css(at(group).parent).effective_xcpus;
  if (!trial && !own.exclusive_cpus.empty()) return 0;
  int conflicts = 0;
  for (int sibling : children_with_css(at(group).parent)) {
    if (sibling == group || is(Broken::kExclusiveOverlapAllowed)) continue;
    const Cpuset& other = css(sibling);
    if (!other.exclusive_cpus.empty() && out->intersects(other.exclusive_cpus)) {
      *out = *out - other.exclusive_cpus;
      ++conflicts;
    } else if (!other.effective_xcpus.empty() && out->intersects(other.effective_xcpus)) {
      *out = *out - other.effective_xcpus;
      ++conflicts;
    }
  }
  return conflicts;
}

bool State::no_cpu_for_tasks(int parent, int group, const Mask& xcpus) const {
  if (is(Broken::kPartitionTakesLastCpus)) return false;
  return (css(parent).effective_cpus.subset_of(xcpus) && partition_populated(parent, group)) ||
         (!xcpus.intersects(active()) && partition_populated(group, -1));
}

bool State::set_exclusive(int group, int state) {
  Cpuset& own = css(group);
  if (state > kMember && !own.cpu_exclusive)
    return try_flag(group, &Cpuset::cpu_exclusive, true) || is(Broken::kPartitionOverlapAllowed);
  if (state <= kMember && own.cpu_exclusive) try_flag(group, &Cpuset::cpu_exclusive, false);
  return true;
}

void State::set_balance(int group, int before) {
  Cpuset& own = css(group);
  bool balance = own.partition > kMember ? own.partition != kIsolated
                                         : css(at(group).parent).sched_load_balance;
  if (own.partition > kMember || before > kMember || balance != own.sched_load_balance)
    rebuild = true;
  own.sched_load_balance = balance;
}

// What is left of a partition that is none any more.
void State::reset_partition(int group) {
  Cpuset& own = css(group);
  own.nr_subparts = 0;
  if (own.exclusive_cpus.empty()) {
    own.effective_xcpus = {};
    own.cpu_exclusive = false;
  }
  const Cpuset& above = css(at(group).parent);
  own.effective_cpus = above.effective_cpus & own.cpus;
  if (own.effective_cpus.empty()) own.effective_cpus = above.effective_cpus;
}

void State::new_state_of(int state, const Mask& cpus) {
  isolated = state == kIsolated ? isolated | cpus : isolated - cpus;
}

void State::give_exclusive(int state, int parent, const Mask& cpus) {
  if (parent == 0) subpartitions = subpartitions | cpus;
  if (state != css(parent).partition) new_state_of(state, cpus);
  if (!is(Broken::kPartitionLeavesParent))
    css(parent).effective_cpus = css(parent).effective_cpus - cpus;
}

// Cuts *cpus to those active, as the kernel does.
void State::take_exclusive(int state, int parent, Mask* cpus) {
  if (parent == 0) subpartitions = subpartitions - *cpus;
  if (state != css(parent).partition) new_state_of(css(parent).partition, *cpus);
  *cpus = *cpus & active();
  if (!is(Broken::kPartitionKeepsCpus))
    css(parent).effective_cpus = css(parent).effective_cpus | *cpus;
}

// The mask of the last task looked at stays in the scratch mask.
void State::update_tasks_6_12(int group, Mask* scratch) {
  for (int tid : tasks_ruled_by(group)) {
    if (group == 0 && tasks.at(tid).no_setaffinity) continue;
    *scratch = group == 0 ? machine.possible_cpus - subpartitions : css(group).effective_cpus;
  }
  update_task_cpus(group);
}

PartitionError State::remote_enable(int group, int state, Scratch* s) {
  Cpuset& own = css(group);
  exclusive_cpus(own, group, false, &s->next);
  if (s->next.empty() || s->next.intersects(subpartitions) ||
      css(0).effective_cpus.subset_of(s->next))
    return PartitionError::kInvalidCpus;
  give_exclusive(state, 0, s->next);
  own.remote = true;
  own.effective_xcpus = s->next;
  own.partition_error = PartitionError::kNone;
  rebuild = true;
  update_tasks_6_12(0, &s->next);
  update_siblings_6_12(0, -1, s);
  return PartitionError::kNone;
}

void State::remote_disable(int group, Scratch* s) {
  Cpuset& own = css(group);
  own.remote = false;
  take_exclusive(own.partition, 0, &own.effective_xcpus);
  own.partition = own.partition_error != PartitionError::kNone ? -own.partition : kMember;
  exclusive_cpus(own, group, false, &own.effective_xcpus);
  reset_partition(group);
  rebuild = true;
  update_tasks_6_12(0, &s->next);
  update_siblings_6_12(0, -1, s);
}

// `wanted` may be s->next itself.
void State::remote_update(int group, const Mask* exclusive, const Mask& wanted, Scratch* s) {
  Cpuset& own = css(group);
  if (wanted.empty()) {
    own.partition_error = PartitionError::kEmpty;
    remote_disable(group, s);
    return;
  }
  s->add = wanted - own.effective_xcpus;
  s->give_back = own.effective_xcpus - wanted;
  bool adding = !s->add.empty();
  if (adding && (s->add.intersects(subpartitions) || css(0).effective_cpus.subset_of(s->add))) {
    own.partition_error = PartitionError::kNoCpus;
  }
  if (adding && own.partition_error != PartitionError::kNone) {
    remote_disable(group, s);
    return;
  }
  bool deleting = !s->give_back.empty();
  if (adding) give_exclusive(own.partition, 0, s->add);
  if (deleting) take_exclusive(own.partition, 0, &s->give_back);
  own.effective_xcpus = wanted;
  rebuild = rebuild || adding || deleting;
  if (exclusive != nullptr) own.exclusive_cpus = *exclusive;
  update_tasks_6_12(0, &s->next);
  update_siblings_6_12(0, -1, s);
}

// The effective CPUs of a valid partition, less those of the partitions among its children; a child
// that no longer fits becomes invalid.
void State::partition_effective(int group, Mask* out) {
  Cpuset& own = css(group);
  bool busy = partition_populated(group, -1);
  exclusive_cpus(own, group, false, out);
  *out = *out & active();
  for (int id : children_with_css(group)) {
    Cpuset& child = css(id);
    if (child.partition <= kMember) continue;
    child.partition_error = PartitionError::kNone;
    if (!child.effective_xcpus.subset_of(own.effective_xcpus)) {
      child.partition_error = PartitionError::kInvalidCpus;
    } else if (busy && out->subset_of(child.effective_xcpus)) {
      child.partition_error = PartitionError::kNoCpus;
    }
    if (child.partition_error == PartitionError::kNone) {
      *out = *out - child.effective_xcpus;
      continue;
    }
    child.partition = -child.partition;
    --own.nr_subparts;
    child.nr_subparts = 0;
  }
}

// One group of update_cpumasks_hier(). False: its subtree is left alone.
bool State::update_one_6_12(int group, bool first, bool force, Scratch* s) {
  Cpuset& own = css(group);
  int parent = at(group).parent;
  const Cpuset& above = css(parent);
  bool remote = own.remote;
  bool update = false;
  int before = own.partition;
  int after = before;
  if (remote && !first) {
    exclusive_cpus(own, group, false, &s->next);
    if (own.effective_xcpus == s->next) return false;
    remote_update(group, nullptr, s->next, s);
    after = own.partition;
    remote = after == before;
  }
  bool local = above.partition > kMember && own.partition > kMember;
  if (remote || local) {
    partition_effective(group, &s->next);
  } else {
    s->next = own.cpus & above.effective_cpus;
  }
  if (!remote) {
    if (own.partition > kMember && s->next.empty()) {
      update = true;
    } else {
      if (s->next.empty() && !is(Broken::kEmptyResultStaysEmpty)) s->next = above.effective_cpus;
      if (own.partition == kMember && !force && s->next == own.effective_cpus &&
          above.sched_load_balance == own.sched_load_balance &&
          !is(Broken::kUnchangedEffectiveResets))
        return false;
    }
    if (!first && before != kMember) {
      if (above.partition > kMember) {
        update = true;
      } else {
        if (own.partition > kMember) after = -own.partition;
        own.partition_error =
            above.partition < 0 ? PartitionError::kInvalidParent : PartitionError::kNotPartition;
      }
    }
  }
  if (update) {
    parent_effective(group, PartitionStep::kUpdate, nullptr, s);
    after = own.partition;
  }
  own.effective_cpus = s->next;
  own.partition = after;
  if (!own.exclusive_cpus.empty() && !first)
    exclusive_cpus(own, group, false, &own.effective_xcpus);
  if (after > kMember && own.exclusive_cpus.empty()) {
    own.effective_xcpus = own.cpus & above.effective_xcpus;
  } else if (after < 0) {
    reset_partition(group);
  }
  partition_changed(group, before);
  if (!is(Broken::kWriteKeepsTaskMasks)) update_tasks_6_12(group, &s->next);
  if (own.partition <= kMember) own.sched_load_balance = above.sched_load_balance;
  if (!own.cpus.empty() && own.sched_load_balance && own.partition > kMember) rebuild = true;
  return true;
}

void State::update_below_6_12(int from, bool force, Scratch* s) {
  std::vector<int> pending{from};
  while (!pending.empty()) {
    int group = pending.back();
    pending.pop_back();
    if (!update_one_6_12(group, group == from, force, s)) continue;
    std::vector<int> children = children_with_css(group);
    pending.insert(pending.end(), children.rbegin(), children.rend());
  }
}

void State::update_siblings_6_12(int parent, int except, Scratch* s) {
  for (int sibling : children_with_css(parent)) {
    if (sibling == except) continue;
    Cpuset& own = css(sibling);
    if (own.partition <= kMember) {
      s->next = own.cpus & css(parent).effective_cpus;
      if (s->next == own.effective_cpus) continue;
    } else if (own.remote) {
      continue;
    }
    update_below_6_12(sibling, false, s);
  }
}

}  // namespace allot::model
