// Changing and undoing a placement that stands: see attach.h.
//
// The group stays, so no thread can be missed, and so does the lease: its file is rewritten under
// the ledger's lock when the kernel has taken the new CPUs, never removed before. What was written
// to the group is written back when a later step fails.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <set>

#include "cpus/attach.h"
#include "cpus/memory_policy.h"

namespace allot::cpus {
namespace {

// What lies inside a slice's group, in words; "" when nothing does.
std::string nested_in(const FsRoot& fs, const std::string& group) {
  std::string text;
  for (const std::string& below : groups_below(fs, group)) {
    CpuSet cpus = fs.read_list(below + "/cpuset.cpus").value_or(CpuSet{});
    if (cpus.empty()) cpus = fs.read_list(below + "/cpus").value_or(CpuSet{});
    text += fmt::format("{}{} on CPUs {}", text.empty() ? "the cpuset " : " and ", below,
                        to_list(cpus));
  }
  return text;
}

// The files of a group that a change touches; what was written is undone unless kept.
class GroupEdit {
 public:
  GroupEdit(const FsRoot& fs, const Hierarchy& h, std::string group)
      : fs_(fs), h_(h), group_(std::move(group)) {}
  GroupEdit(const GroupEdit&) = delete;
  GroupEdit& operator=(const GroupEdit&) = delete;
  ~GroupEdit() {
    if (kept_) return;
    for (auto it = undo_.rbegin(); it != undo_.rend(); ++it) perform(*it);
  }
  Expected<void> write(const std::string& name, const std::string& text) {
    std::string file = h_.file(group_, name);
    std::string before = fs_.read_line(file).value_or("");
    if (before == text) return {};
    int error = perform({Step::Op::kWrite, file, text});
    if (error != 0) {
      std::string why = std::strerror(error);
      // Version 1 keeps a group at least as wide as those inside it.
      if (std::string inner = nested_in(fs_, group_); error == EBUSY && !inner.empty())
        why += ", as it holds " + inner;
      return failure(error == EACCES || error == EPERM ? Errc::kNoPermission : Errc::kUnsupported,
                     fmt::format("cannot write \"{}\" to {}: {}", text, file, why), error);
    }
    undo_.push_back({Step::Op::kWrite, file, before});
    return {};
  }
  void keep() { kept_ = true; }

