// Groups in the cpuset hierarchy: see cpuset_fs.h. Finding the hierarchy is in cpuset_find.cc.
#include "cpus/cpuset_fs.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <map>

namespace allot::cpus {

std::string Hierarchy::file(std::string_view group, std::string_view name) const {
  return fmt::format("{}/{}{}", group, prefix, name);
}

std::string procs_file(const std::string& group) {
  return group + "/cgroup.procs";
}

Expected<GroupState> read_group(const FsRoot& fs, const Hierarchy& h, const std::string& group) {
  GroupState state;
  state.path = group;
  if (!fs.exists(group)) return failure(Errc::kNotFound, "there is no group " + group, ENOENT);
  auto list = [&](std::string_view name) { return fs.read_list(h.file(group, name)); };
  bool v1 = h.kind == CpusetKind::kV1;
  state.cpus = list("cpus").value_or(CpuSet{});
  state.mems = list("mems").value_or(CpuSet{});
  state.effective_cpus = list(v1 ? "effective_cpus" : "cpus.effective").value_or(state.cpus);
  state.effective_mems = list(v1 ? "effective_mems" : "mems.effective").value_or(state.mems);
  if (v1) {
    state.cpu_exclusive = fs.read_number(h.file(group, "cpu_exclusive")).value_or(0) != 0;
    state.mem_exclusive = fs.read_number(h.file(group, "mem_exclusive")).value_or(0) != 0;
    state.populated = !fs.read_line(group + "/tasks").value_or("").empty();
    for (const std::string& name : state.populated ? std::vector<std::string>{} : fs.list(group)) {
      std::string child = group + "/" + name;
      if (!fs.exists(child + "/tasks")) continue;
      if (Expected<GroupState> below = read_group(fs, h, child); below && below->populated) {
        state.populated = true;
      }
    }
  } else {
    state.partition = fs.read_line(h.file(group, "cpus.partition")).value_or("");
    std::string events = fs.read(group + "/cgroup.events").value_or("");
    state.populated = events.find("populated 1") != std::string::npos;
  }
  return state;
}

int perform(const Step& step) {
  switch (step.op) {
    case Step::Op::kMkdir:
      return mkdir(step.path.c_str(), 0755) == 0 ? 0 : errno;
    case Step::Op::kRmdir:
      return rmdir(step.path.c_str()) == 0 ? 0 : errno;
    case Step::Op::kWrite:
      break;
  }
  int fd = open(step.path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  // A write of no bytes is nothing to the kernel; a line end stands for the empty set.
  std::string text = step.text.empty() ? "\n" : step.text;
  int error = write(fd, text.data(), text.size()) < 0 ? errno : 0;
  close(fd);
  return error;
}

std::vector<pid_t> ids_in(const FsRoot& fs, const std::string& file) {
  std::vector<pid_t> ids;
  std::string text = fs.read(file).value_or("");
  std::string_view rest = text;
  while (!rest.empty()) {
    size_t end = std::min(rest.find('\n'), rest.size());
    pid_t id = 0;
    std::from_chars(rest.data(), rest.data() + end, id);
    if (id > 0) ids.push_back(id);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return ids;
}

std::vector<Step> steps_to_make(const FsRoot& fs, const Hierarchy& h, const GroupSpec& spec) {
  std::vector<Step> steps;
  if (h.kind == CpusetKind::kV2) {
    std::string enabled = fs.read_line(h.base + "/cgroup.subtree_control").value_or("");
    if (enabled.find("cpuset") == std::string::npos) {
      steps.push_back({Step::Op::kWrite, h.base + "/cgroup.subtree_control", "+cpuset"});
    }
  }
  steps.push_back({Step::Op::kMkdir, spec.path, ""});
  // Both before the first task: version 1 refuses tasks otherwise (ENOSPC), version 2 would migrate
  // the pages of tasks that are already there.
  if (!spec.mems.empty())
    steps.push_back({Step::Op::kWrite, h.file(spec.path, "mems"), to_list(spec.mems)});
  steps.push_back({Step::Op::kWrite, h.file(spec.path, "cpus"), to_list(spec.cpus)});
  if (spec.migrate && h.kind == CpusetKind::kV1)
    steps.push_back({Step::Op::kWrite, h.file(spec.path, "memory_migrate"), "1"});
  if (spec.exclusive && h.kind == CpusetKind::kV1) {
    steps.push_back({Step::Op::kWrite, h.file(spec.path, "cpu_exclusive"), "1"});
  }
  return steps;
}

namespace {

// The masks of all threads below a group that are narrower than what the machine has online.
void collect_masks(const FsRoot& fs, const std::string& group, std::map<pid_t, CpuSet>* masks) {
  CpuSet online = fs.read_list("/sys/devices/system/cpu/online").value_or(CpuSet{});
  for (const std::string& name : fs.list(group)) {
    std::string child = group + "/" + name;
    if (!fs.exists(child + "/cgroup.procs")) continue;
    for (pid_t tid : ids_in(fs, child + "/cgroup.threads")) {
      CpuSet mask;
      if (get_affinity(tid, &mask) == 0 && !mask.empty() && mask != online) (*masks)[tid] = mask;
    }
    collect_masks(fs, child, masks);
  }
}

// Puts back those that differ now. Returns how many.
int restore_masks(const std::map<pid_t, CpuSet>& masks) {
  int count = 0;
  for (const auto& [tid, mask] : masks) {
    CpuSet now;
    if (get_affinity(tid, &now) == 0 && now != mask && set_affinity(tid, mask) == 0) ++count;
  }
  return count;
}

// Version 1 refuses CPUs (EINVAL) that a sibling has for itself: which one; empty when none is it.
std::string exclusive_sibling(const FsRoot& fs, const Hierarchy& h, const GroupSpec& spec) {
  const std::string above = spec.path.substr(0, spec.path.rfind('/'));
  for (const std::string& name : fs.list(above)) {
    const std::string path = above + "/" + name;
    if (path == spec.path || !fs.exists(procs_file(path))) continue;
    Expected<GroupState> state = read_group(fs, h, path);
    if (!state || !state->cpu_exclusive || !state->cpus.overlaps(spec.cpus)) continue;
    return fmt::format("CPU {} belongs to the exclusive cpuset {}",
                       to_list(state->cpus & spec.cpus), path);
  }
  return "";
}

}  // namespace

std::string others_may_run(const CpuSet& cpus) {
  return fmt::format(
      "programs outside allot's slices may still run on CPUs {}; 'allot cpus watch "
      "--move-strangers' keeps them off",
      to_list(cpus));
}

std::string make_partition(const FsRoot& fs, const Hierarchy& h, const GroupSpec& spec) {
  std::string file = h.file(spec.path, "cpus.partition");
  std::string wanted = spec.isolated ? "isolated" : "root";
  int error = perform({Step::Op::kWrite, file, wanted});
  std::string state = fs.read_line(file).value_or("");
  if (error == 0 && state == wanted) return "";
  if (error == 0) perform({Step::Op::kWrite, file, "member"});
  std::string why = error != 0 ? std::strerror(error)
                    : state.find('(') == std::string::npos
                        ? state
                        : std::string(trim(state.substr(state.find('('))));
  return fmt::format("no partition ({}): {}", trim(why), others_may_run(spec.cpus));
}

Expected<GroupState> make_group(const FsRoot& fs, const Hierarchy& h, const GroupSpec& spec,
                                std::string* note) {
  bool made = false;
  auto undo = [&] {
    if (made) remove_group(h, spec.path, 0);
  };
  auto add_note = [&](const std::string& text) {
    if (note == nullptr || text.empty()) return;
    *note += (note->empty() ? "" : "; ") + text;
  };
  for (const Step& step : steps_to_make(fs, h, spec)) {
    bool enables = step.path.ends_with("/cgroup.subtree_control");
    std::map<pid_t, CpuSet> masks;
    if (enables) collect_masks(fs, h.base, &masks);
    int error = perform(step);
    if (enables && error == 0) {
      if (int n = restore_masks(masks); n > 0)
        add_note(fmt::format(
            "enabling cpuset in {} reset the masks of {} threads, which were put back", h.base, n));
    }
    if (error == 0) {
      made = made || step.op == Step::Op::kMkdir;
      continue;
    }
    bool flag = step.path.ends_with("cpu_exclusive");
    std::string text =
        step.op == Step::Op::kMkdir
            ? fmt::format("cannot make the group {}: {}", step.path, std::strerror(error))
            : fmt::format("cannot write \"{}\" to {}: {}", step.text, step.path,
                          std::strerror(error));
    if (flag) {
      add_note("other cpusets may still overlap: " + text);
      continue;
    }
    if (error == EINVAL && h.kind == CpusetKind::kV1) {
      if (std::string sibling = exclusive_sibling(fs, h, spec); !sibling.empty()) text = sibling;
    }
    undo();
    Errc code =
        error == EACCES || error == EPERM || error == EROFS ? Errc::kNoPermission : Errc::kSystem;
    return failure(code, text, error);
  }
  Expected<GroupState> state = read_group(fs, h, spec.path);
  if (!state || state->effective_cpus != spec.cpus) {
    std::string granted = state ? to_list(state->effective_cpus) : "nothing";
    undo();
    return failure(Errc::kUnsupported,
                   fmt::format("asked for CPUs {} and the kernel granted {} in {}",
                               to_list(spec.cpus), granted, spec.path));
  }
  if (spec.exclusive && h.kind == CpusetKind::kV2) add_note(make_partition(fs, h, spec));
  if (spec.exclusive && h.kind == CpusetKind::kV1) add_note(others_may_run(spec.cpus));
  return state;
}

int remove_group(const Hierarchy&, const std::string& group, int wait_ms) {
  using Clock = std::chrono::steady_clock;
  Clock::time_point end = Clock::now() + std::chrono::milliseconds(wait_ms);
  while (true) {
    int error = rmdir(group.c_str()) == 0 ? 0 : errno;
    if (error != EBUSY || Clock::now() >= end) return error == ENOENT ? 0 : error;
    poll(nullptr, 0, 1);  // the kernel empties the group shortly after its last task was reaped
  }
}

std::string group_name(std::string_view name, const ProcessId& launcher) {
  std::string clean;
  for (char c : name.substr(0, 64)) {
    clean += std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' ? c : '_';
  }
  return fmt::format("allot-{}.{}.{}", clean, launcher.pid, launcher.start_ticks);
}

std::optional<ProcessId> launcher_in_name(std::string_view name) {
  size_t second = name.rfind('.');
  if (name.substr(0, 6) != "allot-" || second == std::string_view::npos || second == 0)
    return std::nullopt;
  size_t first = name.rfind('.', second - 1);
  if (first == std::string_view::npos) return std::nullopt;
  auto number = [](std::string_view text, auto* out) {
    auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), *out);
    return ec == std::errc{} && end == text.data() + text.size();
  };
  ProcessId id;
  if (!number(name.substr(first + 1, second - first - 1), &id.pid)) return std::nullopt;
  if (!number(name.substr(second + 1), &id.start_ticks)) return std::nullopt;
  return id;
}

namespace {

// Below first: a slice that was made inside another one is in the way of the outer group's end.
void sweep_below(const FsRoot& fs, const std::string& group, std::vector<std::string>* removed) {
  for (const std::string& name : fs.list(group)) {
    std::optional<ProcessId> launcher = launcher_in_name(name);
    if (!launcher) continue;
    sweep_below(fs, group + "/" + name, removed);
    // rmdir refuses a group with tasks: no look before it is needed, and none would be safe.
    if (!alive(fs, *launcher) && rmdir(fs.path(group + "/" + name).c_str()) == 0)
      removed->push_back(name);
  }
}

}  // namespace

std::vector<std::string> sweep(const FsRoot& fs, const Hierarchy& h) {
  std::vector<std::string> removed;
  if (!h.base.empty()) sweep_below(fs, h.base, &removed);
  return removed;
}

std::vector<std::string> groups_below(const FsRoot& fs, const std::string& group) {
  std::vector<std::string> below;
  for (const std::string& name : fs.list(group)) {
    if (fs.exists(procs_file(group + "/" + name))) below.push_back(group + "/" + name);
  }
  return below;
}

int enter_group(const char* procs, pid_t pid) {
  int fd = open(procs, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  char text[16];
  auto [end, ec] = std::to_chars(text, text + sizeof text, pid);
  int error = write(fd, text, static_cast<size_t>(end - text)) < 0 ? errno : 0;
  close(fd);
  return error;
}

}  // namespace allot::cpus
