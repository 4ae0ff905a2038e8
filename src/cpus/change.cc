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

#include "cpus/attach.h"
#include "cpus/memory_policy.h"

namespace allot::cpus {
namespace {

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
      return failure(error == EACCES || error == EPERM ? Errc::kNoPermission : Errc::kUnsupported,
                     fmt::format("cannot write \"{}\" to {}: {}", text, file, std::strerror(error)),
                     error);
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
    if (error != 0)
      *note = fmt::format("other cpusets may still overlap: {}", std::strerror(error));
    return {};
  }
  GroupSpec spec;
  spec.path = p.group;
  spec.cpus = p.cpus;
  spec.isolated = request.placement.isolated;
  *note = make_partition(fs, h, spec);
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
  for (const Lease& lease : leases) {
    bool by_pid =
        number && (lease.member.pid == pid || (!lease.group.empty() && lease.group == group));
    if (lease.name != text && !by_pid) continue;
    if (found != nullptr) {
      return failure(
          Errc::kBadValue,
          fmt::format("{} stands for several slices of CPUs: give a process of one", text));
    }
    found = &lease;
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
    if (!ledger->same_file(lease, old)) others.push_back(lease);
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
  std::vector<pid_t> inside = ids_in(fs, procs_file(old.group));
  report.processes = static_cast<int>(inside.size());
  pid_t pid = request.pid > 0 ? request.pid : old.member.pid;
  if (inside.empty() || std::find(inside.begin(), inside.end(), pid) != inside.end() ||
      request.pid > 0) {
    read_back(&report, pid);
  } else {
    read_back(&report, inside.front());
  }
  return report;
}

Expected<Lease> find_lease(const std::string& folder, const std::string& text) {
  FsRoot fs;
  if (!fs.exists(folder)) return pick_lease(fs, {}, text);
  Expected<LockedLedger> ledger = LockedLedger::open(folder);
  if (!ledger) return tl::unexpected<Failure>(ledger.error());
  return pick_lease(fs, ledger->read(fs), text);
}

Expected<int> detach(const std::string& folder, const std::string& text) {
  FsRoot fs;
  if (!fs.exists(folder)) return tl::unexpected<Failure>(pick_lease(fs, {}, text).error());
  Expected<LockedLedger> ledger = LockedLedger::open(folder);
  if (!ledger) return tl::unexpected<Failure>(ledger.error());
  Expected<Lease> lease = pick_lease(fs, ledger->read(fs), text);
  if (!lease) return tl::unexpected<Failure>(lease.error());
  if (lease->group.empty()) {
    Expected<CpuSet> allowed = cpus_within_cpuset();
    if (!allowed) return tl::unexpected<Failure>(allowed.error());
    Expected<BindReport> bound = bind_stopped(lease->member.pid, *allowed, 5000);
    if (!bound && bound.error().code != Errc::kNotFound)
      return tl::unexpected<Failure>(bound.error());
    ledger->remove(*lease);
    return bound ? 1 : 0;
  }
  std::string above = procs_file(lease->group.substr(0, lease->group.rfind('/')));
  int moved = 0;
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
      moved += error == 0 ? 1 : 0;
    }
  }
  int error = remove_group(find_hierarchy(fs), lease->group, 200);
  if (error != 0) {
    return failure(Errc::kSystem,
                   fmt::format("cannot remove {}: {}", lease->group, std::strerror(error)), error);
  }
  ledger->remove(*lease);
  return moved;
}

}  // namespace allot::cpus
