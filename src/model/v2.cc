// Rules of the v2 hierarchy alone: controllers, threaded groups, who may enter where, and hotplug
// that leaves the configured sets as they are.
//
// Source of the rules: kernel/cgroup/cgroup.c of 6.1 and 6.12 (cgroup_subtree_control_write,
// cgroup_enable_threaded, cgroup_migrate_vet_dst, cgroup_update_dfl_csses) and cpuset.c
// (hotplug_update_tasks, cpuset_css_online).
#include <algorithm>
#include <cerrno>

#include "model/controllers.h"
#include "model/cpuset_state.h"

namespace allot::model {
namespace {

std::string controller_names(unsigned bits) {
  std::string text;
  for (size_t i = 0; i < kControllers.size(); ++i) {
    if ((bits & (1u << i)) == 0) continue;
    if (!text.empty()) text += ' ';
    text += kControllers[i].name;
  }
  return text.empty() ? text : text + "\n";
}

}  // namespace

// What this group's own files offer: what the parent hands down.
unsigned State::controllers(int group) const {
  if (group == 0) return kAllControllers;
  unsigned bits = at(at(group).parent).subtree_control;
  return threaded(group) ? bits & ~domain_controllers() : bits;
}

bool State::thread_root(int group) const {
  if (threaded(group)) return false;
  for (int child : at(group).children) {
    if (threaded(child)) return true;
  }
  return has_tasks(group) && (at(group).subtree_control & ~domain_controllers()) != 0;
}

bool State::valid_domain(int group) const {
  if (threaded(group)) return false;
  for (int up = at(group).parent; up >= 0; up = at(up).parent) {
    if (up != 0 && thread_root(up)) return false;
    if (threaded(up)) return false;
  }
  return true;
}

bool State::can_be_thread_root(int group) const {
  if (group == 0) return true;
  if (threaded(group)) return false;
  for (int child : at(group).children) {
    if (!threaded(child) && populated(child)) return false;
  }
  return (at(group).subtree_control & domain_controllers()) == 0;
}

// cgroup_migrate_vet_dst(): may the group take tasks at all?
Outcome State::vet_target(int group) const {
  if (!valid_domain(at(group).domain) && !is(Broken::kInvalidDomainAttach)) {
    return failure(EOPNOTSUPP, Why::kInvalidDomain, at(group).path);
  }
  if (can_be_thread_root(group) || threaded(group)) return {};
  if (at(group).subtree_control != 0 && !is(Broken::kInternalProcessAllowed)) {
    return failure(EBUSY, Why::kInternalTasks, at(group).path);
  }
  return {};
}

Outcome State::write_subtree_control(int group, std::string_view text) {
  unsigned enable = 0;
  unsigned disable = 0;
  text = strip(text);
  while (!text.empty()) {
    std::string_view token = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(token.size() + 1, text.size()));
    if (token.empty()) continue;
    unsigned bit = 0;
    for (size_t i = 0; i < kControllers.size(); ++i) {
      if (token.substr(1) == kControllers[i].name) bit = 1u << i;
    }
    if (bit == 0 || (token[0] != '+' && token[0] != '-')) return failure(EINVAL, Why::kParse);
    (token[0] == '+' ? enable : disable) |= bit;
    (token[0] == '+' ? disable : enable) &= ~bit;
  }
  Group& own = at(group);
  for (unsigned bit = 1; bit <= kAllControllers; bit <<= 1) {
    if ((enable & bit) != 0) {
      if ((own.subtree_control & bit) != 0) {
        enable &= ~bit;
      } else if ((controllers(group) & bit) == 0 && !is(Broken::kEnableUnavailable)) {
        return failure(ENOENT, Why::kNotAvailable, group == 0 ? "/" : at(own.parent).path);
      }
    } else if ((disable & bit) != 0) {
      if ((own.subtree_control & bit) == 0) {
        disable &= ~bit;
        continue;
      }
      for (int child : own.children) {
        if ((at(child).subtree_control & bit) != 0 && !is(Broken::kDisableUnderUser)) {
          return failure(EBUSY, Why::kChildUsesControl, at(child).path);
        }
      }
    }
  }
  if (enable == 0 && disable == 0) return {};
  if (enable != 0) {
    if (!valid_domain(own.domain)) return failure(EOPNOTSUPP, Why::kInvalidDomain, own.path);
    if (group != 0) {
      bool wants_domain = (enable & domain_controllers()) != 0;
      if (wants_domain && (thread_root(group) || threaded(group))) {
        return failure(EOPNOTSUPP, Why::kInvalidDomain, own.path);
      }
      bool in_threads = !wants_domain && (can_be_thread_root(group) || threaded(group));
      if (!in_threads && has_tasks(group)) return failure(EBUSY, Why::kInternalTasks, own.path);
    }
  }
  if (((enable | disable) & kCpusetBit) != 0 && css(effective_css(group)).effective_cpus.empty()) {
    for (int child : own.children) {
      if (populated(child)) return failure(ENOSPC, Why::kEmptyTarget, own.path);
    }
  }
  own.subtree_control = (own.subtree_control | enable) & ~disable;
  if (((enable | disable) & kCpusetBit) != 0) switch_cpusets(group, (enable & kCpusetBit) != 0);
  return {};
}

