// What makes, changes and ends a partition of 6.12: writes to cpus, cpus.exclusive and
// cpus.partition, and hotplug. The steps that they share are in partition_6_12.cc; so is the
// source.
#include <cerrno>

#include "model/partition_6_12.h"

namespace allot::model {
namespace {

// Which of a local partition's CPUs come back to the parent (s.add) and which go to the partition
// (s.give_back: the kernel's names are the parent's view).
struct Change {
  bool adding = false, deleting = false;
  int after = 0;
  int parts = 0;  // change of the parent's number of partitions
  PartitionError error = PartitionError::kNone;
};

bool both(Mask* out, const Mask& a, const Mask& b) {
  *out = a & b;
  return !out->empty();
}

}  // namespace

// Whether an invalid partition may become valid again by itself.
bool State::alone_with_its_cpus(int group) const {
  for (int child : children_with_css(at(group).parent)) {
    if (child != group && user_exclusive(css(group)).intersects(user_exclusive(css(child))))
      return false;
  }
  return true;
}

PartitionError State::parent_effective(int group, PartitionStep step, const Mask* next,
                                       Scratch* s) {
  Cpuset& own = css(group);
  int parent = at(group).parent;
  Cpuset& above = css(parent);
  int before = own.partition;
  const Mask xcpus = user_exclusive(own);
  Change c;
  c.after = before;
  if (step == PartitionStep::kInvalidate) {
    if (before < 0) return PartitionError::kNone;
    if (above.partition > kMember) c.adding = both(&s->add, xcpus, above.effective_xcpus);
    if (before > 0) {
      c.after = -before;
      --c.parts;
    }
  } else {
    if (above.partition <= kMember && !is(Broken::kPartitionUnderMember)) {
      return above.partition < 0 ? PartitionError::kInvalidParent : PartitionError::kNotPartition;
    }
    if (next == nullptr && xcpus.empty()) return PartitionError::kEmpty;
    bool nocpu = no_cpu_for_tasks(parent, group, xcpus);
    if (step == PartitionStep::kEnable || step == PartitionStep::kEnableIsolated) {
      exclusive_cpus(own, group, false, &s->next);
      if (s->next.empty()) return PartitionError::kInvalidCpus;
      if (no_cpu_for_tasks(parent, group, s->next)) return PartitionError::kNoCpus;
      c.deleting = both(&s->give_back, s->next, above.effective_xcpus);
      if (c.deleting) ++c.parts;
      c.after = step == PartitionStep::kEnable ? kRootPartition : kIsolated;
    } else if (step == PartitionStep::kDisable) {
      if (before > kMember) {
        s->add = own.effective_xcpus;
        c.adding = true;
        --c.parts;
      }
      c.after = kMember;
    } else if (next != nullptr && next->empty()) {
      c.error = PartitionError::kEmpty;
    } else if (next != nullptr) {
      nocpu = nocpu || no_cpu_for_tasks(parent, group, *next);
      if (before < 0) {
        c.deleting = both(&s->give_back, *next, above.effective_xcpus);
      } else {
        c.adding = both(&s->add, xcpus - *next, above.effective_xcpus);
        c.deleting = both(&s->give_back, *next - xcpus, above.effective_xcpus);
      }
      if (nocpu && (!c.adding || !s->add.intersects(active()))) {
        c.error = PartitionError::kNoCpus;
        c.deleting = false;
        c.adding = both(&s->add, xcpus, above.effective_xcpus);
      }
    } else if (nocpu) {
      c.error = PartitionError::kNoCpus;
      if (before > kMember) c.adding = both(&s->add, xcpus, above.effective_xcpus);
    } else if (before < 0 && xcpus.subset_of(above.effective_xcpus)) {
      if (alone_with_its_cpus(group)) {
        c.deleting = both(&s->give_back, xcpus, above.effective_cpus);
      } else {
        c.error = PartitionError::kNotExclusive;
      }
    }
  }
  if (c.error != PartitionError::kNone) own.partition_error = c.error;
  if (step == PartitionStep::kUpdate && before != kMember) {
    bool failed = c.error != PartitionError::kNone;
    if (failed == (before > 0) && !(before < 0 && is(Broken::kPartitionStaysInvalid))) {
      c.after = -before;
      c.parts += before > 0 ? -1 : 1;
    }
  }
  if (!c.adding && !c.deleting && c.after == before) return PartitionError::kNone;
  bool updating = step == PartitionStep::kUpdate;
  if (before != c.after && !updating && !set_exclusive(group, c.after))
    return PartitionError::kNotExclusive;
  if (before != c.after) {
    own.partition = c.after;
    if (c.after <= kMember) own.nr_subparts = 0;
  }
  if (c.adding) take_exclusive(before, parent, &s->add);
  if (c.deleting) give_exclusive(c.after, parent, s->give_back);
  if (above.partition > kMember) above.nr_subparts += c.parts;
  if (before != c.after && updating) set_exclusive(group, c.after);
  if (c.adding || c.deleting) {
    update_tasks_6_12(parent, &s->add);
    update_siblings_6_12(parent, group, s);
  }
  if (updating && next == nullptr) set_balance(group, before);
  partition_changed(group, before);
  return PartitionError::kNone;
}

// What a write to cpus or cpus.exclusive is up against; the kernel notes the error even when the
// write is refused later.
bool State::write_invalidates(int group, const Cpuset& trial, bool exclusive_file) {
  Cpuset& own = css(group);
  if (own.partition == kMember) return false;
  if ((exclusive_file || own.partition > kMember) && trial.effective_xcpus.empty()) {
    own.partition_error = PartitionError::kInvalidCpus;
    return true;
  }
  if (no_cpu_for_tasks(at(group).parent, group, trial.effective_xcpus)) {
    own.partition_error = PartitionError::kNoCpus;
    return true;
  }
  return false;
}

Outcome State::write_cpus_6_12(int group, Cpuset trial) {
  Cpuset& own = css(group);
  int parent = at(group).parent;
  int before = own.partition;
  if (trial.cpus.empty()) {
    if (trial.exclusive_cpus.empty()) trial.effective_xcpus = {};
  } else if (!trial.exclusive_cpus.empty() || before > kMember) {
    exclusive_cpus(trial, group, true, &trial.effective_xcpus);
  }
  Scratch s;
  bool invalidate = write_invalidates(group, trial, false);
  bool force = own.effective_xcpus != trial.effective_xcpus;
  Outcome checked = validate(group, trial);
  if (checked.err == EINVAL) {
    invalidate = true;
    for (int sibling : children_with_css(parent)) {
      if (css(sibling).partition > kMember && !is(Broken::kPartitionSurvivesOverlap) &&
          user_exclusive(trial).intersects(css(sibling).effective_xcpus))
        parent_effective(sibling, PartitionStep::kInvalidate, nullptr, &s);
    }
  } else if (!checked.ok()) {
    return checked;
  }
  if (own.partition > kMember || (own.partition < 0 && !invalidate)) {
    Mask xcpus = trial.effective_xcpus;
    if (xcpus.empty() && own.partition < 0) xcpus = trial.cpus;
    if (own.remote) {
      remote_update(group, nullptr, xcpus, &s);
    } else if (invalidate) {
      parent_effective(group, PartitionStep::kInvalidate, nullptr, &s);
    } else {
      parent_effective(group, PartitionStep::kUpdate, &xcpus, &s);
    }
  }
  own.cpus = trial.cpus;
  own.effective_xcpus = trial.effective_xcpus;
  if (before > kMember && own.partition <= kMember) reset_partition(group);
  update_below_6_12(group, force, &s);
  if (own.partition != kMember) set_balance(group, before);
  rebuild_domains();
  return partition_outcome(group);
}

Outcome State::write_exclusive(int group, std::string_view text) {
  Cpuset& own = css(group);
  Cpuset trial = own;
  trial.exclusive_cpus = {};
  if (text.empty()) {
    trial.effective_xcpus = {};
  } else if (int err = parse_list(text, cpu_bits(), &trial.exclusive_cpus)) {
    return failure(err, Why::kParse);
  }
  if (own.exclusive_cpus == trial.exclusive_cpus) return {};
  if (!text.empty() && exclusive_cpus(trial, group, true, &trial.effective_xcpus) != 0)
    return exclusive_conflict(group, trial);
  bool force = own.effective_xcpus != trial.effective_xcpus;
  if (Outcome checked = validate(group, trial); !checked.ok()) return checked;
  Scratch s;
  int before = own.partition;
  if (before != kMember) {
    bool invalidate = write_invalidates(group, trial, true);
    if (own.remote) {
      if (invalidate) {
        remote_disable(group, &s);
      } else {
        remote_update(group, &trial.exclusive_cpus, trial.effective_xcpus, &s);
      }
    } else if (invalidate) {
      parent_effective(group, PartitionStep::kInvalidate, nullptr, &s);
    } else {
      parent_effective(group, PartitionStep::kUpdate, &trial.effective_xcpus, &s);
    }
  }
  own.exclusive_cpus = trial.exclusive_cpus;
  own.effective_xcpus = trial.effective_xcpus;
  if (before > kMember && own.partition <= kMember) reset_partition(group);
  if (own.partition > kMember || force) update_below_6_12(group, force, &s);
  if (own.partition != kMember) set_balance(group, before);
  rebuild_domains();
  return partition_outcome(group);
}

Outcome State::exclusive_conflict(int group, const Cpuset& trial) const {
  for (int sibling : children_with_css(at(group).parent)) {
    const Cpuset& other = css(sibling);
    Mask taken = trial.exclusive_cpus & (other.exclusive_cpus | other.effective_xcpus);
    if (sibling != group && !taken.empty())
      return failure(EINVAL, Why::kSiblingOverlap, at(sibling).path, taken);
  }
  return failure(EINVAL, Why::kSiblingOverlap, at(group).path, trial.exclusive_cpus);
}

void State::set_partition_6_12(int group, int state) {
  Cpuset& own = css(group);
  int parent = at(group).parent;
  int before = own.partition;
  if (state != kMember && before < 0) before = kMember;
  Scratch s;
  bool only_balance = false;
  PartitionError error = PartitionError::kNone;
  if (!set_exclusive(group, state)) {
    error = PartitionError::kNotExclusive;
  } else if (before == kMember) {
    if (own.cpus.empty() && own.exclusive_cpus.empty()) {
      error = PartitionError::kEmpty;
    } else if (parent == 0 && own.exclusive_cpus.intersects(subpartitions)) {
      error = PartitionError::kRemote;
    } else if (css(parent).partition > kMember) {
      PartitionStep step =
          state == kRootPartition ? PartitionStep::kEnable : PartitionStep::kEnableIsolated;
      error = parent_effective(group, step, nullptr, &s);
    } else {
      error = remote_enable(group, state, &s);
    }
  } else if (state != kMember) {
    only_balance = true;
  } else if (own.remote) {
    remote_disable(group, &s);
  } else {
    parent_effective(group, PartitionStep::kDisable, nullptr, &s);
  }
  if (error != PartitionError::kNone) {
    state = -state;
    set_exclusive(group, state);
  }
  own.partition = state;
  own.partition_error = error;
  if (own.partition <= kMember) {
    reset_partition(group);
  } else if (only_balance) {
    new_state_of(state, own.effective_xcpus);
  }
  update_below_6_12(group, state == kMember, &s);
  set_balance(group, before);
  rebuild_domains();
  partition_changed(group, before);
}

bool State::hotplug_root_6_12() {
  Cpuset& top = css(0);
  Mask next = active();
  if (next == top.effective_cpus && subpartitions.empty()) return false;
  if (!subpartitions.empty() && next.subset_of(subpartitions)) {
    top.nr_subparts = 0;
    subpartitions = {};
  } else {
    next = next - subpartitions;
  }
  top.effective_cpus = next;
  return true;
}

void State::hotplug_6_12(int group) {
  Cpuset& own = css(group);
  int parent = at(group).parent;
  const Cpuset& above = css(parent);
  Scratch s;
  Mask next = own.cpus & above.effective_cpus;
  if (own.partition != kMember) {
    if (own.remote || (own.partition > kMember && above.partition > kMember))
      partition_effective(group, &next);
    if (own.remote && (subpartitions.empty() || (next.empty() && partition_populated(group, -1)))) {
      own.partition_error = PartitionError::kHotplug;
      remote_disable(group, &s);
      next = own.cpus & above.effective_cpus;
    }
    bool local = own.partition > kMember && !own.remote;
    bool lost = local && (above.partition <= kMember || no_cpu_for_tasks(parent, group, next) ||
                          subpartitions.empty());
    if (lost && !is(Broken::kPartitionSurvivesHotplug)) {
      parent_effective(group, PartitionStep::kInvalidate, nullptr, &s);
      partition_effective(group, &next);
      rebuild = true;
    } else if (!lost && above.partition > kMember && own.partition < 0 &&
               !own.effective_xcpus.empty()) {
      parent_effective(group, PartitionStep::kUpdate, nullptr, &s);
      if (own.partition > kMember) partition_effective(group, &next);
    }
  }
  apply_hotplug(group, next);
}

}  // namespace allot::model
