// Loading the cpuset tree into the model: see tree_model.h.
#include "cpus/tree_model.h"

#include <fmt/format.h>

#include <charconv>
#include <cstring>

namespace allot::cpus {
namespace {

void adopt_tasks(const FsRoot& fs, const std::string& absolute, const std::string& inside, bool v1,
                 model::Cpusets* m) {
  // In a threaded v2 group cgroup.procs cannot be read, cgroup.threads can.
  std::string text = fs.read(absolute + (v1 ? "/tasks" : "/cgroup.threads")).value_or("");
  std::string_view rest = text;
  while (!rest.empty()) {
    size_t end = std::min(rest.find('\n'), rest.size());
    model::TaskInit task;
    std::from_chars(rest.data(), rest.data() + end, task.tid);
    task.group = inside;
    if (task.tid > 0) m->adopt_task(task);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
}

struct Loaded {
  model::Cpusets* m;
  std::string partition;  // the first group that is one
};

void adopt_groups(const FsRoot& fs, const Hierarchy& h, const std::string& absolute,
                  const std::string& inside, Loaded* out) {
  bool v1 = h.kind == CpusetKind::kV1;
  if (inside == "/" && !v1) {
    model::GroupInit root;
    root.path = "/";
    if (std::optional<CpuSet> now = fs.read_list(h.file(absolute, "cpus.effective")))
      root.effective_cpus = to_mask(*now);
    out->m->adopt_group(root);
  }
  if (inside != "/") {
    model::GroupInit init;
    init.path = inside;
    auto flag = [&](const char* name, bool otherwise) {
      std::optional<long long> value = fs.read_number(h.file(absolute, name));
      return value ? *value != 0 : otherwise;
    };
    init.cpus = to_mask(fs.read_list(h.file(absolute, "cpus")).value_or(CpuSet{}));
    init.mems = to_mask(fs.read_list(h.file(absolute, "mems")).value_or(CpuSet{}));
    if (v1) {
      init.cpu_exclusive = flag("cpu_exclusive", false);
      init.mem_exclusive = flag("mem_exclusive", false);
      init.mem_hardwall = flag("mem_hardwall", false);
      init.sched_load_balance = flag("sched_load_balance", true);
      init.memory_migrate = flag("memory_migrate", false);
      init.spread_page = flag("memory_spread_page", false);
      init.spread_slab = flag("memory_spread_slab", false);
      init.clone_children = fs.read_number(absolute + "/cgroup.clone_children").value_or(0) != 0;
      init.relax_domain_level =
          fs.read_number(h.file(absolute, "sched_relax_domain_level")).value_or(-1);
    } else {
      init.cpuset_controller = fs.exists(h.file(absolute, "cpus"));
      init.threaded = fs.read_line(absolute + "/cgroup.type").value_or("") == "threaded";
      init.partition = fs.read_line(h.file(absolute, "cpus.partition")).value_or("member");
      init.exclusive_cpus =
          to_mask(fs.read_list(h.file(absolute, "cpus.exclusive")).value_or(CpuSet{}));
      init.effective_xcpus =
          to_mask(fs.read_list(h.file(absolute, "cpus.exclusive.effective")).value_or(CpuSet{}));
      if (std::optional<CpuSet> now = fs.read_list(h.file(absolute, "cpus.effective")))
        init.effective_cpus = to_mask(*now);
      if (init.partition != "member" && out->partition.empty()) out->partition = absolute;
    }
    if (!out->m->adopt_group(init)) return;
  }
  adopt_tasks(fs, absolute, inside, v1, out->m);
  for (const std::string& name : fs.list(absolute)) {
    std::string child = absolute + "/" + name;
    if (!fs.exists(child + "/cgroup.procs")) continue;
    adopt_groups(fs, h, child, inside == "/" ? "/" + name : inside + "/" + name, out);
  }
}

model::Machine machine_of(const Topology& t) {
  model::Machine machine;
  machine.possible_cpus = to_mask(t.possible);
  machine.online_cpus = to_mask(t.online);
  machine.nr_cpu_ids = t.possible.last() + 1;
  CpuSet nodes, with_memory;
  for (const Node& node : t.nodes) {
    nodes.add(node.id);
    if (node.has_memory) with_memory.add(node.id);
  }
  if (!nodes.empty()) machine.possible_nodes = to_mask(nodes);
  if (!with_memory.empty()) machine.memory_nodes = to_mask(with_memory);
  return machine;
}

}  // namespace

model::Era era_of(const std::string& release) {
  int major = 0, minor = 0;
  const char* end = release.data() + release.size();
  auto [at, ec] = std::from_chars(release.data(), end, major);
  if (ec == std::errc{} && at < end) std::from_chars(at + 1, end, minor);
  return major > 6 || (major == 6 && minor >= 2) ? model::Era::k6_12 : model::Era::k6_1;
}

bool partitions_known(const std::string& release) {
  return release.starts_with("6.1.") || release.starts_with("6.12.");
}

std::string TreeModel::inside(const std::string& absolute) const {
  if (absolute == hierarchy.mount) return "/";
  if (!absolute.starts_with(hierarchy.mount + "/")) return "";
  return absolute.substr(hierarchy.mount.size());
}

std::string TreeModel::absolute(const std::string& inside) const {
  return inside == "/" ? hierarchy.mount : hierarchy.mount + inside;
}

Expected<TreeModel> load_tree(const FsRoot& fs, const Topology& topology, const Hierarchy& h) {
  if (h.kind == CpusetKind::kNone) return failure(Errc::kUnsupported, h.why_not);
  std::string kernel = fs.read_line("/proc/sys/kernel/osrelease").value_or("");
  model::Hierarchy kind = h.kind == CpusetKind::kV2 ? model::Hierarchy::kV2
                          : h.v2_mode               ? model::Hierarchy::kV1V2Mode
                                                    : model::Hierarchy::kV1;
  TreeModel tree{h, model::Cpusets(machine_of(topology), era_of(kernel), kind), kernel};
  Loaded loaded{&tree.model, ""};
  adopt_groups(fs, h, h.mount, "/", &loaded);
  if (!loaded.partition.empty() && !partitions_known(kernel)) {
    return failure(Errc::kUnsupported,
                   fmt::format("{} is a partition; their rules are known for Linux 6.1 and 6.12, "
                               "this is {}",
                               loaded.partition, kernel));
  }
  return tree;
}

model::Outcome predict(TreeModel* tree, const Step& step) {
  if (step.op == Step::Op::kMkdir) return tree->model.mkdir(tree->inside(step.path));
  if (step.op == Step::Op::kRmdir) return tree->model.rmdir(tree->inside(step.path));
  size_t slash = step.path.rfind('/');
  std::string file = step.path.substr(slash + 1);
  // Mounted with noprefix, the files are called "cpus"; the model knows one name.
  if (tree->hierarchy.prefix.empty() && file.find('.') == std::string::npos && file != "tasks")
    file = "cpuset." + file;
  return tree->model.write(tree->inside(step.path.substr(0, slash)), file,
                           step.text.empty() ? "\n" : step.text);
}

std::string owner_of(const FsRoot& fs, const Hierarchy& h, const std::string& group) {
  if (!group.starts_with(h.mount)) return "";
  std::string_view path = std::string_view(group).substr(h.mount.size());
  auto has = [&path](std::string_view word) { return path.find(word) != std::string_view::npos; };
  if (launcher_in_name(
          path.substr(path.rfind('/') == std::string_view::npos ? 0 : path.rfind('/') + 1)))
    return "";
  if (has("kubepods")) return "kubelet";
  if (has("/docker/") || has("/docker-")) return "Docker";
  if (has("libpod")) return "Podman";
  if (has("/slurm")) return "Slurm";
  if (has("/lxc")) return "LXC";
  if (has("/machine/") || has("machine.slice")) return "libvirt or systemd-machined";
  bool unit = has(".slice") || has(".scope") || has(".service");
  if (unit && fs.exists("/run/systemd/system") && group != h.base) return "systemd";
  return "";
}

std::string errno_name(int error) {
  if (error == 0) return "";
  const char* name = strerrorname_np(error);
  return name != nullptr ? name : fmt::format("errno {}", error);
}

}  // namespace allot::cpus