// The children of a group get cpusets of their own, or lose them; the tasks below are attached to
// what rules them now. The kernel makes one attach of it, in which the first task stands for all.
void State::switch_cpusets(int group, bool on) {
  std::vector<int> moving;
  for (int child : at(group).children) {
    for (int below : preorder(child)) {
      auto set = css_sets.find(below);
      if (set == css_sets.end()) continue;
      moving.insert(moving.end(), set->second.tasks.begin(), set->second.tasks.end());
    }
  }
  int old_css = moving.empty() ? 0 : effective_css(tasks.at(moving.front()).group);
  Cpuset old_state = css(old_css);
  std::map<int, Cpuset> going;
  for (int child : at(group).children) {
    if (on) {
      create_css(child);
    } else {
      going.emplace(child, css(child));
      at(child).cpuset.reset();
    }
  }
  relink_css_sets();
  attach_switched(old_state, moving, on);
  // Partitions among them end when their tasks have gone already, one after the other.
  for (const auto& [child, gone] : going) at(child).cpuset = gone;
  for (const auto& [child, gone] : going) {
    if (css(child).partition > kMember) set_partition(child, kMember);
    at(child).cpuset.reset();
  }
}

void State::attach_switched(const Cpuset& old_state, const std::vector<int>& moving, bool on) {
  if (moving.empty()) return;
  if (is(on ? Broken::kEnableKeepsMasks : Broken::kDisableKeepsMasks)) return;
  int target = effective_css(tasks.at(moving.front()).group);
  bool same = css(target).effective_cpus == old_state.effective_cpus &&
              css(target).effective_mems == old_state.effective_mems;
  if (era >= Era::k6_12 && same) return;
  Mask mems = guarantee_mems(target);
  for (int tid : moving) cpuset_attach_task(target, &tasks.at(tid), mems);
}

Outcome State::write_type(int group, std::string_view text) {
  if (strip(text) != "threaded") return failure(EINVAL, Why::kParse);
  if (threaded(group)) return {};
  int domain = at(at(group).parent).domain;
  bool busy = populated(group) && !is(Broken::kThreadedWhilePopulated);
  if (busy || (at(group).subtree_control & domain_controllers()) != 0) {
    return failure(EOPNOTSUPP, Why::kInvalidDomain, at(group).path);
  }
  if (!valid_domain(domain) || !can_be_thread_root(domain)) {
    return failure(EOPNOTSUPP, Why::kInvalidDomain, at(domain).path);
  }
  for (int below : preorder(group)) {
    if (below == group || threaded(below)) at(below).domain = domain;
  }
  return {};
}

