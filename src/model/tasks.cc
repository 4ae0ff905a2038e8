// Tasks: attach, fork, exit, sched_setaffinity, and what the scheduler does to a mask at a wake-up.
//
// Source of the rules: kernel/cgroup/cpuset.c (cpuset_can_attach, cpuset_attach, cpuset_fork,
// cpuset_cpus_allowed) and kernel/sched/core.c (__set_cpus_allowed_ptr, sched_setaffinity,
// select_fallback_rq) of 6.1 and 6.12. Two things changed in between: since 6.2 the mask a user
// asked for is remembered (user_cpus_ptr) and applied to every later change; and a task in the root
// cpuset may keep offline CPUs in its mask.
#include <algorithm>
#include <cerrno>
#include <limits>

#include "model/cpuset_state.h"

namespace allot::model {

// guarantee_online_cpus(): the cpuset's effective CPUs that are online, else those of the nearest
// ancestor that has some.
Mask State::guarantee_cpus(const Task& task) const {
  int group = effective_css(task.group);
  while (group != 0 && !css(group).effective_cpus.intersects(active())) group = at(group).parent;
  Mask usable = css(group).effective_cpus & active();
  return usable.empty() ? active() : usable;
}

Mask State::allowed_for(const Task& task) const {
  if (is(Broken::kAffinityUnclipped)) return machine.possible_cpus;
  bool root = effective_css(task.group) == 0;
  bool keeps_offline = era >= Era::k6_12;
  if (is(Broken::kAffinityOfflineOk)) keeps_offline = !keeps_offline;
  if (!root || !keeps_offline) return guarantee_cpus(task);
  Mask mask = machine.possible_cpus - subpartitions;
  return mask.intersects(active()) ? mask : machine.possible_cpus;
}

bool State::set_mask(Task* task, const Mask& mask) const {
  Mask next = mask;
  bool remembers = user_masks() != is(Broken::kUserMaskKept);
  if (remembers && task->user && mask.intersects(*task->user)) next = mask & *task->user;
  if (next == task->cpus) return true;
  if (!next.intersects(active())) return false;
  task->cpus = next;
  return true;
}

Outcome State::set_affinity(int tid, const Mask& mask, const Caller& caller) {
  auto found = tasks.find(tid);
  if (found == tasks.end()) {
    Outcome none = failure(ESRCH, Why::kNoTask);
    none.reason.tid = tid;
    return none;
  }
  Task& task = found->second;
  if (task.no_setaffinity) return failure(EINVAL, Why::kBoundTask);
  if (caller.euid != task.uid && !caller.cap_sys_nice) return failure(EPERM, Why::kNotOwner);
  Mask allowed = allowed_for(task);
  Mask next = mask & allowed;
  if (next != task.cpus) {
    if (!next.intersects(active()) && !is(Broken::kAffinityEmptyOk)) {
      Outcome none = failure(EINVAL, Why::kNoCpuLeft, at(effective_css(task.group)).path, allowed);
      none.reason.tid = tid;
      return none;
    }
    task.cpus = next;
  }
  if (user_masks() || is(Broken::kUserMaskKept)) task.user = mask;
  Outcome done;
  if (Mask dropped = (mask & machine.possible_cpus) - next; !dropped.empty()) {
    done.reason = {Why::kClipped, at(effective_css(task.group)).path, dropped, {}, tid, {}};
  }
  return done;
}

// select_fallback_rq(): a task that is to run and has no active CPU in its mask gets, on v2, the
// CPUs its cpuset was configured with, and if none of these is active all possible ones. What the
// user asked for is forgotten.
void State::wake(Task* task) {
  if (task->cpus.intersects(active()) || is(Broken::kFallbackKeepsMask)) return;
  const Cpuset& own = css(effective_css(task->group));
  Mask wanted = is(Broken::kFallbackToEffective) ? own.effective_cpus : own.cpus;
  bool configured = v2_mode() || is(Broken::kFallbackToEffective);
  task->cpus = configured && wanted.intersects(active()) ? wanted : machine.possible_cpus;
  task->user.reset();
}

Outcome State::fork(int tid, int child_tid, bool thread) {
  auto found = tasks.find(tid);
  if (found == tasks.end()) return failure(ESRCH, Why::kNoTask);
  if (tasks.count(child_tid) != 0) return failure(EEXIST, Why::kNone);
  wake(&found->second);
  Task child = found->second;
  child.tid = child_tid;
  child.tgid = thread ? found->second.tgid : child_tid;
  child.born = next_birth++;
  child.no_setaffinity = false;
  int group = is(Broken::kForkRootGroup) ? 0 : child.group;
  if (is(Broken::kForkFullMask)) child.cpus = css(effective_css(child.group)).effective_cpus;
  child.group = -1;
  Task& placed = tasks.emplace(child_tid, child).first->second;
  move_task(&placed, group);
  // cpuset_fork(): copies the parent's mask once more, now that the child is on the group's list.
  if (effective_css(group) != 0) set_mask(&placed, placed.cpus);
  wake(&placed);
  return {};
}

Outcome State::exit(int tid) {
  auto found = tasks.find(tid);
  if (found == tasks.end()) return failure(ESRCH, Why::kNoTask);
  std::vector<int> gone{tid};
  if (found->second.tgid == tid && !is(Broken::kExitKeepsThreads)) gone = threads_of(tid);
  for (int each : gone) {
    move_task(&tasks.at(each), -1);
    tasks.erase(each);
  }
  return {};
}

Outcome State::write_procs(int group, std::string_view text, bool whole, const Caller& caller) {
  int64_t number = 0;
  if (parse_signed(strip(text), &number) != 0 || number < 0 ||
      number > std::numeric_limits<int32_t>::max()) {
    return failure(EINVAL, Why::kParse);
  }
  int tid = number == 0 ? caller.tid : static_cast<int>(number);
  return attach(group, tid, whole, caller);
}

Outcome State::attach(int group, int tid, bool whole, const Caller& caller) {
  auto found = tasks.find(tid);
  if (found == tasks.end()) {
    Outcome none = failure(ESRCH, Why::kNoTask);
    none.reason.tid = tid;
    return none;
  }
  Task& first =
      whole && tasks.count(found->second.tgid) ? tasks.at(found->second.tgid) : found->second;
  if (first.no_setaffinity) return failure(EINVAL, Why::kBoundTask);
  if (v2()) {
    if (Outcome vetted = vet_target(group); !vetted.ok()) return vetted;
    if (!whole && at(first.group).domain != at(group).domain && !is(Broken::kThreadAcrossDomains)) {
      return failure(EOPNOTSUPP, Why::kInvalidDomain, at(at(first.group).domain).path);
    }
  } else if (caller.euid != 0 && caller.euid != first.uid) {
    return failure(EACCES, Why::kNotOwner);
  }

  // Threads that are in the target already are not migrated, and nothing is checked for them.
  std::vector<int> moving;
  for (int each : whole && !is(Broken::kAttachOneThread) ? threads_of(first.tgid)
                                                         : std::vector<int>{first.tid}) {
    if (tasks.at(each).group != group || is(Broken::kAttachSameResets)) moving.push_back(each);
  }
  if (moving.empty()) return {};
  int target = effective_css(group);
  int old_css = effective_css(tasks.at(moving.front()).group);
  bool changes = is(Broken::kMoveSameCssResets) || is(Broken::kAttachSameResets);
  for (int each : moving) changes = changes || effective_css(tasks.at(each).group) != target;
  if (changes) {
    if (Outcome allowed = can_attach(target, moving); !allowed.ok()) return allowed;
  }
  for (int each : moving) move_task(&tasks.at(each), group);
  if (changes) cpuset_attach(target, old_css, moving);
  return {};
}

Outcome State::can_attach(int css_group, const std::vector<int>& tids) const {
  const Cpuset& target = css(css_group);
  bool no_cpus = target.effective_cpus.empty() && !is(Broken::kAttachEmptyCpus);
  bool no_mems = !v2_mode() && target.mems.empty() && !is(Broken::kAttachEmptyMems);
  if (no_cpus || no_mems) {
    Outcome empty = failure(ENOSPC, Why::kEmptyTarget, at(css_group).path);
    empty.reason.detail = no_cpus && no_mems ? "cpus and mems" : no_cpus ? "cpus" : "mems";
    return empty;
  }
  for (int tid : tids) {
    if (tasks.at(tid).no_setaffinity) return failure(EINVAL, Why::kBoundTask);
  }
  return {};
}

// Tasks are in their new group already. Since 6.12 on v2 a move between equal effective sets
// changes no mask; which sets are compared is decided by the first task alone.
void State::cpuset_attach(int css_group, int old_css, const std::vector<int>& tids) {
  const Cpuset& target = css(css_group);
  if (v2() && era >= Era::k6_12 && groups.count(old_css) && groups.at(old_css).cpuset) {
    const Cpuset& old = css(old_css);
    bool same_mems =
        target.effective_mems == old.effective_mems || is(Broken::kAttachComparesCpusOnly);
    if (target.effective_cpus == old.effective_cpus && same_mems) return;
  }
  Mask mems = guarantee_mems(css_group);
  for (int tid : tids) cpuset_attach_task(css_group, &tasks.at(tid), mems);
}

void State::cpuset_attach_task(int css_group, Task* task, const Mask& mems) {
  Mask mask = guarantee_cpus(*task);
  if (css_group == 0) {
    mask = machine.possible_cpus;
    if (era >= Era::k6_12) mask = mask - subpartitions;
    if (is(Broken::kAttachRootActiveOnly)) mask = active();
  }
  set_mask(task, mask);
  if (!is(Broken::kAttachKeepsMems)) task->mems = mems;
}

Outcome State::plug(int cpu, bool up) {
  if (!machine.possible_cpus.test(cpu)) return failure(ENOENT, Why::kNotInTop, "/", Mask{cpu});
  if (active().test(cpu) == up) return {};
  if (!up && active().count() == 1) return failure(EBUSY, Why::kNoCpuLeft, "/", active());
  if (!up && v2() && era >= Era::k6_12 && deadline_load(cpu)) {
    for (const Domain& domain : domains) {
      if (domain.cpus.test(cpu) && (domain.cpus & active()).count() == 1)
        return failure(EBUSY, Why::kLastOfDomain, "/", Mask{cpu});
    }
  }
  if (up) {
    machine.online_cpus.set(cpu);
  } else {
    machine.online_cpus.clear(cpu);
  }
  Outcome done;
  Cpuset& top = css(0);
  if (!v2_mode()) top.cpus = active();
  bool below = true;
  if (v2()) {
    below = era < Era::k6_12 ? hotplug_root_6_1() : hotplug_root_6_12();
    if (up && is(Broken::kOnlineNotSeen)) top.effective_cpus.clear(cpu);
  } else if (!(v2_mode() && up && is(Broken::kOnlineNotSeen))) {
    top.effective_cpus = active();
  }
  if (is(Broken::kOfflineTouchesRootTasks)) update_task_cpus(0);
  rebuild = rebuild || below;
  if (!below) return done;
  for (int group : css_preorder(0)) {
    if (group == 0) continue;
    if (v2_mode()) {
      hotplug_v2(group);
    } else {
      hotplug_v1(group, &done.reason);
    }
  }
  rebuild_domains();
  return done;
}

}  // namespace allot::model
