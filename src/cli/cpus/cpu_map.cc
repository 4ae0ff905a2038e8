// Which CPU stands where and who holds it: see cpu_map.h. The picture is in cpu_map_svg.cc.
#include "cli/cpus/cpu_map.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/output.h"
#include "cli/screen.h"

namespace allot::cli {
namespace {

// Text of marks, each with its colour, and how many columns it takes.
struct MapLine {
  std::string text;
  size_t columns = 0;
  void add(const std::string& plain) {
    text += plain;
    columns += columns_of(plain);
  }
  void add(char mark, Colour colour) {
    text += coloured(colour, std::string(1, mark));
    ++columns;
  }
  void pad(size_t to) {
    if (columns < to) add(std::string(to - columns, ' '));
  }
};

Colour colour_of(const CpuState& state) {
  constexpr Colour kCycle[] = {Colour::kGreen, Colour::kYellow, Colour::kBlue, Colour::kMagenta,
                               Colour::kRed};
  if (state.slice >= 0) return kCycle[static_cast<size_t>(state.slice) % std::size(kCycle)];
  return state.mark == '*' ? Colour::kBold : Colour::kPlain;
}

template <typename List, typename Matches>
auto& found_or_added(List& list, Matches matches) {
  auto it = std::find_if(list.begin(), list.end(), matches);
  if (it != list.end()) return *it;
  list.emplace_back();
  return list.back();
}

constexpr size_t kIndent = 4;
constexpr size_t kGap = 3;

// The rows of some cores: one for each thread of a core, with the list of its CPUs before it.
struct MapRows {
  std::vector<std::string> labels;
  size_t label = 0;  // columns of the longest
  size_t cores = 0;
  size_t columns(size_t cell) const { return label + 1 + cell * cores; }
};

MapRows rows_of(const MapDomain& domain, size_t from, size_t count) {
  MapRows rows;
  rows.cores = std::min(count, domain.cores.size() - from);
  for (size_t thread = 0;; ++thread) {
    std::vector<int> cpus;
    for (size_t i = from; i < from + rows.cores; ++i) {
      if (thread < domain.cores[i].size()) cpus.push_back(domain.cores[i][thread]);
    }
    if (cpus.empty()) return rows;
    rows.labels.push_back(short_list(cpus));
    rows.label = std::max(rows.label, rows.labels.back().size());
  }
}

std::vector<MapRows> cut_rows(const MapDomain& domain, size_t per_line) {
  std::vector<MapRows> all;
  for (size_t from = 0; from < domain.cores.size(); from += per_line)
    all.push_back(rows_of(domain, from, per_line));
  return all;
}

size_t widest(const std::vector<MapRows>& all, size_t cell) {
  size_t label = 0, cores = 0;
  for (const MapRows& rows : all) {
    label = std::max(label, rows.label);
    cores = std::max(cores, rows.cores);
  }
  return label + 1 + cell * cores;
}

// As many cores on a line as fit, in whole eights where at least eight do.
size_t cores_per_line(const MapDomain& domain, size_t width, size_t cell) {
  for (size_t n = domain.cores.size(); n > 1; n = n > 8 ? (n - 1) / 8 * 8 : n - 1) {
    if (widest(cut_rows(domain, n), cell) <= width) return n;
  }
  return 1;
}

}  // namespace

std::string short_list(const std::vector<int>& cpus) {
  if (cpus.empty()) return "";
  if (cpus.size() == 1) return std::to_string(cpus[0]);
  const int step = cpus[1] - cpus[0];
  for (size_t i = 1; i < cpus.size(); ++i) {
    if (cpus[i] - cpus[i - 1] != step)
      return fmt::format("{}..{}", *std::min_element(cpus.begin(), cpus.end()),
                         *std::max_element(cpus.begin(), cpus.end()));
  }
  if (step == 1) return fmt::format("{}-{}", cpus.front(), cpus.back());
  if (cpus.size() == 2) return fmt::format("{},{}", cpus[0], cpus[1]);
  return fmt::format("{},{}..{}", cpus[0], cpus[1], cpus.back());
}

CpuMap::CpuMap(const cpus::Topology& topology, const std::vector<cpus::Lease>& leases)
    : topology_(topology), leases_(leases) {
  const auto node_in = [this](int package, int id) -> MapNode& {
    MapPackage& p =
        found_or_added(packages_, [&](const MapPackage& x) { return x.package == package; });
    p.package = package;
    MapNode& n = found_or_added(p.nodes, [&](const MapNode& x) { return x.node == id; });
    n.node = id;
    if (const cpus::Node* node = topology_.node(id)) n.memory_bytes = node->memory_bytes;
    return n;
  };
  for (size_t i = 0; i < topology_.domains.size(); ++i) {
    const cpus::Domain& d = topology_.domains[i];
    MapDomain domain;
    domain.cache_bytes = d.cache_bytes;
    for (const cpus::Core& core : topology_.cores) {
      if (core.domain == static_cast<int>(i)) domain.cores.push_back(core.threads.to_vector());
    }
    std::sort(domain.cores.begin(), domain.cores.end());
    node_in(d.package, d.node).domains.push_back(std::move(domain));
  }
  const auto holder = [this](int id) -> MapNode* {
    for (MapPackage& p : packages_) {
      for (MapNode& n : p.nodes) {
        if (n.node == id) return &n;
      }
    }
    return nullptr;
  };
  for (const cpus::Node& node : topology_.nodes) {
    if (holder(node.id) == nullptr) node_in(-1, node.id);
  }
  for (size_t i = 0; i < topology_.gpus.size(); ++i) {
    MapNode* at = topology_.gpus[i].node < 0 ? nullptr : holder(topology_.gpus[i].node);
    (at == nullptr ? lost_gpus_ : at->gpus).push_back(static_cast<int>(i));
  }
  const auto last_if_unknown = [](int id) { return id < 0 ? cpus::kMaxCpus : id; };
  std::sort(packages_.begin(), packages_.end(), [&](const MapPackage& a, const MapPackage& b) {
    return last_if_unknown(a.package) < last_if_unknown(b.package);
  });
  for (MapPackage& p : packages_) {
    std::sort(p.nodes.begin(), p.nodes.end(),
              [](const MapNode& a, const MapNode& b) { return a.node < b.node; });
  }
}

char CpuMap::letter(size_t slice) {
  constexpr std::string_view kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
  return slice < kLetters.size() ? kLetters[slice] : '+';
}

CpuState CpuMap::state_of(int cpu) const {
  if (!topology_.online.has(cpu)) return {'x', -1};
  int holder = -1, holders = 0;
  bool blocked = false;
  for (size_t i = 0; i < leases_.size(); ++i) {
    blocked |= leases_[i].blocked.has(cpu);
    if (!leases_[i].cpus.has(cpu)) continue;
    holder = static_cast<int>(i);
    ++holders;
  }
  if (holders > 1) return {'*', -1};
  if (holders == 1) return {letter(static_cast<size_t>(holder)), holder};
  if (blocked) return {'=', -1};
  if (!topology_.allowed.has(cpu)) return {'-', -1};
  return {topology_.isolated.has(cpu) ? 'i' : '.', -1};
}

std::vector<std::pair<char, std::string>> CpuMap::legend() const {
  std::vector<std::pair<char, std::string>> all{{'.', "free"},
                                                {'*', "several slices"},
                                                {'=', "kept idle beside a slice"},
                                                {'-', "not allowed here"},
                                                {'i', "isolated at boot"},
                                                {'x', "offline"}};
  std::string used;
  for (int cpu = topology_.present.first(); cpu >= 0; cpu = topology_.present.next(cpu))
    used += state_of(cpu).mark;
  std::erase_if(all, [&](const auto& entry) { return used.find(entry.first) == used.npos; });
  return all;
}

std::string CpuMap::gpu_name(int index) const {
  const cpus::Gpu& gpu = topology_.gpus[static_cast<size_t>(index)];
  return fmt::format("GPU {} {}", gpu.index, harmless(gpu.bdf));
}

std::string CpuMap::heading_of(const MapNode& node) const {
  std::string text = node.node < 0 ? "memory node unknown" : fmt::format("node {}", node.node);
  if (node.memory_bytes > 0) text += ", " + size_text(node.memory_bytes);
  if (node.node >= 0 && node.memory_bytes == 0) text += ", no memory";
  if (node.domains.empty()) return text + ", no CPUs";
  const uint64_t cache = node.domains[0].cache_bytes;
  bool same = std::all_of(node.domains.begin(), node.domains.end(),
                          [&](const MapDomain& d) { return d.cache_bytes == cache; });
  std::string size = cache == 0 ? "unknown size" : size_text(cache);
  if (node.domains.size() == 1) return text + fmt::format(", one L3 cache of {}", size);
  return text + fmt::format(", {} L3 caches{}", node.domains.size(), same ? " of " + size : "");
}

namespace {

// One row for each thread of the domain's cores; two columns a core where that fits, else one.
std::vector<MapLine> block_of(const CpuMap& map, const MapDomain& d, size_t room) {
  const size_t all = widest({rows_of(d, 0, d.cores.size())}, 2);
  const size_t cell = all > room && widest({rows_of(d, 0, d.cores.size())}, 1) <= room ? 1 : 2;
  const size_t per_line = cores_per_line(d, room, cell);
  const std::vector<MapRows> cuts = cut_rows(d, per_line);
  size_t label = 0;
  for (const MapRows& rows : cuts) label = std::max(label, rows.label);
  std::vector<MapLine> lines;
  for (size_t c = 0; c < cuts.size(); ++c) {
    for (size_t thread = 0; thread < cuts[c].labels.size(); ++thread) {
      MapLine line;
      line.add(fmt::format("{:>{}} ", cuts[c].labels[thread], label));
      for (size_t i = 0; i < cuts[c].cores; ++i) {
        const std::vector<int>& core = d.cores[c * per_line + i];
        if (cell == 2) line.add(" ");
        if (thread >= core.size()) {
          line.add(" ");
          continue;
        }
        const CpuState state = map.state_of(core[thread]);
        line.add(state.mark, colour_of(state));
      }
      lines.push_back(std::move(line));
    }
  }
  return lines;
}

// The domains of a node side by side, as many as fit.
std::string blocks_beside(const CpuMap& map, const MapNode& node, size_t width) {
  const size_t room = width > kIndent + 12 ? width - kIndent : 12;
  std::vector<std::vector<MapLine>> blocks;
  size_t block = 0, high = 0;
  for (const MapDomain& domain : node.domains) {
    blocks.push_back(block_of(map, domain, room));
    high = std::max(high, blocks.back().size());
    for (const MapLine& line : blocks.back()) block = std::max(block, line.columns);
  }
  const bool alike = std::all_of(node.domains.begin(), node.domains.end(), [&](const MapDomain& d) {
    return d.cores.size() == node.domains[0].cores.size();
  });
  const size_t beside = std::max<size_t>(1, (room + kGap) / (block + kGap));
  std::string out;
  for (size_t from = 0; from < blocks.size(); from += beside) {
    for (size_t row = 0; row < high; ++row) {
      MapLine line;
      for (size_t b = from; b < std::min(blocks.size(), from + beside); ++b) {
        if (row >= blocks[b].size()) continue;
        // Lists of CPUs end in one column, so that cores stand below each other.
        const size_t shift = alike ? block - blocks[b].front().columns : 0;
        line.pad(kIndent + (b - from) * (block + kGap) + shift);
        line.text += blocks[b][row].text;
        line.columns += blocks[b][row].columns;
      }
      if (line.columns > 0) out += line.text + "\n";
    }
  }
  return out;
}

}  // namespace

std::string CpuMap::text(size_t width) const {
  std::string out;
  const auto say = [&](const std::string& text) { out += wrapped(text, width, 4) + "\n"; };
  for (const MapPackage& p : packages_) {
    if (!out.empty()) out += "\n";
    if (p.package >= 0) say(fmt::format("package {}", p.package));
    for (const MapNode& n : p.nodes) {
      say("  " + heading_of(n));
      std::string gpus;
      for (int i : n.gpus) gpus += (gpus.empty() ? "  " : ", ") + gpu_name(i);
      if (!gpus.empty()) say(gpus);
      out += blocks_beside(*this, n, width);
    }
  }
  for (int i : lost_gpus_) say(gpu_name(i) + ": its place is unknown");
  if (!topology_.offline().empty()) say("offline: CPUs " + to_list(topology_.offline()));
  std::string marks;
  for (const auto& [mark, meaning] : legend()) {
    // A mark and its meaning stay on one line.
    marks += (marks.empty() ? "" : "   ") + fmt::format("{} {}", mark, meaning);
  }
  out += "\n" + wrapped("A column is a core, a row a thread of each.", width, 0) + "\n";
  if (!marks.empty()) out += wrapped(marks, width, 0) + "\n";
  return out;
}

}  // namespace allot::cli