Outcome State::write_v2(int group, std::string_view file, std::string_view text,
                        const Caller& caller) {
  if (file == "cgroup.procs") return write_procs(group, text, true, caller);
  if (file == "cgroup.threads") return write_procs(group, text, false, caller);
  if (file == "cgroup.subtree_control") return write_subtree_control(group, text);
  if (file == "cgroup.type") {
    return group == 0 ? failure(ENOENT, Why::kNoFile) : write_type(group, text);
  }
  bool list = file == "cpuset.cpus" || file == "cpuset.mems" || file == "cpuset.cpus.exclusive";
  if (!list && file != "cpuset.cpus.partition") return failure(EINVAL, Why::kReadOnly);
  if (group == 0 || !at(group).cpuset) return failure(ENOENT, Why::kNoFile, at(group).path);
  if (file == "cpuset.cpus.partition") return write_partition(group, strip(text));
  size_t limit = 100 + 6 * static_cast<size_t>(file == "cpuset.mems" ? machine.max_nodes
                                                                     : machine.config_nr_cpus);
  if (text.size() > limit) return failure(E2BIG, Why::kTooLong);
  if (file == "cpuset.cpus.exclusive") return write_exclusive(group, strip(text));
  return file == "cpuset.cpus" ? write_cpus(group, strip(text)) : write_mems(group, strip(text));
}

std::optional<std::string> State::read_v2(int group, std::string_view file) const {
  if (file == "cgroup.controllers") return controller_names(controllers(group));
  if (file == "cgroup.subtree_control") return controller_names(at(group).subtree_control);
  if (file == "cgroup.type" && group != 0) {
    if (threaded(group)) return "threaded\n";
    if (!valid_domain(group)) return "domain invalid\n";
    return thread_root(group) ? "domain threaded\n" : "domain\n";
  }
  if (file == "cgroup.threads" || (file == "cgroup.procs" && !threaded(group))) {
    std::vector<int> ids;
    for (const auto& [tid, task] : tasks) {
      bool thread = file == "cgroup.threads" && task.group == group;
      bool process =
          file == "cgroup.procs" && task.tid == task.tgid && at(task.group).domain == group;
      if (thread || process) ids.push_back(tid);
    }
    std::string text;
    for (int id : ids) text += std::to_string(id) + "\n";
    return text;
  }
  if (!at(group).cpuset) return std::nullopt;
  const Cpuset& own = css(group);
  if (file == "cpuset.cpus.effective") return list_line(own.effective_cpus);
  if (file == "cpuset.mems.effective") return list_line(own.effective_mems);
  if (group == 0 && file == "cpuset.cpus.isolated") return list_line(isolated);
  if (group == 0) return std::nullopt;
  if (file == "cpuset.cpus.exclusive") return list_line(own.exclusive_cpus);
  if (file == "cpuset.cpus.exclusive.effective") return list_line(own.effective_xcpus);
  if (file == "cpuset.cpus") return list_line(own.cpus);
  if (file == "cpuset.mems") return list_line(own.mems);
  if (file == "cpuset.cpus.partition") return partition_text(group);
  return std::nullopt;
}

// A group whose own result is empty takes the parent's set and has its tasks' masks set anew at
// every hotplug event, even when the set stays the same: the kernel compares before it falls back.
void State::hotplug_v2(int group) {
  if (!v2()) {
    apply_hotplug(group, css(group).cpus & css(at(group).parent).effective_cpus);
  } else if (era < Era::k6_12) {
    hotplug_6_1(group);
  } else {
    hotplug_6_12(group);
  }
}

void State::apply_hotplug(int group, Mask next) {
  Cpuset& own = css(group);
  const Cpuset& above = css(at(group).parent);
  Mask next_mems = own.mems & above.effective_mems;
  bool cpus_updated = next != own.effective_cpus;
  bool mems_updated = next_mems != own.effective_mems;
  if (next.empty() && own.partition <= kMember) {
    next = above.effective_cpus;
    if (is(Broken::kHotplugKeepsInheritor)) cpus_updated = false;
  }
  if (next_mems.empty()) next_mems = above.effective_mems;
  own.effective_cpus = next;
  own.effective_mems = next_mems;
  if (is(Broken::kOfflineDropsConfigured)) own.cpus = own.cpus & next;
  if (cpus_updated) update_task_cpus(group);
  if (mems_updated) update_task_mems(group);
}

}  // namespace allot::model
