// Reading a machine from sysfs: see topology.h.
#include "cpus/topology.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>

#include "cpus/affinity.h"

namespace allot::cpus {
namespace {

constexpr std::string_view kCpuDir = "/sys/devices/system/cpu";
constexpr std::string_view kNodeDir = "/sys/devices/system/node";
constexpr std::string_view kPciDir = "/sys/bus/pci/devices";

// The number at the end of a name such as "cpu12" or "node3"; -1 for "cpufreq" and the like.
int number_after(std::string_view name, std::string_view prefix) {
  if (name.size() <= prefix.size() || name.substr(0, prefix.size()) != prefix) return -1;
  int value = -1;
  auto [end, ec] = std::from_chars(name.data() + prefix.size(), name.data() + name.size(), value);
  return ec == std::errc{} && end == name.data() + name.size() ? value : -1;
}

// "107520K" -> bytes; sysfs writes cache sizes in K, some kernels in M.
uint64_t cache_bytes(std::string_view text) {
  uint64_t value = 0;
  auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc{}) return 0;
  if (end == text.data() + text.size()) return value;
  return value << (*end == 'M' ? 20 : *end == 'G' ? 30 : 10);
}

void read_nodes(const FsRoot& fs, Topology* t) {
  for (const std::string& name : fs.list(kNodeDir)) {
    Node node;
    node.id = number_after(name, "node");
    if (node.id < 0) continue;
    std::string dir = fmt::format("{}/{}", kNodeDir, name);
    node.cpus = fs.read_list(dir + "/cpulist").value_or(CpuSet{});
    if (std::optional<std::string> text = fs.read(dir + "/meminfo")) {
      size_t at = text->find("MemTotal:");
      if (at != std::string::npos) {
        std::string_view rest = trim(std::string_view(*text).substr(at + 9));
        uint64_t kib = 0;
        std::from_chars(rest.data(), rest.data() + rest.size(), kib);
        node.memory_bytes = kib * 1024;
      }
    }
    node.has_memory = node.memory_bytes > 0;
    t->nodes.push_back(node);
  }
  std::sort(t->nodes.begin(), t->nodes.end(),
            [](const Node& a, const Node& b) { return a.id < b.id; });
  t->numa = !t->nodes.empty();
  // The distance file lists the online nodes in order.
  for (Node& node : t->nodes) {
    std::string text = fs.read(fmt::format("{}/node{}/distance", kNodeDir, node.id)).value_or("");
    std::string_view rest = trim(text);
    for (const Node& other : t->nodes) {
      int value = 0;
      auto [end, ec] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
      if (ec != std::errc{}) break;
      node.distance.emplace_back(other.id, value);
      rest = trim(rest.substr(static_cast<size_t>(end - rest.data())));
    }
  }
}

// The CPUs that share the last-level cache with `id`, and its size; without an L3 the die, else the
// package. An L2 shared by a pair of threads is no placement domain.
CpuSet last_level_sharers(const FsRoot& fs, const std::string& dir, uint64_t* bytes) {
  *bytes = 0;
  for (const std::string& index : fs.list(dir + "/cache")) {
    std::string cache = dir + "/cache/" + index;
    if (fs.read_number(cache + "/level").value_or(0) != 3) continue;
    if (std::optional<CpuSet> set = fs.read_list(cache + "/shared_cpu_list");
        set && !set->empty()) {
      *bytes = cache_bytes(fs.read_line(cache + "/size").value_or(""));
      return *set;
    }
  }
  for (const char* file :
       {"/topology/die_cpus_list", "/topology/package_cpus_list", "/topology/core_siblings_list"}) {
    if (std::optional<CpuSet> set = fs.read_list(dir + file); set && !set->empty()) return *set;
  }
  return {};
}

void read_cpu(const FsRoot& fs, int id, Topology* t, std::map<std::string, int>* cores,
              std::map<std::string, int>* domains) {
  std::string dir = fmt::format("{}/cpu{}", kCpuDir, id);
  Cpu& cpu = t->cpus[static_cast<size_t>(id)];
  cpu.id = id;
  cpu.online = t->online.has(id);
  for (const Node& node : t->nodes) {
    if (node.cpus.has(id)) cpu.node = node.id;
  }
  if (!cpu.online) return;
  cpu.package =
      static_cast<int>(fs.read_number(dir + "/topology/physical_package_id").value_or(-1));

  CpuSet siblings =
      fs.read_list(dir + "/topology/core_cpus_list")
          .value_or(fs.read_list(dir + "/topology/thread_siblings_list").value_or(CpuSet{}));
  siblings &= t->online;
  siblings.add(id);
  uint64_t bytes = 0;
  CpuSet sharers = last_level_sharers(fs, dir, &bytes) & t->online;
  if (sharers.empty()) sharers = t->online;
  if (const Node* node = t->node(cpu.node)) sharers &= node->cpus;
  sharers |= siblings;

  auto [domain, new_domain] =
      domains->try_emplace(to_list(sharers), static_cast<int>(t->domains.size()));
  if (new_domain) t->domains.push_back({sharers, bytes, cpu.package, cpu.node});
  cpu.domain = domain->second;
  auto [core, new_core] = cores->try_emplace(to_list(siblings), static_cast<int>(t->cores.size()));
  if (new_core) t->cores.push_back({siblings, cpu.package, cpu.domain, cpu.node});
  cpu.core = core->second;
}

void read_gpus(const FsRoot& fs, Topology* t) {
  for (const std::string& bdf : fs.list(kPciDir)) {
    std::string dir = fmt::format("{}/{}", kPciDir, bdf);
    // NVIDIA (0x10de), display controllers only (class 0x03....): its audio and USB functions share
    // the vendor, and its NVSwitches are bridges.
    if (fs.read_line(dir + "/vendor").value_or("") != "0x10de") continue;
    if (fs.read_line(dir + "/class").value_or("").substr(0, 4) != "0x03") continue;
    Gpu gpu;
    gpu.bdf = bdf;
    gpu.index = static_cast<int>(t->gpus.size());
    gpu.node = static_cast<int>(fs.read_number(dir + "/numa_node").value_or(-1));
    if (gpu.node >= 0) {
      gpu.local = fs.read_list(dir + "/local_cpulist").value_or(CpuSet{});
      if (gpu.local.empty() && t->node(gpu.node) != nullptr) gpu.local = t->node(gpu.node)->cpus;
    }
    t->gpus.push_back(gpu);
  }
}

}  // namespace

