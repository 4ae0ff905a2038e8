// attach: choose, fence, move, verify (attach.h). The stop protocol is in bind_stopped.cc, what is
// looked at afterwards in read_back.cc.
#include "cpus/attach.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <optional>
#include <set>

#include "cpus/memory_policy.h"

namespace allot::cpus {
namespace {

// What has been made for one attach; undone unless kept.
struct Made {
  const Hierarchy& h;
  Placement* p;
  std::string came_from;  // group of the process before
  std::vector<pid_t> moved;
  bool kept = false;
  LockedLedger* ledger = nullptr;
  std::optional<Lease> replaces;

  ~Made() {
    if (kept) return;
    for (pid_t pid : moved) enter_group(procs_file(came_from).c_str(), pid);
    if (!p->group.empty()) remove_group(h, p->group, 200);
    if (p->lease_fd < 0) return;
    ledger->remove(p->lease);
    close(p->lease_fd);
    p->lease_fd = -1;
    if (!replaces || !ledger->same_file(*replaces, p->lease)) return;
    if (Expected<int> fd = ledger->add(*replaces)) close(*fd);
  }
};

// Why the process should not be moved out of the group it is in; empty when it may.
std::string foreign_group(const Hierarchy& h, const std::string& group) {
  if (group == h.base || group == h.own) return "";
  std::string name = group.substr(group.rfind('/') + 1);
  if (launcher_in_name(name)) return "";
  return fmt::format("it is in {}, which another program manages", group);
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
      if (request.within && threads_outside(pid, *request.within) > 0) continue;
      if (enter_group(made->p->procs.c_str(), pid) != 0) continue;
      made->moved.push_back(pid);
      ++*processes;
      found = true;
    }
  }
  return 0;
}

// Without a cpuset the pages are moved once; what the process allocates later follows its own
// policy.
void move_pages(pid_t pid, Placement* p) {
  if (p->mems.empty()) return;
  int error = migrate_memory(pid, p->mems);
  p->notes.push_back(error == 0
                         ? fmt::format("its pages were moved to memory node {}; later ones are not "
                                       "bound, because no cpuset could be made",
                                       to_list(p->mems))
                         : fmt::format("its pages stay where they are: {}", std::strerror(error)));
  p->mems = {};
}

