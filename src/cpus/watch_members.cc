// Who belongs to a slice and where it is now (watch.h): processes and threads that were moved out,
// a group that was removed, masks that were narrowed.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "cpus/attach.h"
#include "cpus/watch.h"

namespace allot::cpus {
namespace {

std::set<pid_t> id_set(const FsRoot& fs, const std::string& file) {
  std::vector<pid_t> ids = ids_in(fs, file);
  return {ids.begin(), ids.end()};
}

}  // namespace

void Watcher::move_back(const Lease& lease, pid_t pid, pid_t tid, const std::string& from,
                        double now_s, std::vector<WatchAction>* actions) {
  std::string who =
      tid == 0 ? fmt::format("process {}", pid) : fmt::format("thread {} of process {}", tid, pid);
  std::string key = "the group of " + who;
  std::string file = tid == 0 ? procs_file(lease.group) : lease.group + "/tasks";
  WatchAction action{
      WatchAction::Kind::kMoveBack,      lease.name, fmt::format("move {} to {}", who, lease.group),
      fmt::format("it was in {}", from), false,      ""};
  if (options_.dry_run) {
    say_once(lease, key, std::move(action), actions);
    return;
  }
  if (!may_put_back(lease, key, now_s, actions)) return;
  int error = enter_group(file.c_str(), tid == 0 ? pid : tid);
  if (error == ESRCH) return;
  if (error == 0) {
    note_put_back(lease, key, now_s);
    act(std::move(action), 0, actions);
    return;
  }
  // What could not be done is no quarrel: it is tried again, and said once.
  action.error = std::strerror(error);
  say_once(lease, key, std::move(action), actions);
}

// Everybody who was ever seen in the group, and the program's descendants, should be there now.
void Watcher::check_member(const Lease& lease, double now_s, std::vector<WatchAction>* actions) {
  // A group without CPUs takes nobody in, so there is nothing to try until they are back.
  if ((lease.cpus & online_).empty()) return;
  Seen& seen = seen_[lease.group];
  std::set<pid_t> inside = id_set(fs_, procs_file(lease.group));
  for (pid_t pid : inside) {
    if (std::optional<ProcessId> id = identify(fs_, pid)) seen.processes[pid] = id->start_ticks;
  }
  std::map<pid_t, uint64_t> expected = seen.processes;
  if (lease.member.pid != 0 && alive(fs_, lease.member)) {
    expected[lease.member.pid] = lease.member.start_ticks;
    for (pid_t pid : descendants_of(fs_, lease.member.pid)) {
      if (std::optional<ProcessId> id = identify(fs_, pid)) expected[pid] = id->start_ticks;
    }
  }
  for (const auto& [pid, start] : expected) {
    if (inside.count(pid) != 0) continue;
    std::optional<std::string> now;
    if (alive(fs_, {pid, start})) now = group_of(fs_, hierarchy_, pid);
    if (!now) {
      seen.processes.erase(pid);
      continue;
    }
    bool below = now->starts_with(lease.group + "/");
    bool of_other = std::find(groups_.begin(), groups_.end(), *now) != groups_.end();
    if (*now != lease.group && !below && !of_other) move_back(lease, pid, 0, *now, now_s, actions);
  }
}

// Version 1 lets anybody move a single thread out of a group.
void Watcher::check_threads(const Lease& lease, double now_s, std::vector<WatchAction>* actions) {
  if (hierarchy_.kind != CpusetKind::kV1 || (lease.cpus & online_).empty()) return;
  std::set<pid_t> processes = id_set(fs_, procs_file(lease.group));
  std::set<pid_t> threads = id_set(fs_, lease.group + "/tasks");
  for (pid_t pid : processes) {
    for (pid_t tid : threads_of(fs_, pid)) {
      if (threads.count(tid) != 0) continue;
      std::optional<ThreadStat> stat = thread_stat(fs_, pid, tid);
      if (!stat || stat->state == 'Z' || stat->state == 'X') continue;
      std::string now = group_of(fs_, hierarchy_, tid).value_or("");
      if (now.empty() || now == lease.group || now.starts_with(lease.group + "/")) continue;
      move_back(lease, pid, tid, now, now_s, actions);
    }
  }
}

void Watcher::check_narrowed(const Lease& lease, std::vector<WatchAction>* actions) {
  Seen& seen = seen_[lease.group];
  // The group's own CPUs: where somebody narrowed these, that is what is said.
  Expected<GroupState> state = read_group(fs_, hierarchy_, lease.group);
  if (!state) return;
  CpuSet whole = state->effective_cpus & online_;
  std::map<pid_t, CpuSet> masks;
  for (pid_t pid : ids_in(fs_, procs_file(lease.group))) {
    CpuSet mask;
    if (get_affinity(pid, &mask) != 0 || mask.empty() || mask == whole) continue;
    if (!whole.contains(mask)) continue;
    masks[pid] = mask;
    auto before = seen.masks.find(pid);
    if (!seen.looked || (before != seen.masks.end() && before->second == mask)) continue;
    say_once(
        lease, fmt::format("mask of {}", pid),
        {WatchAction::Kind::kReport, lease.name,
         fmt::format("process {} is on CPUs {} of {} only", pid, to_list(mask), to_list(whole)),
         "its mask was set, by itself or by another program", false, ""},
        actions);
  }
  seen.masks = std::move(masks);
  seen.looked = true;
}

// The group was removed, which needs it empty: its processes are elsewhere, and come back with it.
bool Watcher::make_again(const Lease& lease, double now_s, std::vector<WatchAction>* actions) {
  if (!may_put_back(lease, lease.group, now_s, actions)) return false;
  GroupSpec spec;
  spec.path = lease.group;
  spec.cpus = lease.cpus & online_;
  spec.mems = lease.mems;
  spec.exclusive = lease.exclusive;
  WatchAction action{WatchAction::Kind::kRestore,  lease.name, "make " + lease.group + " again",
                     "another program removed it", false,      ""};
  if (spec.cpus.empty()) return false;
  if (spec.mems.empty() && hierarchy_.kind == CpusetKind::kV1) {
    Expected<GroupState> parent =
        read_group(fs_, hierarchy_, lease.group.substr(0, lease.group.rfind('/')));
    if (parent) spec.mems = parent->effective_mems;
  }
  if (options_.dry_run) {
    say_once(lease, "group", std::move(action), actions);
    return false;
  }
  Expected<GroupState> made = make_group(fs_, hierarchy_, spec, nullptr);
  if (!made) {
    action.error = made.error().text;
    say_once(lease, "group", std::move(action), actions);
    return false;
  }
  note_put_back(lease, lease.group, now_s);
  followed_.erase(hierarchy_.file(lease.group, "cpus"));
  act(std::move(action), 0, actions);
  return true;
}

}  // namespace allot::cpus