const Node* Topology::node(int id) const {
  for (const Node& n : nodes) {
    if (n.id == id) return &n;
  }
  return nullptr;
}

int Topology::distance(int from, int to) const {
  if (from == to) return 10;
  if (const Node* n = node(from)) {
    for (auto [id, value] : n->distance) {
      if (id == to) return value;
    }
  }
  return 20;
}

CpuSet Topology::threads_of_cores_touching(const CpuSet& set) const {
  CpuSet out = set;
  for (const Core& core : cores) {
    if (core.threads.overlaps(set)) out |= core.threads;
  }
  return out;
}

Expected<Topology> read_topology(const FsRoot& fs) {
  Topology t;
  std::optional<CpuSet> online = fs.read_list(std::string(kCpuDir) + "/online");
  if (!online || online->empty()) {
    return failure(Errc::kNotFound, fmt::format("{} has no list of online CPUs",
                                                fs.path(std::string(kCpuDir) + "/online")));
  }
  t.online = *online;
  t.possible = fs.read_list(std::string(kCpuDir) + "/possible").value_or(t.online);
  t.present = fs.read_list(std::string(kCpuDir) + "/present").value_or(t.online) | t.online;
  t.isolated = fs.read_list(std::string(kCpuDir) + "/isolated").value_or(CpuSet{});
  std::string status = fs.read("/proc/self/status").value_or("");
  Result<CpuSet> allowed = parse_list(status_value(status, "Cpus_allowed_list"));
  t.allowed = allowed && !allowed->empty() ? *allowed & t.online : t.online;
  read_nodes(fs, &t);
  Result<CpuSet> mems = parse_list(status_value(status, "Mems_allowed_list"));
  if (mems) t.allowed_mems = *mems;

  t.cpus.resize(static_cast<size_t>(t.present.last()) + 1);
  std::map<std::string, int> cores, domains;
  for (int id = t.present.first(); id >= 0; id = t.present.next(id))
    read_cpu(fs, id, &t, &cores, &domains);
  read_gpus(fs, &t);
  return t;
}

