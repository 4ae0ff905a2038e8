// Causes in words: see explain.h.
#include "cpus/explain.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>

namespace allot::cpus {
namespace {

// "child /a/b uses CPU 3" says it all to someone who sees the tree; the paths of the model begin at
// the mount, so the mount is named once.
Explanation from_outcome(const model::Outcome& outcome) {
  Explanation e;
  e.os_errno = outcome.err;
  e.reason = outcome.reason;
  e.cause = model::why_name(outcome.reason.why);
  e.text = model::sentence(outcome.reason);
  e.effective = outcome.err == 0 && outcome.reason.why == model::Why::kNone;
  return e;
}

std::string offline_note(const TreeModel& tree, const model::Reason& reason) {
  CpuSet wanted = from_mask(reason.cpus);
  CpuSet possible = from_mask(tree.model.machine().possible_cpus);
  CpuSet online = from_mask(tree.model.online_cpus());
  CpuSet off = (wanted & possible) - online;
  if (reason.why != model::Why::kNotInTop || wanted.empty()) return "";
  if (off.empty()) return fmt::format("; this machine has CPUs {}", to_list(possible));
  return fmt::format("; CPU {} is offline", to_list(off));
}

// What the model does not see: permission and owners.
void add_surroundings(const FsRoot& fs, const TreeModel& tree, const std::string& group,
                      const std::string& file, Explanation* e) {
  std::string owner = owner_of(fs, tree.hierarchy, group);
  if (e->os_errno == 0 && !file.empty() && fs.exists(file) &&
      access(fs.path(file).c_str(), W_OK) != 0) {
    int error = errno;
    e->os_errno = error;
    e->effective = false;
    e->cause = "no_permission";
    e->text = fmt::format("no permission to write {}", file);
    if (!owner.empty()) e->text += fmt::format(", which {} owns", owner);
    return;
  }
  if (owner.empty()) return;
  std::string note =
      owner == "systemd"
          ? "owned by systemd: its next daemon-reload or start of the unit writes its own "
            "value again (set AllowedCPUs= of the unit instead)"
          : fmt::format("owned by {}, which may write its own value again", owner);
  e->text += fmt::format("{}{} is {}", e->text.empty() ? "" : "; ", group, note);
  e->effective = false;
  if (e->cause == "none") e->cause = "owned";
}

// The loaded tree has tasks without their kernel flags, owner and mask; those of one are read here.
void adopt_again(const FsRoot& fs, TreeModel* copy, pid_t pid) {
  std::optional<ThreadStat> stat = thread_stat(fs, pid, pid);
  if (!stat) return;
  model::TaskInit task;
  task.tid = pid;
  task.group = copy->inside(group_of(fs, copy->hierarchy, pid).value_or(copy->hierarchy.mount));
  task.no_setaffinity = (stat->flags & kPfNoSetAffinity) != 0;
  if (std::optional<CpuSet> mask = mask_in_proc(fs, pid, pid)) task.cpus = to_mask(*mask);
  std::string status = fs.read(fmt::format("/proc/{}/status", pid)).value_or("");
  std::string_view uid = status_value(status, "Uid");
  std::from_chars(uid.data(), uid.data() + uid.size(), task.uid);
  copy->model.exit(pid);
  copy->model.adopt_task(task);
}

// Who asks, as the kernel will see it.
model::Caller caller_here() {
  constexpr unsigned kCapSysNice = 23;
  std::string status = FsRoot{}.read("/proc/self/status").value_or("");
  std::string_view text = status_value(status, "CapEff");
  uint64_t caps = 0;
  std::from_chars(text.data(), text.data() + text.size(), caps, 16);
  model::Caller caller;
  caller.tid = getpid();
  caller.euid = geteuid();
  caller.cap_sys_nice = (caps >> kCapSysNice & 1) != 0;
  return caller;
}

}  // namespace

Expected<Explanation> explain_write(const FsRoot& fs, const TreeModel& tree,
                                    const std::string& path, const std::string& text) {
  size_t slash = path.rfind('/');
  std::string group = slash == std::string::npos ? "" : path.substr(0, slash);
  if (slash == std::string::npos || tree.inside(group).empty()) {
    return failure(Errc::kNotFound, fmt::format("{} is not below {}", path, tree.hierarchy.mount));
  }
  TreeModel copy = tree;
  std::string file = path.substr(slash + 1);
  if (file == "tasks" || file == "cgroup.procs" || file == "cgroup.threads") {
    pid_t pid = 0;
    std::string_view number = trim(text);
    std::from_chars(number.data(), number.data() + number.size(), pid);
    if (pid > 0) adopt_again(fs, &copy, pid);
  }
  bool partition =
      file.starts_with("cpuset.cpus.partition") || file.starts_with("cpuset.cpus.excl");
  if (partition && !partitions_known(tree.kernel)) {
    return failure(
        Errc::kUnsupported,
        fmt::format("{}: the rules of partitions are known for Linux 6.1 and 6.12, this is {}",
                    path, tree.kernel));
  }
  const model::Outcome outcome = predict(&copy, {Step::Op::kWrite, path, text});
  if (outcome.reason.why == model::Why::kUnknown)
    return failure(Errc::kUnsupported, fmt::format("{}: no rule is known for this file", path));
  Explanation e = from_outcome(outcome);
  e.text += offline_note(tree, e.reason);
  if (e.text.empty()) {
    CpuSet now = from_mask(copy.model.effective_cpus(copy.inside(group)));
    e.text = fmt::format("works: {} then has CPUs {}", group, to_list(now));
  }
  add_surroundings(fs, tree, group, path, &e);
  return e;
}

Expected<Explanation> explain_attach(const FsRoot& fs, const TreeModel& tree,
                                     const std::string& group, pid_t pid) {
  std::string inside = tree.inside(group);
  if (inside.empty())
    return failure(Errc::kNotFound, fmt::format("{} is not below {}", group, tree.hierarchy.mount));
  TreeModel copy = tree;
  std::optional<ThreadStat> stat = thread_stat(fs, pid, pid);
  if (stat && (stat->flags & kPfNoSetAffinity) != 0) adopt_again(fs, &copy, pid);
  Explanation e =
      from_outcome(stat ? copy.model.attach_process(inside, pid)
                        : model::Outcome{ESRCH, {model::Why::kNoTask, {}, {}, {}, pid, {}}});
  if (e.text.empty())
    e.text = fmt::format("works: process {} then runs on CPUs {}", pid,
                         to_list(from_mask(copy.model.cpus_mask(pid))));
  std::string from = group_of(fs, tree.hierarchy, pid).value_or("");
  if (std::string owner = owner_of(fs, tree.hierarchy, from); !owner.empty() && from != group) {
    e.text += fmt::format("; {} manages its present group {}", owner, from);
  }
  add_surroundings(fs, tree, group, procs_file(group), &e);
  return e;
}

Expected<Explanation> explain_affinity(const FsRoot& fs, const TreeModel& tree, pid_t pid,
                                       const CpuSet& cpus) {
  std::optional<ThreadStat> stat = thread_stat(fs, pid, pid);
  if (!stat) return failure(Errc::kNotFound, fmt::format("there is no process {}", pid), ESRCH);
  TreeModel copy = tree;
  adopt_again(fs, &copy, pid);
  Explanation e = from_outcome(copy.model.set_affinity(pid, to_mask(cpus), caller_here()));
  CpuSet then = from_mask(copy.model.legal_cpus(pid));
  if (e.text.empty())
    e.text = fmt::format("works: process {} then runs on CPUs {}", pid, to_list(then));
  if (e.os_errno == 0)
    e.text += "; the process may set it back, and threads it has already are not included";
  return e;
}

}  // namespace allot::cpus
