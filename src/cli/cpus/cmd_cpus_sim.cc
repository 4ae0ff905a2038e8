// allot cpus sim: runs a scenario on the models of cpusets and run queues.
#include <fstream>
#include <sstream>

#include "cli/cpus/cmd_cpus.h"
#include "cli/failure.h"
#include "cli/output.h"
#include "model/scenario.h"

namespace allot::cli {
namespace {

struct CpusSimOptions {
  std::string script, svg;
};

std::string read_whole(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) refuse("sim: cannot read {}", path);
  return text.str();
}

void sim(const CpusSimOptions& options, int* exit_status) {
  std::string error;
  const std::optional<model::Scenario> scenario =
      model::parse_scenario(read_whole(options.script), &error);
  if (!scenario) wrong_usage("sim: {}: {}", options.script, error);
  const model::ScenarioResult result = model::run_scenario(*scenario);
  print(model::scenario_text(result));
  if (result.unknown) *exit_status = kExitProblems;
  if (options.svg.empty()) return;
  std::ofstream chart(options.svg);
  chart << model::scenario_svg(result);
  chart.close();
  if (!chart) refuse("sim: cannot write {}", options.svg);
}

}  // namespace

void add_cpus_sim(CLI::App& cpus, int* exit_status) {
  auto options = std::make_shared<CpusSimOptions>();
  CLI::App* app = cpus.add_subcommand(
      "sim",
      "run a scenario (groups, tasks, pins, hotplug) on the kernel model; see docs/examples");
  app->add_option("script", options->script, "the scenario")->required()->type_name("FILE");
  app->add_option("--svg", options->svg, "draw the queues into this file")->type_name("FILE");
  app->footer(
      "Example:\n"
      "  allot cpus sim scenario.txt --svg queues.svg");
  app->callback([options, exit_status] { sim(*options, exit_status); });
}

}  // namespace allot::cli
