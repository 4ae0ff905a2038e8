// What became of an attach, and who belongs to a process: see attach.h. All of it is read from the
// kernel; nothing here changes anything.
#include <fmt/format.h>

#include <charconv>
#include <map>

#include "cpus/attach.h"

namespace allot::cpus {

std::vector<pid_t> descendants_of(const FsRoot& fs, pid_t pid) {
  std::multimap<pid_t, pid_t> children;
  for (const std::string& name : fs.list("/proc")) {
    pid_t child = 0;
    auto [end, ec] = std::from_chars(name.data(), name.data() + name.size(), child);
    if (ec != std::errc{} || end != name.data() + name.size()) continue;
    if (std::optional<ThreadStat> stat = thread_stat(fs, child, child))
      children.emplace(stat->parent, child);
  }
  std::vector<pid_t> out{pid};
  for (size_t i = 0; i < out.size(); ++i) {
    auto [from, to] = children.equal_range(out[i]);
    for (auto it = from; it != to; ++it) out.push_back(it->second);
  }
  out.erase(out.begin());
  return out;
}

CpuSet cpus_in_force(const FsRoot& fs, pid_t pid) {
  CpuSet all;
  for (pid_t tid : threads_of(fs, pid)) {
    CpuSet mask;
    std::optional<ThreadStat> stat = thread_stat(fs, pid, tid);
    if (stat && stat->state != 'Z' && get_affinity(tid, &mask) == 0) all |= mask;
  }
  return all;
}

std::vector<pid_t> bound_processes(const FsRoot& fs, const Lease& lease) {
  std::vector<pid_t> found;
  if (lease.member.pid <= 0 || !alive(fs, lease.member)) return found;
  found.push_back(lease.member.pid);
  for (pid_t pid : descendants_of(fs, lease.member.pid)) {
    if (threads_outside(pid, lease.cpus) == 0) found.push_back(pid);
  }
  return found;
}

void read_back(AttachReport* report, pid_t pid) {
  FsRoot fs;
  Placement& p = report->placement;
  if (p.planned == Level::kEnforced) report->threads = static_cast<int>(threads_of(fs, pid).size());
  report->granted = cpus_in_force(fs, pid);
  int outside = threads_outside(pid, p.cpus);
  report->level = outside == 0 ? p.planned : Level::kNone;
  report->reason = p.reason;
  if (outside != 0) {
    report->reason = fmt::format("{} threads set their own mask to other CPUs", outside);
  } else if (report->granted != p.cpus && p.planned == Level::kEnforced) {
    p.notes.push_back(fmt::format("its threads' own masks allow CPUs {} of {} only",
                                  to_list(report->granted), to_list(p.cpus)));
  } else if (report->granted != p.cpus && p.planned != Level::kEnforced) {
    Hierarchy h = find_hierarchy(fs);
    std::string group = group_of(fs, h, pid).value_or("");
    Expected<GroupState> state = read_group(fs, h, group);
    if (state && !state->effective_cpus.contains(p.cpus))
      report->reason = fmt::format("asked for {}, and its cpuset {} allows CPUs {} only",
                                   to_list(p.cpus), group, to_list(state->effective_cpus));
  }
}

}  // namespace allot::cpus