 private:
  const FsRoot& fs_;
  const Hierarchy& h_;
  std::string group_;
  std::vector<Step> undo_;
  bool kept_ = false;
};

// Version 1 keeps siblings apart by a flag, which is put back at the end; version 2 by the
// partition.
Expected<void> write_group(const FsRoot& fs, const Hierarchy& h, const Placement& p,
                           const AttachRequest& request, std::string* note) {
  GroupEdit edit(fs, h, p.group);
  bool v1 = h.kind == CpusetKind::kV1;
  if (v1) {
    if (Expected<void> done = edit.write("cpu_exclusive", "0"); !done) return done;
    if (!p.mems.empty()) static_cast<void>(edit.write("memory_migrate", "1"));
  } else if (!request.placement.exclusive &&
             fs.read_line(h.file(p.group, "cpus.partition")).value_or("member") != "member") {
    if (Expected<void> done = edit.write("cpus.partition", "member"); !done) return done;
  }
  if (!p.mems.empty()) {
    if (Expected<void> done = edit.write("mems", to_list(p.mems)); !done) return done;
  }
  if (Expected<void> done = edit.write("cpus", to_list(p.cpus)); !done) return done;
  Expected<GroupState> state = read_group(fs, h, p.group);
  if (!state || state->effective_cpus != p.cpus) {
    return failure(
        Errc::kUnsupported,
        fmt::format("asked for CPUs {} and the kernel granted {} in {}: the group above has "
                    "no others",
                    to_list(p.cpus), state ? to_list(state->effective_cpus) : "nothing", p.group));
  }
  edit.keep();
  if (!request.placement.exclusive) return {};
  if (v1) {
    int error = perform({Step::Op::kWrite, h.file(p.group, "cpu_exclusive"), "1"});
    *note = error != 0 ? fmt::format("other cpusets may still overlap: {}", std::strerror(error))
                       : others_may_run(p.cpus);
    return {};
  }
  GroupSpec spec;
  spec.path = p.group;
  spec.cpus = p.cpus;
  spec.isolated = request.placement.isolated;
  *note = make_partition(fs, h, spec);
  return {};
}

bool is_in(const FsRoot& fs, const Lease& lease, pid_t pid, const std::string& group) {
  if (!lease.group.empty()) return lease.group == group;
  std::vector<pid_t> bound = bound_processes(fs, lease);
  return std::find(bound.begin(), bound.end(), pid) != bound.end();
}

// Out of masks that allot set, one process after the other.
Expected<void> release_masks(const FsRoot& fs, const Lease& lease, DetachReport* report) {
  CpuSet online = fs.read_list("/sys/devices/system/cpu/online").value_or(lease.cpus);
  CpuSet ours = lease.cpus & online;
  for (pid_t pid : bound_processes(fs, lease)) {
    Expected<BindReport> bound = bind_stopped(pid, CpuSet::range(0, kMaxCpus - 1), 5000, &ours);
    if (!bound && bound.error().code == Errc::kNotFound) continue;
    if (!bound) return tl::unexpected<Failure>(bound.error());
    report->granted |= cpus_in_force(fs, pid);
    ++report->processes;
  }
  return {};
}

Expected<Lease> pick_lease(const FsRoot& fs, const std::vector<Lease>& leases,
                           const std::string& text) {
  pid_t pid = 0;
  auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), pid);
  bool number = ec == std::errc{} && end == text.data() + text.size();
  Hierarchy h = find_hierarchy(fs);
  std::string group = number ? group_of(fs, h, pid).value_or("") : "";
  const Lease* found = nullptr;
  std::string several;
  bool ambiguous = false;
  for (const Lease& lease : leases) {
    bool by_pid = number && (lease.member.pid == pid || is_in(fs, lease, pid, group));
    if (lease.name != text && !by_pid) continue;
    several += fmt::format("{}{} of process {}", found == nullptr ? "" : ", ", lease.name,
                           lease.member.pid);
    if (found != nullptr) ambiguous = true;
    found = &lease;
  }
  if (ambiguous) {
    return failure(
        Errc::kBadValue,
        fmt::format("{} stands for several slices of CPUs ({}): give a name or a process "
                    "that only one has",
                    text, several));
  }
  if (found != nullptr) return *found;
  std::string names;
  for (const Lease& lease : leases) names += (names.empty() ? "" : ", ") + lease.name;
  return failure(Errc::kNotFound,
                 fmt::format("no slice of CPUs is called {} or has such a process; there is {}",
                             text, names.empty() ? "none" : names));
}

}  // namespace

Expected<AttachReport> change_group(LockedLedger* ledger, const Hierarchy& h, const Topology& t,
                                    const std::vector<Lease>& leases, const Lease& old,
                                    const AttachRequest& request) {
  FsRoot fs;
  std::vector<Lease> others;
  for (const Lease& lease : leases) {
    // The slice it lies in gave it its CPUs, and those inside it have theirs from it.
    bool around = !lease.group.empty() && old.group.starts_with(lease.group + "/");
    bool inside = lease.group.starts_with(old.group + "/");
    if (!ledger->same_file(lease, old) && !around && !inside) others.push_back(lease);
  }
  PlacementRequest wanted = request.placement;
  wanted.name = old.name;
  Expected<Placement> chosen = choose(t, t.allowed, others, wanted);
  if (!chosen) return tl::unexpected<Failure>(chosen.error());
  AttachReport report;
  report.placement = *chosen;
  Placement& p = report.placement;
  p.group = old.group;
  p.procs = procs_file(old.group);
  p.kind = h.kind;
  p.planned = Level::kEnforced;
  std::string note;
  if (Expected<void> written = write_group(fs, h, p, request, &note); !written)
    return tl::unexpected<Failure>(written.error());
  if (!note.empty()) p.notes.push_back(note);
  if (!p.mems.empty())
    p.notes.push_back(fmt::format("its pages move to memory node {}", to_list(p.mems)));
  Lease next = old;
  next.cpus = p.lease.cpus;
  next.blocked = p.lease.blocked;
  next.exclusive = p.lease.exclusive;
  if (!p.mems.empty()) next.mems = p.mems;
  p.lease = next;
  if (Expected<void> kept = ledger->rewrite(next); !kept) p.notes.push_back(kept.error().text);
  if (old.exclusive && !next.exclusive)
    p.notes.push_back("its CPUs are not exclusive any more: --exclusive would keep them so");
  // Another program may have moved it out since.
  int error = group_of(fs, h, request.pid).value_or("") == p.group
                  ? 0
                  : enter_group(p.procs.c_str(), request.pid);
  if (error != 0) {
    p.planned = Level::kAdvised;
    p.reason = fmt::format("cannot move process {} into {}: {}", request.pid, p.group,
                           std::strerror(error));
  }
  report.processes = static_cast<int>(ids_in(fs, procs_file(old.group)).size());
  read_back(&report, request.pid);
  return report;
}

