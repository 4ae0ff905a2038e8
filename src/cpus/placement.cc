// Making, entering and giving back a slice: see placement.h. Choosing the CPUs is in choose.cc.
#include "cpus/placement.h"

#include <fmt/format.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "cpus/memory_policy.h"

#include <fcntl.h>

namespace allot::cpus {
namespace {

// Makes the group for a placement, or says in it why there is none.
void fence(const FsRoot& fs, const Topology& t, const Hierarchy& h, const PlacementRequest& request,
           Placement* p) {
  if (h.base.empty()) {
    p->reason = h.why_not;
    if (request.exclusive) p->notes.push_back(others_may_run(p->cpus));
    return;
  }
  GroupSpec spec;
  spec.path = h.base + "/" + group_name(p->name, p->lease.launcher);
  spec.cpus = p->cpus;
  spec.exclusive = request.exclusive;
  spec.isolated = request.isolated;
  // Version 1 takes no task into a group without mems, so those of the parent are the default.
  spec.mems = p->fenced_mems();
  if (spec.mems.empty() && h.kind == CpusetKind::kV1) {
    if (Expected<GroupState> parent = read_group(fs, h, h.base)) spec.mems = parent->effective_mems;
    if (spec.mems.empty()) spec.mems = t.allowed_mems;
  }
  std::string note;
  Expected<GroupState> made = make_group(fs, h, spec, &note);
  if (!made) {
    p->reason = made.error().text;
    if (request.exclusive) p->notes.push_back(others_may_run(p->cpus));
    return;
  }
  if (!note.empty()) p->notes.push_back(note);
  p->group = spec.path;
  p->procs = procs_file(spec.path);
  p->entry = h.kind == CpusetKind::kV1 ? spec.path + "/tasks" : p->procs;
  p->planned = Level::kEnforced;
  p->kind = h.kind;
}

}  // namespace

std::string_view level_name(Level level) {
  switch (level) {
    case Level::kEnforced:
      return "enforced";
    case Level::kAdvised:
      return "advised";
    case Level::kNone:
      break;
  }
  return "none";
}

// Leases that this process runs in are no obstacle to what it starts.
std::vector<Lease> without_own(const FsRoot& fs, const Hierarchy& h, std::vector<Lease> leases) {
  std::string own = group_of(fs, h, getpid()).value_or("");
  std::vector<pid_t> above;
  for (pid_t pid = getpid(); pid > 0 && above.size() < 1000;) {
    above.push_back(pid);
    std::optional<ThreadStat> stat = thread_stat(fs, pid, pid);
    pid = stat ? stat->parent : 0;
  }
  std::erase_if(leases, [&](const Lease& lease) {
    bool inside =
        !lease.group.empty() && (own == lease.group || own.starts_with(lease.group + "/"));
    bool child = std::find(above.begin(), above.end(), lease.member.pid) != above.end();
    return inside || (lease.member.pid > 0 && child);
  });
  return leases;
}

Expected<Placement> place(const PlacementRequest& request) {
  FsRoot fs;
  Expected<Topology> topology = read_topology(fs);
  if (!topology) return failure(topology.error().code, topology.error().text);
  Hierarchy h = find_hierarchy(fs);
  Expected<CpuSet> allowed = cpus_within_cpuset();
  if (!allowed) return tl::unexpected<Failure>(allowed.error());
  topology->allowed = *allowed & topology->online;
  // Who was bound to some CPUs (taskset, a batch system) hands out of these only.
  CpuSet given;
  bool bound = !request.any_cpu && get_affinity(0, &given) == 0 &&
               given.overlaps(topology->allowed) && !given.contains(topology->allowed);
  if (bound) topology->allowed &= given;

  std::string folder = request.folder.empty() ? lease_folder(nullptr) : request.folder;
  Expected<LockedLedger> ledger = LockedLedger::open(folder);
  if (!ledger) return tl::unexpected<Failure>(ledger.error());
  sweep(fs, h);
  if (!request.use_cpuset) {
    h.base.clear();
    h.why_not = "cpusets were not to be used";
  }
  std::vector<Lease> leases = without_own(fs, h, ledger->read(fs));
  Expected<Placement> placement = choose(*topology, topology->allowed, leases, request);
  if (!placement && bound) {
    return failure(placement.error().code,
                   fmt::format("{} (allot was started with CPUs {} only; --any-cpu takes others)",
                               placement.error().text, to_list(given)),
                   placement.error().os_errno);
  }
  if (!placement) return placement;
  Placement& p = *placement;
  p.folder = folder;
  p.lease.launcher = identify(fs, getpid()).value_or(ProcessId{getpid(), 0});
  fence(fs, *topology, h, request, &p);
  p.lease.mems = p.fenced_mems();
  p.lease.group = p.group;
  Expected<int> fd = ledger->add(p.lease);
  if (!fd) {
    if (!p.group.empty()) remove_group(h, p.group, 0);
    return tl::unexpected<Failure>(fd.error());
  }
  p.lease_fd = *fd;
  return placement;
}

Entered enter(const Placement& p) {
  Entered out;
  if (!p.entry.empty()) out.group_errno = enter_group(p.entry.c_str(), 0);
  bool fenced = !p.entry.empty() && out.group_errno == 0;
  // In the group the inherited mask is dropped, or from Linux 6.2 on the child of a pinned shell
  // stays pinned in it. Without a group the mask is all there is.
  out.mask_errno = fenced ? reset_user_mask(0) : set_affinity(0, p.cpus);
  if (!p.mems.empty() || p.policy == MemoryPolicy::kLocal)
    out.memory_errno = set_memory_policy(p.policy, p.mems);
  int error = get_affinity(0, &out.granted);
  if (out.mask_errno == 0) out.mask_errno = error;
  bool inside = !out.granted.empty() && p.cpus.contains(out.granted);
  if (inside) out.level = fenced ? Level::kEnforced : Level::kAdvised;
  return out;
}

void leave(const Placement& p) {
  if (p.group.empty()) return;
  enter_group(procs_file(p.group.substr(0, p.group.rfind('/'))).c_str(), 0);
}

pid_t fork_into(const Placement& p) {
  if (p.kind != CpusetKind::kV2 || p.group.empty()) return fork();
  int group = open(p.group.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (group < 0) return fork();
  clone_args args{};
  args.flags = CLONE_INTO_CGROUP;
  args.exit_signal = SIGCHLD;
  args.cgroup = static_cast<uint64_t>(group);
  long pid = syscall(SYS_clone3, &args, sizeof args);
  if (pid == 0) return 0;
  int error = errno;
  close(group);
  if (pid < 0 && error != EAGAIN && error != ENOMEM) return fork();
  errno = error;
  return static_cast<pid_t>(pid);
}

void set_member(Placement* p, pid_t program) {
  p->lease.member = identify(FsRoot{}, program).value_or(ProcessId{});
  if (Expected<LockedLedger> ledger = LockedLedger::open(p->folder)) {
    // A lease whose member is unknown ends with the launcher, which is the worst that can come of
    // it.
    static_cast<void>(ledger->update(p->lease, p->lease_fd));
  }
}

void release(Placement* p) {
  if (p->lease_fd < 0) return;
  int error = p->group.empty() ? 0 : remove_group(Hierarchy{}, p->group, 200);
  Expected<LockedLedger> ledger = LockedLedger::open(p->folder);
  Lease lease = p->lease;
  lease.owner = geteuid();
  bool over = p->group.empty() ? !alive(FsRoot{}, lease.member) && !anybody_left(FsRoot{}, lease)
                               : error == 0;
  if (ledger && over) ledger->remove(p->lease);
  close(p->lease_fd);
  p->lease_fd = -1;
}

std::string memory_text(const Placement& p) {
  std::string nodes = fmt::format("node{} {}", p.mems.count() == 1 ? "" : "s", to_list(p.mems));
  switch (p.policy) {
    case MemoryPolicy::kPreferred:
      return "memory first from " + nodes;
    case MemoryPolicy::kInterleave:
      return "memory interleaved over " + nodes;
    case MemoryPolicy::kLocal:
      return "memory from the local node";
    case MemoryPolicy::kNone:
    case MemoryPolicy::kBind:
      break;
  }
  return p.mems.empty() ? "" : fmt::format("memory node {}", to_list(p.mems));
}

std::string describe(const Placement& p, const Entered& e) {
  std::string text = fmt::format("CPUs {}", to_list(e.granted));
  bool fenced = e.level == Level::kEnforced && !p.fenced_mems().empty();
  if (std::string memory = memory_text(p); !memory.empty()) {
    text += ", " + (fenced || e.memory_errno == 0
                        ? memory
                        : fmt::format("memory anywhere, as the kernel refused \"{}\" ({})", memory,
                                      std::strerror(e.memory_errno)));
  }
  text += fmt::format(": {}", level_name(e.level));
  if (e.level == Level::kEnforced) return text + fmt::format(" (cpuset {})", p.group);
  if (e.group_errno != 0) {
    return text + fmt::format(": cannot enter {}: {}", p.group, std::strerror(e.group_errno));
  }
  if (e.mask_errno != 0)
    return text + fmt::format(": the mask was refused: {}", std::strerror(e.mask_errno));
  if (!p.cpus.contains(e.granted)) return text + fmt::format(": asked for {}", to_list(p.cpus));
  return text + (p.reason.empty() ? "" : ": " + p.reason);
}

}  // namespace allot::cpus