Expected<void> bind_all(const AttachRequest& request, AttachReport* report) {
  FsRoot fs;
  std::set<pid_t> done;
  std::vector<pid_t> todo{request.pid};
  while (!todo.empty()) {
    for (pid_t pid : todo) {
      Expected<BindReport> bound = bind_stopped(pid, report->placement.cpus, 5000);
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
      if (done.count(pid) != 0 || threads_outside(pid, report->placement.cpus) == 0) continue;
      if (!request.within || threads_outside(pid, *request.within) == 0) todo.push_back(pid);
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
  GroupSpec spec{h.base + "/" + group_name(p.name, id), p.cpus, p.mems};
  spec.exclusive = request.placement.exclusive;
  spec.isolated = request.placement.isolated;
  spec.migrate = !p.mems.empty();
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
  if (!note.empty()) p.notes.push_back(note);
  if (spec.migrate)
    p.notes.push_back(fmt::format("its pages move to memory node {}", to_list(p.mems)));
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

// The lease a process holds: as its program, or as one of those in its group.
const Lease* lease_of(const FsRoot& fs, const Hierarchy& h, const std::vector<Lease>& leases,
                      const ProcessId& id) {
  std::string group = group_of(fs, h, id.pid).value_or("");
  for (const Lease& lease : leases) {
    if (lease.member == id || (!lease.group.empty() && lease.group == group)) return &lease;
  }
  return nullptr;
}

// A new placement in the place of an old one: the old lease counts until the new one is written,
// and again when the move fails.
Expected<void> take_lease(LockedLedger* ledger, const Lease* old, Made* made) {
  made->ledger = ledger;
  if (old != nullptr) made->replaces = *old;
  Expected<int> fd = ledger->add(made->p->lease);
  if (!fd) return tl::unexpected<Failure>(fd.error());
  made->p->lease_fd = *fd;
  return {};
}

// Masks that an earlier placement without a cpuset set: the kernel (6.2 and later) will otherwise
// cut every cpuset down to them. A mask that the program chose itself stays.
void drop_old_masks(const Lease& old, const std::vector<pid_t>& moved, const CpuSet& cpus) {
  CpuSet kept = old.cpus & cpus;  // what the kernel made of such a mask in the new cpuset
  if (kept.empty()) kept = cpus;
  for (pid_t pid : moved)
    static_cast<void>(bind_stopped(pid, CpuSet::range(0, kMaxCpus - 1), 5000, &kept));
}

Expected<void> move(const FsRoot& fs, const Hierarchy& h, const Topology& t,
                    const AttachRequest& request, const ProcessId& id, Made* made,
                    AttachReport* report) {
  if (Expected<void> fenced = fence_process(fs, h, t, request, id, made, report); !fenced)
    return fenced;
  if (report->placement.planned == Level::kEnforced) {
    if (made->replaces && made->replaces->group.empty())
      drop_old_masks(*made->replaces, made->moved, report->placement.cpus);
    return {};
  }
  if (Expected<void> bound = bind_all(request, report); !bound) return bound;
  if (request.placement.exclusive)
    report->placement.notes.push_back(others_may_run(report->placement.cpus));
  move_pages(request.pid, &report->placement);
  return {};
}

}  // namespace

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
  // Held to the end: of two who move one process at once the second finds the first's lease.
  Expected<LockedLedger> ledger = LockedLedger::open(folder);
  if (!ledger) return tl::unexpected<Failure>(ledger.error());
  sweep(fs, h);
  std::vector<Lease> leases = ledger->read(fs);
  const Lease* old = lease_of(fs, h, leases, *id);
  // Its own partition's CPUs are not among those allowed to us.
  if (old != nullptr) topology->allowed |= old->cpus & topology->online;
  auto from = std::chrono::steady_clock::now();
  auto took = [from] {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - from)
        .count();
  };
  // A group that another program removed is made anew below, like a first one.
  if (old != nullptr && !old->group.empty() && fs.exists(old->group)) {
    Expected<AttachReport> changed = change_group(&*ledger, h, *topology, leases, *old, request);
    if (!changed) return changed;
    changed->ms = took();
    if (!request.placement.use_cpuset)
      changed->placement.notes.push_back(
          "its cpuset was changed: for affinity alone, end that with 'allot cpus detach' first");
    return changed;
  }
  if (!request.placement.use_cpuset) {
    h.base.clear();
    h.why_not = "cpusets were not to be used";
  }
  std::vector<Lease> others = leases;
  std::erase_if(others, [&](const Lease& lease) { return lease.member == *id; });
  PlacementRequest wanted = request.placement;
  if (old != nullptr) wanted.name = old->name;
  Expected<Placement> chosen = choose(*topology, topology->allowed, others, wanted);
  if (!chosen) return tl::unexpected<Failure>(chosen.error());
  p = *chosen;
  p.folder = folder;
  p.lease.launcher = p.lease.member = *id;
  Made made{h, &p, "", {}, false, nullptr, std::nullopt};
  if (Expected<void> taken = take_lease(&*ledger, old, &made); !taken)
    return tl::unexpected<Failure>(taken.error());
  if (Expected<void> moved = move(fs, h, *topology, request, *id, &made, &report); !moved)
    return tl::unexpected<Failure>(moved.error());
  report.ms = took();
  if (!alive(fs, *id))
    return failure(Errc::kNotFound, fmt::format("process {} has ended", request.pid), ESRCH);
  read_back(&report, request.pid);
  made.kept = true;
  p.lease.group = p.group;
  p.lease.mems = p.mems;
  static_cast<void>(ledger->update(p.lease, p.lease_fd));
  if (old != nullptr && old->member == *id && !ledger->same_file(*old, p.lease))
    ledger->remove(*old);
  close(p.lease_fd);
  p.lease_fd = -1;
  return report;
}

}  // namespace allot::cpus