Expected<Lease> find_lease(const std::string& folder, const std::string& text) {
  FsRoot fs;
  if (!fs.exists(folder)) return pick_lease(fs, {}, text);
  Expected<LockedLedger> ledger = LockedLedger::open(folder);
  if (!ledger) return tl::unexpected<Failure>(ledger.error());
  return pick_lease(fs, ledger->read(fs), text);
}

pid_t process_of(const Lease& lease) {
  FsRoot fs;
  if (lease.group.empty() || (lease.member.pid > 0 && alive(fs, lease.member)))
    return lease.member.pid;
  std::vector<pid_t> inside = ids_in(fs, procs_file(lease.group));
  return inside.empty() ? lease.member.pid : inside.front();
}

Expected<DetachReport> detach(const std::string& folder, const std::string& text) {
  FsRoot fs;
  if (!fs.exists(folder)) return tl::unexpected<Failure>(pick_lease(fs, {}, text).error());
  Expected<LockedLedger> ledger = LockedLedger::open(folder);
  if (!ledger) return tl::unexpected<Failure>(ledger.error());
  Expected<Lease> lease = pick_lease(fs, ledger->read(fs), text);
  if (!lease) return tl::unexpected<Failure>(lease.error());
  DetachReport report;
  if (!lease->group.empty() && !fs.exists(lease->group)) {
    // Another program removed the group, for which it moved everybody out.
    report.processes = alive(fs, lease->member) ? 1 : 0;
    report.granted = cpus_in_force(fs, lease->member.pid);
    ledger->remove(*lease);
    return report;
  }
  if (lease->group.empty()) {
    if (Expected<void> done = release_masks(fs, *lease, &report); !done)
      return tl::unexpected<Failure>(done.error());
    ledger->remove(*lease);
    return report;
  }
  if (std::string inner = nested_in(fs, lease->group); !inner.empty())
    return failure(Errc::kFull, fmt::format("{} holds {}: end that first", lease->name, inner),
                   EBUSY);
  std::string above = procs_file(lease->group.substr(0, lease->group.rfind('/')));
  std::set<pid_t> moved;
  // New processes may start while others are moved: until the group is empty.
  for (int round = 0; round < 100; ++round) {
    std::vector<pid_t> inside = ids_in(fs, procs_file(lease->group));
    if (inside.empty()) break;
    for (pid_t pid : inside) {
      int error = enter_group(above.c_str(), pid);
      if (error != 0 && error != ESRCH) {
        return failure(
            error == EACCES || error == EPERM ? Errc::kNoPermission : Errc::kSystem,
            fmt::format("cannot move process {} to {}: {}", pid, above, std::strerror(error)),
            error);
      }
      if (error == 0) moved.insert(pid);
    }
  }
  int error = remove_group(find_hierarchy(fs), lease->group, 200);
  if (error != 0) {
    return failure(Errc::kSystem,
                   fmt::format("cannot remove {}: {}", lease->group, std::strerror(error)), error);
  }
  ledger->remove(*lease);
  for (pid_t pid : moved) report.granted |= cpus_in_force(fs, pid);
  report.processes = static_cast<int>(moved.size());
  return report;
}

}  // namespace allot::cpus
