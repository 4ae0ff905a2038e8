// Writes to cpus and mems, and what follows from them down the tree.
//
// The order of the checks decides which errno a caller sees, so it is the kernel's: parse, subset
// of the machine, unchanged, then validate_change(): children, parent (both only in v1), populated,
// siblings. Source of the rules: kernel/cgroup/cpuset.c of 6.1 and 6.12 (update_cpumask,
// update_nodemask, validate_change, update_cpumasks_hier, update_nodemasks_hier); for 2.6.25 the
// same file of that version. Tasks' masks are overwritten only where an effective set really
// changed.
#include <cerrno>

#include "model/cpuset_state.h"

namespace allot::model {

Outcome State::validate_common(int group, const Cpuset& trial) const {
  const Cpuset& own = css(group);
  bool busy = is(Broken::kPopulatedOwnTasksOnly) ? has_tasks(group) : populated(group);
  if (is(Broken::kPopulatedMayEmpty) || (v2() && is(Broken::kPopulatedClearsV2))) busy = false;
  if (busy) {
    if (!own.cpus.empty() && trial.cpus.empty())
      return failure(ENOSPC, Why::kPopulated, at(group).path, own.cpus);
    if (!own.mems.empty() && trial.mems.empty())
      return failure(ENOSPC, Why::kPopulated, at(group).path, {}, own.mems);
  }
  // The deadline servers that 6.12 keeps on a partition's CPUs need one that is active.
  if (era >= Era::k6_12 && v2() && own.cpu_exclusive && !own.cpus.empty() &&
      !trial.cpus.intersects(active()) && deadline_load(own.cpus.first()))
    return failure(EBUSY, Why::kPopulated, at(group).path, own.cpus);
  if (is(Broken::kSiblingForgotten)) return {};
  if (v2() && era >= Era::k6_12) return validate_exclusive(group, trial);
  for (int sibling : children_with_css(at(group).parent)) {
    if (sibling == group) continue;
    const Cpuset& other = css(sibling);
    bool others_cpus = other.cpu_exclusive && !is(Broken::kSiblingOnlyMine);
    if ((trial.cpu_exclusive || others_cpus) && trial.cpus.intersects(other.cpus)) {
      return failure(EINVAL, Why::kSiblingOverlap, at(sibling).path, trial.cpus & other.cpus);
    }
    if ((trial.mem_exclusive || other.mem_exclusive) && trial.mems.intersects(other.mems) &&
        !is(Broken::kMemsOverlapAllowed)) {
      return failure(EINVAL, Why::kSiblingOverlap, at(sibling).path, {}, trial.mems & other.mems);
    }
  }
  return {};
}

// Siblings on 6.12: exclusive CPUs, where given, stand for a group's CPUs, and an ordinary group
// may not lie wholly within a sibling's.
Outcome State::validate_exclusive(int group, const Cpuset& trial) const {
  auto mine = [](const Cpuset& own) {
    return own.exclusive_cpus.empty() ? own.cpus : own.exclusive_cpus;
  };
  for (int sibling : children_with_css(at(group).parent)) {
    if (sibling == group) continue;
    const Cpuset& other = css(sibling);
    bool trial_has = !trial.exclusive_cpus.empty();
    bool other_has = !other.exclusive_cpus.empty();
    Mask taken;
    if (trial.cpu_exclusive || other.cpu_exclusive || (trial_has && other_has)) {
      taken = mine(trial) & mine(other);
    } else if (trial_has || other_has) {
      const Mask& exclusive = trial_has ? trial.exclusive_cpus : other.exclusive_cpus;
      const Mask& asked = trial_has ? other.cpus : trial.cpus;
      if (asked.subset_of(exclusive)) taken = asked;
    }
    if (!taken.empty()) return failure(EINVAL, Why::kSiblingOverlap, at(sibling).path, taken);
  }
  return {};
}

Outcome State::validate(int group, const Cpuset& trial) const {
  if (!v2_mode()) {
    if (Outcome legacy = validate_legacy(group, trial); !legacy.ok()) return legacy;
  } else if (group != 0 && is(Broken::kChildLimitedByParent)) {
    Mask extra = trial.cpus - css(at(group).parent).effective_cpus;
    if (!extra.empty()) return failure(EACCES, Why::kParentLacks, at(at(group).parent).path, extra);
  }
  if (group == 0) return {};
  return validate_common(group, trial);
}

Mask State::compute_effective(const Cpuset& own, int parent) const {
  const Cpuset& above = css(parent);
  if (above.subparts_cpus.empty()) return own.cpus & above.effective_cpus;
  return (above.effective_cpus | above.subparts_cpus) & own.cpus & active();
}

Outcome State::write_cpus(int group, std::string_view text) {
  if (group == 0) return failure(is(Broken::kRootWritable) ? EINVAL : EACCES, Why::kRootFixed, "/");
  Cpuset trial = css(group);
  trial.cpus = Mask();
  if (!text.empty()) {
    // 2.6.25 reads the list against all CPUs it is built for, and then drops what is not on line.
    int bits = era == Era::k2_6_25 ? Mask::kBits : cpu_bits();
    if (int err = parse_list(text, bits, &trial.cpus)) {
      if (is(Broken::kRangeIsInvalid)) err = EINVAL;
      return failure(err, Why::kParse);
    }
    Mask missing = trial.cpus - css(0).cpus;
    if (era == Era::k2_6_25) {
      trial.cpus = trial.cpus - missing;
    } else if (!missing.empty() && !is(Broken::kOfflineAllowed)) {
      return failure(EINVAL, Why::kNotInTop, "/", missing);
    }
  }
  Cpuset& own = css(group);
  if (own.cpus == trial.cpus) return {};
  Outcome done;
  if (v2()) {
    done = era < Era::k6_12 ? write_cpus_6_1(group, trial) : write_cpus_6_12(group, trial);
    if (!done.ok() || done.reason.why != Why::kNone) return done;
  } else {
    if (Outcome checked = validate(group, trial); !checked.ok()) return checked;
    own.cpus = trial.cpus;
    update_cpus_below(group, false);
  }
  Mask dropped = own.cpus - own.effective_cpus;
  if (v2_mode() && !dropped.empty()) {
    bool inherited = !own.cpus.intersects(own.effective_cpus);
    done.reason = {
        inherited ? Why::kInherited : Why::kClipped, at(at(group).parent).path, dropped, {}, 0, {}};
  }
  return done;
}

Outcome State::write_mems(int group, std::string_view text) {
  if (group == 0) return failure(EACCES, Why::kRootFixed, "/");
  Cpuset trial = css(group);
  trial.mems = Mask();
  if (!text.empty()) {
    if (int err = parse_list(text, machine.max_nodes, &trial.mems))
      return failure(err, Why::kParse);
    Mask missing = trial.mems - css(0).mems;
    if (!missing.empty()) return failure(EINVAL, Why::kNotInTop, "/", {}, missing);
  }
  Cpuset& own = css(group);
  if (own.mems == trial.mems) return {};
  if (Outcome checked = validate(group, trial); !checked.ok()) return checked;
  own.mems = trial.mems;
  update_mems_below(group);

  Outcome done;
  Mask dropped = own.mems - own.effective_mems;
  if (v2_mode() && !dropped.empty()) {
    bool inherited = !own.mems.intersects(own.effective_mems);
    done.reason = {
        inherited ? Why::kInherited : Why::kClipped, at(at(group).parent).path, {}, dropped, 0, {}};
  }
  return done;
}

// update_cpumasks_hier() of v1, which knows no partitions: parents first, a subtree whose effective
// set stays as it was is left alone, and so are the masks of its tasks.
void State::update_cpus_below(int group, bool force) {
  Cpuset& own = css(group);
  Mask next = compute_effective(own, at(group).parent);
  bool inherits = v2_mode() && next.empty();
  if (inherits && !is(Broken::kEmptyResultStaysEmpty)) next = css(at(group).parent).effective_cpus;
  own.use_parent_ecpus = inherits;
  if (next == own.effective_cpus && !force && !is(Broken::kUnchangedEffectiveResets)) return;
  own.effective_cpus = next;
  if (!is(Broken::kWriteKeepsTaskMasks)) update_task_cpus(group);
  for (int child : children_with_css(group))
    update_cpus_below(child, force || is(Broken::kWriteReachesChildren));
}

void State::update_mems_below(int group) {
  Cpuset& own = css(group);
  const Cpuset& above = css(at(group).parent);
  Mask next = own.mems & above.effective_mems;
  if (v2_mode() && next.empty()) next = above.effective_mems;
  if (next == own.effective_mems) return;
  own.effective_mems = next;
  update_task_mems(group);
  for (int child : children_with_css(group)) update_mems_below(child);
}

// Sets the mask of every task this cpuset rules. A mask without an active CPU is refused silently.
void State::update_task_cpus(int css_group) {
  for (int tid : tasks_ruled_by(css_group)) {
    Task& task = tasks.at(tid);
    if (css_group == 0) {
      if (task.no_setaffinity) continue;
      Mask mask = machine.possible_cpus - subpartitions;
      set_mask(&task, era == Era::k6_1 ? css(0).effective_cpus : mask);
    } else {
      set_mask(&task, css(css_group).effective_cpus);
    }
  }
}

Mask State::guarantee_mems(int css_group) const {
  int group = css_group;
  while (!css(group).effective_mems.intersects(machine.memory_nodes)) group = at(group).parent;
  return css(group).effective_mems & machine.memory_nodes;
}

void State::update_task_mems(int css_group) {
  for (int tid : tasks_ruled_by(css_group)) tasks.at(tid).mems = guarantee_mems(css_group);
}

}  // namespace allot::model
