// allot cpus explain: why a change to a cpuset or a mask fails or does not do what the user wants.
#include <nlohmann/json.hpp>

#include "cli/cpus/cmd_cpus.h"
#include "cli/failure.h"
#include "cli/output.h"
#include "cpus/explain.h"

namespace allot::cli {
namespace {

struct CpusExplainOptions {
  std::string file, text, group, list, machine;
  pid_t pid = 0;
  bool as_json = false;
};

void finish(const cpus::Expected<cpus::Explanation>& e, const CpusExplainOptions& options,
            int* exit_status) {
  if (!e) throw_failure(e.error());
  if (e->os_errno != 0) *exit_status = kExitProblems;
  if (options.as_json) {
    print_json({{"errno", e->os_errno},
                {"errno_name", cpus::errno_name(e->os_errno)},
                {"effective", e->effective},
                {"cause", e->cause},
                {"group", e->reason.group},
                {"cpus", e->reason.cpus.list()},
                {"mems", e->reason.mems.list()},
                {"text", e->text}});
    return;
  }
  print(
      fmt::format("{}{}\n", e->os_errno == 0 ? "" : cpus::errno_name(e->os_errno) + ": ", e->text));
}

cpus::TreeModel tree_or_throw(const MachineView& m) {
  std::string why_not;
  std::optional<cpus::TreeModel> tree = read_tree(m, &why_not);
  if (!tree) refuse("explain: {}", why_not);
  return *tree;
}

}  // namespace

void add_cpus_explain(CLI::App& cpus, int* exit_status) {
  auto options = std::make_shared<CpusExplainOptions>();
  CLI::App* app =
      cpus.add_subcommand("explain", "why a change fails or does not take effect; changes nothing");
  app->require_subcommand(1);
  app->add_option("--machine", options->machine, "a captured machine instead of this one")
      ->type_name("DIR");
  app->add_flag("--json", options->as_json, "print JSON");

  app->footer(
      "Examples:\n"
      "  allot cpus explain write /sys/fs/cgroup/cpuset/a/cpuset.cpus 0-3\n"
      "  allot cpus explain attach /sys/fs/cgroup/cpuset/a 4711\n"
      "  allot cpus explain affinity 4711 0-3");
  CLI::App* write = app->add_subcommand("write", "a write to a file of a cpuset group");
  write->add_option("file", options->file, "as in /sys/fs/cgroup/cpuset/a/cpuset.cpus")
      ->required()
      ->type_name("FILE");
  write->add_option("text", options->text, "what is written; \"\" for the empty set")->required();
  write->callback([options, exit_status] {
    MachineView m = read_machine(options->machine);
    finish(cpus::explain_write(m.fs, tree_or_throw(m), options->file, options->text), *options,
           exit_status);
  });
  CLI::App* attach = app->add_subcommand("attach", "moving a process into a group");
  attach->add_option("group", options->group, "its folder")->required()->type_name("GROUP");
  attach->add_option("pid", options->pid, "the process")->required()->type_name("PID");
  attach->callback([options, exit_status] {
    MachineView m = read_machine(options->machine);
    finish(cpus::explain_attach(m.fs, tree_or_throw(m), options->group, options->pid), *options,
           exit_status);
  });
  CLI::App* affinity = app->add_subcommand("affinity", "setting the mask of a process");
  affinity->add_option("pid", options->pid, "the process")->required()->type_name("PID");
  affinity->add_option("cpus", options->list, "as in 0-3,8")->required()->type_name("LIST");
  affinity->callback([options, exit_status] {
    MachineView m = read_machine(options->machine);
    const Result<cpus::CpuSet> set = cpus::parse_list(options->list);
    if (!set) wrong_usage("explain: '{}' is not a list of CPUs", options->list);
    finish(cpus::explain_affinity(m.fs, tree_or_throw(m), options->pid, *set), *options,
           exit_status);
  });
}

}  // namespace allot::cli
