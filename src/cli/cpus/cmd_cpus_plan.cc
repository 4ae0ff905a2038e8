// allot cpus plan: which slice would get which CPUs, and what each write would do; changes nothing.
#include <nlohmann/json.hpp>

#include "cli/cpus/cmd_cpus.h"
#include "cli/failure.h"
#include "cli/output.h"
#include "cli/slice_spec.h"
#include "cpus/plan_report.h"

namespace allot::cli {
namespace {

using nlohmann::json;

struct CpusPlanOptions {
  CpuFlags flags;
  std::vector<std::string> slices;
  std::string machine, svg;
  bool as_json = false;
};

// "alice=8", "bob=4,gpu=1,cores,exclusive", "carol=0-3:mems=auto": name, CPUs, then words after
// ':'.
cpus::PlacementRequest parse_slice(const std::string& text) {
  size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    wrong_usage("--slice {}: write NAME=CPUS, as in alice=8 or alice=8:gpu=1:exclusive",
                shown(text));
  }
  check_name("--slice", text.substr(0, equals));
  CpuFlags flags;
  std::string_view rest = std::string_view(text).substr(equals + 1);
  for (bool first = true; first || !rest.empty(); first = false) {
    size_t end = std::min(rest.find(':'), rest.size());
    std::string_view word = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (first) {
      flags.cpus = word;
    } else if (word == "cores") {
      flags.cores = true;
    } else if (word == "threads") {
      flags.threads = true;
    } else if (word == "exclusive") {
      flags.exclusive = true;
    } else if (word.starts_with("mems=") && word.size() > 5) {
      flags.mems = word.substr(5);
    } else if (word.starts_with("gpu=") && is_whole_number(word.substr(4))) {
      flags.gpu = std::stoi(std::string(word.substr(4)));
    } else {
      wrong_usage("--slice {}: '{}' is not one of gpu=N, mems=LIST, cores, threads, exclusive",
                  shown(text), shown(std::string(word)));
    }
  }
  if (flags.cpus.empty())
    wrong_usage("--slice {}: no CPUs; write a number or a list after '=', as in alice=8", text);
  cpus::PlacementRequest request = placement_request(flags, text.substr(0, equals));
  request.option = "--slice " + text.substr(0, equals + 1);
  return request;
}

json to_json(const cpus::MachinePlan& plan) {
  json out{{"slices", json::array()}, {"cost", plan.cost}};
  for (const cpus::SlicePlan& t : plan.slices) {
    json steps = json::array();
    for (const cpus::PlannedStep& s : t.steps) {
      const char* op = s.step.op == cpus::Step::Op::kMkdir   ? "mkdir"
                       : s.step.op == cpus::Step::Op::kRmdir ? "rmdir"
                                                             : "write";
      steps.push_back({{"op", op},
                       {"path", s.step.path},
                       {"text", s.step.text},
                       {"errno", s.os_errno},
                       {"errno_name", cpus::errno_name(s.os_errno)},
                       {"why", s.why}});
    }
    out["slices"].push_back(
        {{"name", t.name},
         {"cpus", to_list(t.cpus)},
         {"idle", to_list(t.blocked)},
         {"mems", to_list(t.mems)},
         {"memory", t.memory},
         {"effective", to_list(t.effective)},
         {"level", level_name(t.level)},
         {"reason", t.reason},
         {"group", t.group},
         {"expected_cpus", t.expected_cpus < 0 ? json(nullptr) : json(t.expected_cpus)},
         {"steps", steps},
         {"notes", t.notes}});
  }
  return out;
}

std::string to_text(const cpus::MachinePlan& plan) {
  Table table({"SLICE", "CPUS", "MEMORY", "EXPECTED", "LEVEL"});
  for (const cpus::SlicePlan& t : plan.slices) {
    std::string expected =
        t.expected_cpus < 0 ? "unknown" : fmt::format("{:.1f} CPUs", t.expected_cpus);
    std::string level(level_name(t.level));
    if (!t.reason.empty()) level += ": " + t.reason;
    table.row({harmless(t.name), to_list(t.cpus), t.memory.empty() ? "any" : t.memory.substr(7),
               expected, level});
    if (!t.blocked.empty())
      table.note(fmt::format("  CPU {} of the same cores stays idle", to_list(t.blocked)));
    for (const std::string& note : t.notes) table.note("  " + note);
  }
  std::string text = table.text() + "\n";
  for (const cpus::SlicePlan& t : plan.slices) {
    for (const cpus::PlannedStep& s : t.steps) {
      std::string line = s.step.op == cpus::Step::Op::kMkdir
                             ? fmt::format("mkdir {}", s.step.path)
                             : fmt::format("echo {} > {}", s.step.text, s.step.path);
      text +=
          line +
          (s.os_errno == 0 ? "" : fmt::format("   # {}: {}", cpus::errno_name(s.os_errno), s.why)) +
          "\n";
    }
  }
  return text;
}

// The machine as it would be with the planned slices beside those that are held.
MachineView with_plan(const MachineView& machine, const cpus::MachinePlan& plan) {
  MachineView view = machine;
  for (const cpus::SlicePlan& slice : plan.slices) {
    cpus::Lease lease;
    lease.name = slice.name;
    lease.cpus = slice.cpus;
    lease.blocked = slice.blocked;
    view.leases.push_back(lease);
  }
  return view;
}

void plan(const CpusPlanOptions& options) {
  std::vector<cpus::PlacementRequest> requests;
  for (const std::string& text : options.slices) requests.push_back(parse_slice(text));
  if (options.flags.wants_cpus()) requests.push_back(placement_request(options.flags, "run"));
  if (requests.empty())
    wrong_usage("plan: nothing to plan; give --cpus N, or --slice NAME=CPUS for each of several");
  MachineView m = read_machine(options.machine);
  std::string why_not;
  std::optional<cpus::TreeModel> tree = read_tree(m, &why_not);
  cpus::Expected<cpus::MachinePlan> made = cpus::make_plan(
      m.fs, m.topology, m.topology.allowed, m.leases, requests, tree ? &*tree : nullptr, why_not);
  if (!made) throw_failure(made.error());
  if (!options.svg.empty()) write_map(with_plan(m, *made), options.svg);
  if (options.as_json) {
    print_json(to_json(*made));
  } else {
    print(to_text(*made));
  }
}

}  // namespace

void add_cpus_plan(CLI::App& cpus, int*) {
  auto options = std::make_shared<CpusPlanOptions>();
  CLI::App* app = cpus.add_subcommand(
      "plan", "show which slice would get which CPUs, every write and the kernel's answer");
  add_cpu_flags(*app, &options->flags);
  app->add_option("--slice", options->slices,
                  "NAME=CPUS[:gpu=N][:mems=LIST][:cores|threads][:exclusive]; once for each")
      ->type_name("SLICE")
      ->expected(1)
      ->take_all();
  app->add_option("--machine", options->machine, "a captured machine instead of this one")
      ->type_name("DIR");
  app->add_option("--svg", options->svg, "draw the machine with these slices into this file")
      ->type_name("FILE");
  app->add_flag("--json", options->as_json, "print JSON");
  app->footer(
      "Examples:\n"
      "  allot cpus plan --cpus 4\n"
      "  allot cpus plan --slice alice=8 --slice bob=4:gpu=1:exclusive");
  app->callback([options] { plan(*options); });
}

}  // namespace allot::cli
