// allot cpus attach: moves a running process and all its threads.
#include <nlohmann/json.hpp>

#include "cli/cpus/cmd_cpus.h"
#include "cli/failure.h"
#include "cli/output.h"
#include "cpus/attach.h"

namespace allot::cli {
namespace {

struct CpusAttachOptions {
  CpuFlags flags;
  pid_t pid = 0;
  std::string name;
  bool follow = false, no_cpuset = false, as_json = false;
};

void attach(const CpusAttachOptions& options, int* exit_status) {
  if (!options.flags.wants_cpus()) wrong_usage("attach: say which CPUs: --cpus N, a list, or gpu");
  cpus::AttachRequest request;
  request.pid = options.pid;
  request.follow = options.follow;
  request.placement = placement_request(
      options.flags, options.name.empty() ? fmt::format("pid{}", options.pid) : options.name);
  request.placement.use_cpuset = !options.no_cpuset;
  cpus::Expected<cpus::AttachReport> report = cpus::attach(request);
  if (!report) throw_failure(report.error());
  const cpus::Placement& p = report->placement;
  if (report->level == cpus::Level::kNone) *exit_status = kExitProblems;
  if (options.as_json) {
    print_json({{"pid", options.pid},
                {"cpus", to_list(p.cpus)},
                {"mems", to_list(p.mems)},
                {"level", level_name(report->level)},
                {"reason", report->reason},
                {"group", p.group},
                {"processes", report->processes},
                {"threads", report->threads},
                {"ms", report->ms},
                {"notes", p.notes}});
    return;
  }
  for (const std::string& note : p.notes) fmt::print(stderr, "allot: note: {}\n", note);
  std::string where = p.group.empty() ? "" : fmt::format(" (cpuset {})", p.group);
  std::string why = report->reason.empty() ? "" : ": " + report->reason;
  print(fmt::format("process {}, {} threads: CPUs {}: {}{}{}\n", options.pid, report->threads,
                    to_list(p.cpus), level_name(report->level), where, why));
}

}  // namespace

void add_cpus_attach(CLI::App& cpus, int* exit_status) {
  auto options = std::make_shared<CpusAttachOptions>();
  CLI::App* app =
      cpus.add_subcommand("attach", "move a running process with all its threads, none lost");
  app->add_option("pid", options->pid, "the process")
      ->required()
      ->type_name("PID")
      ->check(CLI::PositiveNumber);
  add_cpu_flags(*app, &options->flags);
  app->add_flag("--follow", options->follow, "its descendants too");
  app->add_option("--name", options->name, "name of the slice; default pidPID");
  app->add_flag(
      "--no-cpuset", options->no_cpuset,
      "by affinity alone, even where cpusets can be made; the process is stopped for a moment");
  app->add_flag("--json", options->as_json, "print JSON");
  app->callback([options, exit_status] { attach(*options, exit_status); });
}

}  // namespace allot::cli
