// allot cpus show: the machine's cache domains, nodes and GPUs, and the leases on its CPUs.
#include <nlohmann/json.hpp>

#include "cli/cpus/cmd_cpus.h"
#include "cli/failure.h"
#include "cli/output.h"

namespace allot::cli {
namespace {

using nlohmann::json;

struct CpusShowOptions {
  std::string machine;
  bool as_json = false;
};

json known(int number) {
  return number < 0 ? json(nullptr) : json(number);
}

std::string place_of(int number) {
  return number < 0 ? "unknown" : std::to_string(number);
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
  if (options.as_json) {
    print_json(to_json(m));
    return;
  }
  std::string text = summary(m.topology) + "\n" + fence_of(m.hierarchy) + "\n\n";
  Table domains({"DOMAIN", "NODE", "CACHE", "CPUS"});
  for (size_t i = 0; i < m.topology.domains.size(); ++i) {
    const cpus::Domain& d = m.topology.domains[i];
    domains.row({std::to_string(i), place_of(d.node),
                 d.cache_bytes == 0 ? "unknown" : size_text(d.cache_bytes), to_list(d.cpus)});
  }
  text += domains.text();
  if (!m.topology.gpus.empty()) {
    Table gpus({"GPU", "BUS", "NODE", "CPUS NEAR IT"});
    for (const cpus::Gpu& g : m.topology.gpus) {
      gpus.row({std::to_string(g.index), g.bdf, place_of(g.node),
                g.node < 0 ? "unknown" : to_list(g.local)});
    }
    text += "\n" + gpus.text();
  }
  if (!m.leases.empty()) {
    Table leases({"SLICE", "PID", "KIND", "CPUS"});
    for (const cpus::Lease& l : m.leases) {
      leases.row({harmless(l.name), l.member.pid == 0 ? "-" : std::to_string(l.member.pid),
                  l.exclusive ? "exclusive" : "shared", to_list(l.cpus)});
    }
    text += "\n" + leases.text();
  }
  print(text);
}

}  // namespace

void add_cpus_show(CLI::App& cpus, int*) {
  auto options = std::make_shared<CpusShowOptions>();
  CLI::App* app = cpus.add_subcommand(
      "show", "the machine's CPUs, caches, nodes and GPUs, and who has which CPUs");
  app->add_option("--machine", options->machine,
                  "a captured machine instead of this one: a folder with sys/ and proc/")
      ->type_name("DIR");
  app->add_flag("--json", options->as_json, "print JSON");
  app->footer(
      "Examples:\n"
      "  allot cpus show\n"
      "  allot cpus show --json");
  app->callback([options] { show(*options); });
}

}  // namespace allot::cli