std::string summary(const Topology& t) {
  CpuSet packages;
  for (const Cpu& cpu : t.cpus) packages.add(cpu.package);
  const auto counted = [](size_t count, const char* what) {
    return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
  };
  std::string text = fmt::format(
      "{}, {}, {}, {} ({}), {}, {}", counted(static_cast<size_t>(packages.count()), "package"),
      counted(t.domains.size(), "domain"), counted(t.cores.size(), "core"),
      counted(static_cast<size_t>(t.online.count()), "CPU"), to_list(t.online),
      counted(t.nodes.size(), "node"), counted(t.gpus.size(), "GPU"));
  if (!t.offline().empty()) text += fmt::format(", offline {}", to_list(t.offline()));
  if (!t.isolated.empty()) text += fmt::format(", isolated {}", to_list(t.isolated));
  if (t.allowed != t.online) text += fmt::format(", allowed {}", to_list(t.allowed));
  return text;
}

Expected<CpuSet> cpus_near_gpu(const Topology& t, int index) {
  if (index < 0 || index >= static_cast<int>(t.gpus.size())) {
    return failure(Errc::kNotFound,
                   fmt::format("there is no GPU {}: this machine shows {} GPUs on its PCI bus",
                               index, t.gpus.size()));
  }
  const Gpu& gpu = t.gpus[static_cast<size_t>(index)];
  if (gpu.node < 0) {
    return failure(
        Errc::kUnsupported,
        fmt::format("the place of GPU {} ({}) is unknown: its numa_node is -1", index, gpu.bdf));
  }
  // A node of memory alone has no CPUs; its nearest nodes with CPUs are the local ones.
  CpuSet near = gpu.local & t.online;
  if (near.empty()) {
    int best = 1 << 30;
    for (const Node& node : t.nodes) {
      CpuSet cpus = node.cpus & t.online;
      if (cpus.empty() || t.distance(gpu.node, node.id) > best) continue;
      if (t.distance(gpu.node, node.id) < best) near = {};
      best = t.distance(gpu.node, node.id);
      near |= cpus;
    }
  }
  if (!near.overlaps(t.allowed)) {
    return failure(Errc::kUnsupported,
                   fmt::format("none of the CPUs near GPU {} ({}) is allowed here ({})", index,
                               to_list(near), to_list(t.allowed)));
  }
  return near & t.allowed;
}

Expected<CpuSet> cpus_within_cpuset() {
  // A thread of its own would keep the caller's mask out of it, and wait for its turn on a busy
  // machine: two milliseconds and more of each start.
  CpuSet before, granted;
  int error = get_affinity(0, &before);
  if (error == 0) error = set_affinity(0, CpuSet::range(0, kMaxCpus - 1));
  if (error == 0) {
    error = get_affinity(0, &granted);
    const int back = before.empty() ? 0 : set_affinity(0, before);
    if (error == 0) error = back;
  }
  if (error != 0) {
    return failure(Errc::kSystem,
                   fmt::format("cannot ask for the allowed CPUs: {}", std::strerror(error)), error);
  }
  return granted;
}

}  // namespace allot::cpus
