// Rules of the v1 hierarchy alone: children within parents, exclusive flags, the flag files,
// clone_children, and hotplug that takes CPUs away for good.
//
// Source of the rules: kernel/cgroup/cpuset.c of 6.1 (validate_change_legacy, update_flag,
// cpuset_write_u64, update_relax_domain_level, cpuset_css_online, hotplug_update_tasks_legacy) and
// cpuset-v1.c of 6.12; kernel/cgroup/cgroup-v1.c for tasks and cgroup.procs.
#include <algorithm>
#include <cerrno>
#include <set>

#include "model/cpuset_state.h"

namespace allot::model {
namespace {

struct FlagFile {
  std::string_view name;
  bool Cpuset::*flag;
};

constexpr FlagFile kFlagFiles[] = {
    {"cpuset.cpu_exclusive", &Cpuset::cpu_exclusive},
    {"cpuset.mem_exclusive", &Cpuset::mem_exclusive},
    {"cpuset.mem_hardwall", &Cpuset::mem_hardwall},
    {"cpuset.sched_load_balance", &Cpuset::sched_load_balance},
    {"cpuset.memory_migrate", &Cpuset::memory_migrate},
    {"cpuset.memory_spread_page", &Cpuset::spread_page},
    {"cpuset.memory_spread_slab", &Cpuset::spread_slab},
};

// Why `inner` is no subset of `outer`; the group is the one named to the user.
Outcome not_subset(int err, const Cpuset& inner, const Cpuset& outer, Why lacks, Why exclusive,
                   const std::string& path) {
  Mask cpus = inner.cpus - outer.cpus;
  Mask mems = inner.mems - outer.mems;
  bool sets = !cpus.empty() || !mems.empty();
  return failure(err, sets ? lacks : exclusive, path, cpus, mems);
}

}  // namespace

Outcome State::validate_legacy(int group, const Cpuset& trial) const {
  auto is_subset = [&](const Cpuset& inner, const Cpuset& outer) {
    bool exclusive =
        inner.cpu_exclusive <= outer.cpu_exclusive && inner.mem_exclusive <= outer.mem_exclusive;
    return inner.cpus.subset_of(outer.cpus) && inner.mems.subset_of(outer.mems) && exclusive;
  };
  auto check_children = [&]() -> Outcome {
    for (int child : children_with_css(group)) {
      const Cpuset& inner = css(child);
      if (is_subset(inner, trial)) continue;
      if (is(Broken::kExclusiveDropsUnderChild) && inner.cpus.subset_of(trial.cpus) &&
          inner.mems.subset_of(trial.mems))
        continue;
      return not_subset(EBUSY, inner, trial, Why::kChildNeeds, Why::kChildExclusive,
                        at(child).path);
    }
    return {};
  };
  auto check_parent = [&]() -> Outcome {
    if (group == 0) return {};
    const Cpuset& outer = css(at(group).parent);
    if (is_subset(trial, outer)) return {};
    if (is(Broken::kExclusiveUnderShared) && trial.cpus.subset_of(outer.cpus) &&
        trial.mems.subset_of(outer.mems))
      return {};
    return not_subset(EACCES, trial, outer, Why::kParentLacks, Why::kParentNotExclusive,
                      at(at(group).parent).path);
  };
  Outcome first = is(Broken::kChildAfterParent) ? check_parent() : check_children();
  if (!first.ok()) return first;
  return is(Broken::kChildAfterParent) ? check_children() : check_parent();
}

Outcome State::write_v1(int group, std::string_view file, std::string_view text,
                        const Caller& caller) {
  if (file == "tasks") return write_procs(group, text, false, caller);
  if (file == "cgroup.procs") return write_procs(group, text, true, caller);
  if (file == "cpuset.cpus" || file == "cpuset.mems") {
    size_t limit = 100 + 6 * static_cast<size_t>(file == "cpuset.cpus" ? machine.config_nr_cpus
                                                                       : machine.max_nodes);
    if (text.size() > limit) return failure(E2BIG, Why::kTooLong);
    return file == "cpuset.cpus" ? write_cpus(group, strip(text)) : write_mems(group, strip(text));
  }
  if (file == "cpuset.sched_relax_domain_level") {
    int64_t level = 0;
    if (int err = parse_signed(text, &level)) return failure(err, Why::kParse);
    int64_t top = machine.sched_domain_level_max + (is(Broken::kRelaxBoundTight) ? 0 : 1);
    if (level < -1 || level > top) return failure(EINVAL, Why::kParse);
    css(group).relax_domain_level = level;
    return {};
  }
  uint64_t value = 0;
  if (int err = parse_unsigned(text, &value)) {
    for (const std::string& known :
         {std::string("cgroup.clone_children"), std::string("cpuset.memory_pressure_enabled")}) {
      if (file == known) return failure(err, Why::kParse);
    }
    for (const FlagFile& entry : kFlagFiles) {
      if (file == entry.name) return failure(err, Why::kParse);
    }
    return failure(EINVAL, Why::kReadOnly);
  }
  if (file == "cgroup.clone_children") {
    at(group).clone_children = value != 0;
    return {};
  }
  if (file == "cpuset.memory_pressure_enabled" && group == 0) {
    at(0).memory_pressure_enabled = value != 0;
    return {};
  }
  for (const FlagFile& entry : kFlagFiles) {
    if (file != entry.name) continue;
    // The kernel hands the 64-bit number on as an int.
    bool on = is(Broken::kFlagKeepsWideValue) ? value != 0 : static_cast<uint32_t>(value) != 0;
    Cpuset trial = css(group);
    trial.*entry.flag = on;
    if (Outcome checked = validate(group, trial); !checked.ok()) return checked;
    css(group).*entry.flag = on;
    return {};
  }
  return failure(EINVAL, Why::kReadOnly);
}

Outcome State::write_plain(std::string_view file, std::string_view text) {
  uint64_t value = 0;
  if (text.empty()) return {};
  if (file == "cpuset.memory_pressure") return failure(EINVAL, Why::kReadOnly);
  if (int err = parse_unsigned(text, &value)) return failure(err, Why::kParse);
  return {};
}

std::optional<std::string> State::read_v1(int group, std::string_view file) const {
  const Cpuset& own = css(group);
  for (const FlagFile& entry : kFlagFiles) {
    if (file == entry.name) return own.*entry.flag ? "1\n" : "0\n";
  }
  if (file == "cpuset.cpus") return list_line(own.cpus);
  if (file == "cpuset.mems") return list_line(own.mems);
  if (file == "cpuset.effective_cpus") return list_line(own.effective_cpus);
  if (file == "cpuset.effective_mems") return list_line(own.effective_mems);
  if (file == "cpuset.sched_relax_domain_level")
    return std::to_string(own.relax_domain_level) + "\n";
  if (file == "cgroup.clone_children") return at(group).clone_children ? "1\n" : "0\n";
  if (file == "cpuset.memory_pressure_enabled" && group == 0) {
    return at(0).memory_pressure_enabled ? "1\n" : "0\n";
  }
  if (file == "tasks" || file == "cgroup.procs") {
    std::set<int> ids;
    if (auto set = css_sets.find(group); set != css_sets.end()) {
      for (int tid : set->second.tasks) ids.insert(file == "tasks" ? tid : tasks.at(tid).tgid);
    }
    std::string text;
    for (int id : ids) text += std::to_string(id) + "\n";
    return text;
  }
  return std::nullopt;
}

// mkdir under a parent with clone_children: the parent's cpus and mems, unless a sibling is
// exclusive.
void State::clone_parent(int group) {
  const Group& above = at(at(group).parent);
  if (!at(group).clone_children) return;
  for (int sibling : children_with_css(above.id)) {
    if ((css(sibling).cpu_exclusive || css(sibling).mem_exclusive) &&
        !is(Broken::kCloneIgnoresExclusive))
      return;
  }
  Cpuset& own = css(group);
  own.mems = own.effective_mems = above.cpuset->mems;
  own.cpus = own.effective_cpus = above.cpuset->cpus;
}

// After a CPU came or went: what is gone leaves the configured set, and tasks of a cpuset that has
// nothing left go to the nearest ancestor with CPUs and memory. The kernel moves them in the
// background; here it is done at once.
void State::hotplug_v1(int group, Reason* reason) {
  Cpuset& own = css(group);
  const Cpuset& above = css(at(group).parent);
  Mask next = own.cpus & above.effective_cpus;
  if (is(Broken::kOnlineRestoresV1) && !own.cpus.empty())
    next = (own.cpus | Mask{machine.possible_cpus.next(0)}) & above.effective_cpus;
  Mask next_mems = own.mems & above.effective_mems;
  bool cpus_updated = next != own.effective_cpus;
  bool mems_updated = next_mems != own.effective_mems;
  own.cpus = own.effective_cpus = next;
  own.mems = own.effective_mems = next_mems;
  if (cpus_updated && !next.empty()) update_task_cpus(group);
  if (mems_updated && !next_mems.empty()) update_task_mems(group);
  if ((!next.empty() && !next_mems.empty()) || is(Broken::kOfflineKeepsTasks) || !has_tasks(group))
    return;

  int target = at(group).parent;
  while (css(target).cpus.empty() || css(target).mems.empty()) target = at(target).parent;
  if (is(Broken::kTransferToRoot)) target = 0;
  for (int tid : std::vector<int>(css_sets.at(group).tasks)) {
    move_task(&tasks.at(tid), target);
    cpuset_attach(target, group, {tid});
  }
  *reason = {Why::kTransferred, at(target).path, {}, {}, 0, at(group).path};
}

// generate_sched_domains() of v1: with the root balanced there is one domain; else the balanced
// cpusets, joined where they overlap. A balanced cpuset hides those below it.
std::vector<Mask> Cpusets::sched_domains() const {
  const State& state = *state_;
  std::vector<Mask> domains;
  if (state.css(0).sched_load_balance) return {state.css(0).effective_cpus};
  std::vector<int> pending = state.children_with_css(0);
  while (!pending.empty()) {
    int group = pending.back();
    pending.pop_back();
    const Cpuset& own = state.css(group);
    if (own.cpus.empty()) continue;
    if (!own.sched_load_balance) {
      for (int child : state.children_with_css(group)) pending.push_back(child);
      continue;
    }
    domains.push_back(own.effective_cpus);
  }
  for (size_t i = 0; i < domains.size(); ++i) {
    for (size_t j = i + 1; j < domains.size();) {
      if (domains[i].intersects(domains[j])) {
        domains[i] = domains[i] | domains[j];
        domains.erase(domains.begin() + static_cast<std::ptrdiff_t>(j));
        j = i + 1;
      } else {
        ++j;
      }
    }
  }
  std::sort(domains.begin(), domains.end(),
            [](const Mask& a, const Mask& b) { return a.first() < b.first(); });
  return domains;
}

}  // namespace allot::model
