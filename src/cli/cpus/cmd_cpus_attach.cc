// allot cpus attach, set, detach: moves a running process with all its threads, moves it again, or
// ends its placement.
#include <nlohmann/json.hpp>

#include "cli/cpus/cmd_cpus.h"
#include "cli/failure.h"
#include "cli/output.h"
#include "cli/slice_spec.h"
#include "cli/usage.h"
#include "cpus/attach.h"

namespace allot::cli {
namespace {

struct CpusAttachOptions {
  CpuFlags flags;
  std::string target;  // a process; for set and detach also a slice
  std::string name;
  bool follow = false, no_cpuset = false, as_json = false;
  CLI::Option* name_given = nullptr;
};

void print_report(const cpus::AttachReport& report, pid_t pid, bool as_json, int* exit_status) {
  const cpus::Placement& p = report.placement;
  if (report.level == cpus::Level::kNone) *exit_status = kExitProblems;
  if (as_json) {
    print_json({{"pid", pid},
                {"name", p.lease.name},
                {"cpus", to_list(p.cpus)},
                {"granted", to_list(report.granted)},
                {"mems", to_list(p.mems)},
                {"level", level_name(report.level)},
                {"reason", report.reason},
                {"group", p.group},
                {"processes", report.processes},
                {"threads", report.threads},
                {"ms", report.ms},
                {"notes", p.notes}});
    return;
  }
  for (const std::string& note : p.notes) fmt::print(stderr, "allot: note: {}\n", note);
  std::string where = p.group.empty() ? "" : fmt::format(" (cpuset {})", p.group);
  std::string why = report.reason.empty() ? "" : ": " + report.reason;
  print(fmt::format("process {}, {} thread{}: CPUs {}: {}{}{}\n", pid, report.threads,
                    report.threads == 1 ? "" : "s", to_list(report.granted),
                    level_name(report.level), where, why));
}

pid_t as_pid(const std::string& text) {
  const pid_t pid = is_whole_number(text) ? std::stoi(text) : 0;
  if (pid <= 0) wrong_usage("'{}' is not a process number", shown(text));
  return pid;
}

// A policy is the process's own: nobody else can set it, only move its pages and fence it in.
void require_bind(const char* command, const cpus::PlacementRequest& request) {
  if (request.policy == cpus::MemoryPolicy::kNone || request.policy == cpus::MemoryPolicy::kBind)
    return;
  wrong_usage("{}: a running process sets its memory policy itself: use --mems here, or run",
              command);
}

void attach(const CpusAttachOptions& options, int* exit_status) {
  const pid_t pid = as_pid(options.target);
  if (options.name_given != nullptr && options.name_given->count() > 0)
    check_name("--name", options.name);
  if (!options.flags.wants_cpus()) wrong_usage("attach: give the CPUs: --cpus N, a list, or gpu");
  cpus::AttachRequest request;
  request.pid = pid;
  request.follow = options.follow;
  request.placement = placement_request(
      options.flags, options.name.empty() ? fmt::format("pid{}", pid) : options.name);
  request.placement.use_cpuset = !options.no_cpuset;
  require_bind("attach", request.placement);
  cpus::Expected<cpus::AttachReport> report = cpus::attach(request);
  if (!report) throw_failure(report.error());
  print_report(*report, pid, options.as_json, exit_status);
}

// "" would read as a slice without a name.
void require_target(const char* command, const std::string& target) {
  if (target.empty())
    wrong_usage("{}: the slice's name is empty; 'allot cpus show' lists the slices", command);
}

void change(const CpusAttachOptions& options, int* exit_status) {
  require_target("set", options.target);
  if (!options.flags.wants_cpus()) wrong_usage("set: give the CPUs: --cpus N, a list, or gpu");
  cpus::AttachRequest request;
  request.placement = placement_request(options.flags, options.target);
  require_bind("set", request.placement);
  cpus::Expected<cpus::Lease> lease = cpus::find_lease(request.placement.folder, options.target);
  if (!lease) throw_failure(lease.error());
  request.pid = cpus::process_of(*lease);
  request.placement.name = lease->name;
  if (lease->group.empty()) {  // its children hold to the same masks
    request.follow = true;
    request.within = lease->cpus;
  }
  cpus::Expected<cpus::AttachReport> report = cpus::attach(request);
  if (!report) throw_failure(report.error());
  print_report(*report, request.pid, options.as_json, exit_status);
}

void release_slice(const CpusAttachOptions& options) {
  require_target("detach", options.target);
  const CpuFlags none;
  const std::string folder = placement_request(none, "").folder;
  cpus::Expected<cpus::DetachReport> done = cpus::detach(folder, options.target);
  if (!done) throw_failure(done.error());
  if (options.as_json) {
    print_json({{"slice", options.target},
                {"processes", done->processes},
                {"granted", to_list(done->granted)}});
  } else if (done->processes == 0) {
    print(fmt::format("{}: its lease has ended; no process was left in it\n", options.target));
  } else {
    print(fmt::format("{}: {} process{} may use CPUs {} now\n", options.target, done->processes,
                      done->processes == 1 ? "" : "es", to_list(done->granted)));
  }
}

}  // namespace

void add_cpus_attach(CLI::App& cpus, int* exit_status) {
  auto options = std::make_shared<CpusAttachOptions>();
  CLI::App* app = cpus.add_subcommand("attach", "move a running process with all its threads");
  app->add_option("pid", options->target, "the process")->required()->type_name("PID");
  add_cpu_flags(*app, &options->flags);
  app->add_flag("--follow", options->follow, "its descendants too");
  options->name_given =
      app->add_option("--name", options->name, "name of the slice (default: pidPID)")
          ->type_name("NAME");
  app->add_flag(
      "--no-cpuset", options->no_cpuset,
      "use affinity only, even where cpusets can be made; this stops the process for a moment");
  app->add_flag("--json", options->as_json, "print JSON");
  app->footer(
      "Example:\n"
      "  allot cpus attach 4711 --cpus 4-7 --follow");
  app->callback([options, exit_status] { attach(*options, exit_status); });
}

void add_cpus_set(CLI::App& cpus, int* exit_status) {
  auto options = std::make_shared<CpusAttachOptions>();
  CLI::App* app = cpus.add_subcommand("set", "give a running slice other CPUs");
  app->add_option("slice", options->target, "its name, or a process in it")
      ->required()
      ->type_name("NAME|PID");
  add_cpu_flags(*app, &options->flags);
  app->add_flag("--json", options->as_json, "print JSON");
  app->footer(
      "Examples:\n"
      "  allot cpus set alice --cpu-list 4-7\n"
      "  allot cpus set 4711 --cpus 8 --exclusive");
  app->callback([options, exit_status] { change(*options, exit_status); });
}

void add_cpus_detach(CLI::App& cpus, int*) {
  auto options = std::make_shared<CpusAttachOptions>();
  CLI::App* app =
      cpus.add_subcommand("detach", "end a slice's lease; its processes leave its CPUs");
  app->add_option("slice", options->target, "its name, or a process in it")
      ->required()
      ->type_name("NAME|PID");
  app->add_flag("--json", options->as_json, "print JSON");
  app->footer(
      "Example:\n"
      "  allot cpus detach alice");
  app->callback([options] { release_slice(*options); });
}

}  // namespace allot::cli
