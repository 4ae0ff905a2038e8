// allot cpus show: the map of the machine's CPUs and GPUs, and the leases on its CPUs.
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/cpus/cmd_cpus.h"
#include "cli/cpus/cpu_map.h"
#include "cli/failure.h"
#include "cli/output.h"

namespace allot::cli {
namespace {

using nlohmann::json;

struct CpusShowOptions {
  std::string machine, svg;
  bool as_json = false;
};

json known(int number) {
  return number < 0 ? json(nullptr) : json(number);
}

std::string fence_of(const cpus::Hierarchy& h) {
  const char* kind = h.kind == cpus::CpusetKind::kV1   ? "cpuset v1"
                     : h.kind == cpus::CpusetKind::kV2 ? "cpuset v2"
                                                       : "none";
  if (!h.base.empty()) return fmt::format("{}, groups in {}: slices are enforced", kind, h.base);
  return fmt::format("{}: slices are only advised: {}", kind, h.why_not);
}

json to_json(const MachineView& m) {
  const cpus::Topology& t = m.topology;
  json out{{"online", to_list(t.online)},   {"offline", to_list(t.offline())},
           {"allowed", to_list(t.allowed)}, {"isolated", to_list(t.isolated)},
           {"domains", json::array()},      {"nodes", json::array()},
           {"cores", json::array()},        {"gpus", json::array()},
           {"leases", json::array()}};
  for (const cpus::Core& c : t.cores) {
    out["cores"].push_back(
        {{"cpus", to_list(c.threads)}, {"domain", c.domain}, {"node", known(c.node)}});
  }
  out["cpus"] = json::array();
  for (const cpus::Cpu& c : t.cpus) {
    if (c.id < 0) continue;
    json slices = json::array();
    for (const cpus::Lease& l : m.leases) {
      if (l.cpus.has(c.id)) slices.push_back(l.name);
    }
    out["cpus"].push_back({{"cpu", c.id},
                           {"online", c.online},
                           {"package", known(c.package)},
                           {"node", known(c.node)},
                           {"domain", known(c.domain)},
                           {"core", known(c.core)},
                           {"slices", slices}});
  }
  for (const cpus::Domain& d : t.domains) {
    out["domains"].push_back({{"cpus", to_list(d.cpus)},
                              {"cache_bytes", d.cache_bytes},
                              {"package", known(d.package)},
                              {"node", known(d.node)}});
  }
  for (const cpus::Node& n : t.nodes) {
    out["nodes"].push_back(
        {{"node", n.id}, {"cpus", to_list(n.cpus)}, {"memory_bytes", n.memory_bytes}});
  }
  for (const cpus::Gpu& g : t.gpus) {
    out["gpus"].push_back({{"gpu", g.index},
                           {"bus", g.bdf},
                           {"node", known(g.node)},
                           {"cpus", g.node < 0 ? json(nullptr) : json(to_list(g.local))}});
  }
  for (const cpus::Lease& l : m.leases) {
    out["leases"].push_back({{"name", l.name},
                             {"cpus", to_list(l.cpus)},
                             {"blocked", to_list(l.blocked)},
                             {"exclusive", l.exclusive},
                             {"pid", l.member.pid},
                             {"group", l.group}});
  }
  out["cpuset"] = {{"usable", !m.hierarchy.base.empty()},
                   {"groups_in", m.hierarchy.base},
                   {"why_not", m.hierarchy.why_not}};
  return out;
}

void show(const CpusShowOptions& options) {
  MachineView m = read_machine(options.machine);
  if (!options.svg.empty()) write_map(m, options.svg);
  if (options.as_json) {
    print_json(to_json(m));
    return;
  }
  std::string text = wrapped(summary(m.topology), screen_width(), 2) + "\n" +
                     wrapped(fence_of(m.hierarchy), screen_width(), 2) + "\n\n";
  const CpuMap map(m.topology, m.leases);
  text += map.text(screen_width());
  if (!m.leases.empty()) {
    Table leases(std::vector<Column>{
        {"", 0, 1}, {"SLICE", 0, 8}, {"PID", 2, 0}, {"KIND", 1, 0}, {"CPUS", 0, 12}});
    for (size_t i = 0; i < m.leases.size(); ++i) {
      const cpus::Lease& l = m.leases[i];
      leases.row({std::string(1, CpuMap::letter(i)), harmless(l.name),
                  l.member.pid == 0 ? "-" : std::to_string(l.member.pid),
                  l.exclusive ? "exclusive" : "shared", to_list(l.cpus)});
    }
    text += "\n" + leases.text(screen_width());
  }
  print(text);
}

}  // namespace

void write_map(const MachineView& machine, const std::string& path) {
  std::ofstream picture(path);
  picture << CpuMap(machine.topology, machine.leases).svg();
  picture.close();
  if (!picture) refuse("cannot write {}", path);
}

void add_cpus_show(CLI::App& cpus, int*) {
  auto options = std::make_shared<CpusShowOptions>();
  CLI::App* app = cpus.add_subcommand(
      "show", "draw the machine's CPUs, caches, nodes and GPUs, and which slice has which CPUs");
  app->add_option("--machine", options->machine,
                  "a captured machine instead of this one: a folder with sys/ and proc/")
      ->type_name("DIR");
  app->add_option("--svg", options->svg, "draw the map into this file")->type_name("FILE");
  app->add_flag("--json", options->as_json, "print JSON");
  app->footer(
      "Examples:\n"
      "  allot cpus show\n"
      "  allot cpus show --svg cpus.svg");
  app->callback([options] { show(*options); });
}

}  // namespace allot::cli
