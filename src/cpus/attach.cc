// attach: choose, fence, move, verify (attach.h). The stop protocol is in bind_stopped.cc.
#include "cpus/attach.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <map>
#include <set>

namespace allot::cpus {
namespace {

// What has been made for one attach; undone unless kept.
struct Made {
  const Hierarchy& h;
  Placement* p;
  std::string came_from;  // group of the process before
  std::vector<pid_t> moved;
  bool kept = false;

  ~Made() {
    if (kept) return;
    for (pid_t pid : moved) enter_group(procs_file(came_from).c_str(), pid);
    if (!p->group.empty()) remove_group(h, p->group, 200);
    if (p->lease_fd < 0) return;
    if (Expected<LockedLedger> ledger = LockedLedger::open(p->folder)) ledger->remove(p->lease);
    close(p->lease_fd);
    p->lease_fd = -1;
  }
};

// Why the process should not be moved out of the group it is in; empty when it may.
std::string foreign_group(const Hierarchy& h, const std::string& group) {
  if (group == h.base || group == h.own) return "";
  std::string name = group.substr(group.rfind('/') + 1);
  if (launcher_in_name(name)) return "";
  return fmt::format("it is in {}, which somebody else manages", group);
}

// Moves the process and, with `follow`, its descendants into the group. Returns 0 or an errno.
int move_all(const AttachRequest& request, Made* made, int* processes) {
  FsRoot fs;
  int error = enter_group(made->p->procs.c_str(), request.pid);
  if (error != 0) return error;
  made->moved.push_back(request.pid);
  *processes = 1;
  // What a moved process starts is inside by itself, so each pass has fewer left to find.
  for (bool found = request.follow; found;) {
    found = false;
    for (pid_t pid : descendants_of(fs, request.pid)) {
      if (group_of(fs, made->h, pid).value_or("") == made->p->group) continue;
      if (enter_group(made->p->procs.c_str(), pid) != 0) continue;
      made->moved.push_back(pid);
      ++*processes;
      found = true;
    }
  }
  return 0;
}

Expected<void> bind_all(const AttachRequest& request, AttachReport* report) {
  FsRoot fs;
  std::set<pid_t> done;
  std::vector<pid_t> todo{request.pid};
  while (!todo.empty()) {
    for (pid_t pid : todo) {
      Expected<BindReport> bound = bind_stopped(pid, report->placement.cpus);
      done.insert(pid);
      if (!bound && pid == request.pid) return tl::unexpected<Failure>(bound.error());
      if (!bound) continue;  // a descendant that ended, or of another user
      report->threads += bound->threads;
      ++report->processes;
    }
    todo.clear();
    if (!request.follow) break;
    for (pid_t pid : descendants_of(fs, request.pid)) {
      // A mask is inherited, so only what was there before its parent was bound is still outside.
      if (done.count(pid) == 0 && threads_outside(pid, report->placement.cpus) > 0)
        todo.push_back(pid);
    }
  }
  return {};
}

Expected<void> fence_process(const FsRoot& fs, const Hierarchy& h, const Topology& t,
                             const AttachRequest& request, const ProcessId& id, Made* made,
                             AttachReport* report) {
  Placement& p = report->placement;
  std::string now = group_of(fs, h, request.pid).value_or("");
  made->came_from = now;
  p.reason = h.base.empty() ? h.why_not
             : now.empty()  ? "its cpuset is not visible here"
                            : foreign_group(h, now);
  if (!p.reason.empty()) return {};
  GroupSpec spec{h.base + "/" + group_name(p.name, id), p.cpus, p.mems,
                 request.placement.exclusive};
  if (spec.mems.empty() && h.kind == CpusetKind::kV1) {
    Expected<GroupState> parent = read_group(fs, h, h.base);
    spec.mems = parent ? parent->effective_mems : t.allowed_mems;
  }
  std::string note;
  Expected<GroupState> group = make_group(fs, h, spec, &note);
  if (!group) {
    p.reason = group.error().text;
    return {};
  }
  if (!note.empty()) p.notes.push_back("other cpusets may still overlap: " + note);
  p.group = spec.path;
  p.procs = procs_file(spec.path);
  int error = move_all(request, made, &report->processes);
  if (error == ESRCH)
    return failure(Errc::kNotFound, fmt::format("process {} has ended", request.pid), ESRCH);
  if (error != 0) {
    p.reason = fmt::format("cannot move process {} into {}: {}", request.pid, p.group,
                           std::strerror(error));
    remove_group(h, p.group, 200);
    p.group.clear();
    p.procs.clear();
    return {};
  }
  p.planned = Level::kEnforced;
  return {};
}

}  // namespace

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

Expected<AttachReport> attach(const AttachRequest& request) {
  FsRoot fs;
  std::optional<ProcessId> id = identify(fs, request.pid);
  if (!id || request.pid <= 0) {
    return failure(Errc::kNotFound, fmt::format("there is no process {}", request.pid), ESRCH);
  }
  Expected<Topology> topology = read_topology(fs);
  if (!topology) return tl::unexpected<Failure>(topology.error());
  Hierarchy h = find_hierarchy(fs);
  Expected<CpuSet> allowed = cpus_within_cpuset();
  if (!allowed) return tl::unexpected<Failure>(allowed.error());
  topology->allowed = *allowed & topology->online;

  AttachReport report;
  Placement& p = report.placement;
  std::string folder =
      request.placement.folder.empty() ? lease_folder(nullptr) : request.placement.folder;
  Made made{h, &p, "", {}, false};
  {
    Expected<LockedLedger> ledger = LockedLedger::open(folder);
    if (!ledger) return tl::unexpected<Failure>(ledger.error());
    sweep(fs, h);
    if (!request.placement.use_cpuset) {
      h.base.clear();
      h.why_not = "cpusets were not to be used";
    }
    std::vector<Lease> leases = ledger->read(fs);
    // What this process holds already is given up by moving it.
    std::erase_if(leases, [&](const Lease& lease) { return lease.member == *id; });
    Expected<Placement> chosen = choose(*topology, topology->allowed, leases, request.placement);
    if (!chosen) return tl::unexpected<Failure>(chosen.error());
    p = *chosen;
    p.folder = folder;
    p.lease.launcher = p.lease.member = *id;
    Expected<int> fd = ledger->add(p.lease);
    if (!fd) return tl::unexpected<Failure>(fd.error());
    p.lease_fd = *fd;
  }
  auto from = std::chrono::steady_clock::now();
  Expected<void> fenced = fence_process(fs, h, *topology, request, *id, &made, &report);
  if (!fenced) return tl::unexpected<Failure>(fenced.error());
  if (p.planned != Level::kEnforced) {
    Expected<void> bound = bind_all(request, &report);
    if (!bound) return tl::unexpected<Failure>(bound.error());
  }
  report.ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - from).count();
  if (!alive(fs, *id))
    return failure(Errc::kNotFound, fmt::format("process {} has ended", request.pid), ESRCH);
  if (p.planned == Level::kEnforced)
    report.threads = static_cast<int>(threads_of(fs, request.pid).size());
  int outside = threads_outside(request.pid, p.cpus);
  report.level = outside == 0 ? p.planned : Level::kNone;
  report.reason =
      outside == 0 ? p.reason : fmt::format("{} threads set their own mask to other CPUs", outside);
  made.kept = true;
  p.lease.group = p.group;
  if (Expected<LockedLedger> ledger = LockedLedger::open(folder))
    static_cast<void>(ledger->update(p.lease, p.lease_fd));
  close(p.lease_fd);
  p.lease_fd = -1;
  return report;
}

}  // namespace allot::cpus
