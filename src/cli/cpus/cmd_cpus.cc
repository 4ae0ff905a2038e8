// allot cpus: the group of subcommands, and what they share.
#include "cli/cpus/cmd_cpus.h"

#include <cstdlib>

#include "abi/env.h"
#include "cli/failure.h"
#include "cli/screen.h"
#include "cli/usage.h"

namespace allot::cli {

void throw_failure(const cpus::Failure& failure) {
  throw Failure(failure.code == Errc::kBadValue ? kExitUsage : kExitRefused, failure.text);
}

bool is_whole_number(std::string_view text) {
  return !text.empty() && text.size() < 10 &&
         text.find_first_not_of("0123456789") == std::string_view::npos;
}

CLI::Validator whole_number(const std::string& what) {
  return CLI::Validator(
      [what](std::string& text) {
        return is_whole_number(text) ? std::string() : fmt::format("'{}' is no {}", text, what);
      },
      "");
}

void add_cpu_flags(CLI::App& app, CpuFlags* flags) {
  flags->given =
      app.add_option("--cpus", flags->cpus,
                     "a number of CPUs, a list such as 0-3,8, or gpu: those near the GPU")
          ->type_name("N|LIST|gpu");
  flags->list_given = app.add_option("--cpu-list", flags->list,
                                     "these CPUs: 3, 0-3,8, 0-6:2, +0-1, !0, 0xff, core:0-1")
                          ->type_name("LIST")
                          ->excludes(flags->given);
  CLI::Option* cores =
      app.add_flag("--cores", flags->cores, "the number counts cores, each with all its threads");
  app.add_flag("--threads", flags->threads,
               "the number counts single threads; the rest of a core stays idle")
      ->excludes(cores);
  app.add_option("--mems", flags->mems, "memory nodes: auto for those of the CPUs, or a list")
      ->type_name("auto|LIST");
  app.add_option(
         "--mem-policy", flags->policy,
         "how memory comes from these nodes: bind (only), preferred (first), interleave (in "
         "turn); or local")
      ->type_name("POLICY");
  CLI::Option* exclusive = app.add_flag(
      "--exclusive", flags->exclusive,
      "no other slice gets these CPUs; on cpuset v2, as root, no other program does (a partition)");
  app.add_flag("--isolated", flags->isolated,
               "with --exclusive on cpuset v2: without load balancing; bind each thread yourself")
      ->needs(exclusive);
  app.add_flag("--any-cpu", flags->any_cpu,
               "allow CPUs outside the mask that allot was started with");
  app.add_option("--near-gpu", flags->gpu, "near this GPU, counted by bus address")
      ->type_name("GPU")
      ->check(whole_number("GPU number"));
  for (CLI::Option* option : app.get_options()) {
    constexpr const char* kOfCpus[] = {"--cpus",    "--cpu-list",   "--cores",     "--threads",
                                       "--mems",    "--mem-policy", "--exclusive", "--isolated",
                                       "--any-cpu", "--near-gpu"};
    for (const char* name : kOfCpus) {
      if (option->check_name(name)) option->group("CPUs");
    }
  }
}

void require_cpus(const CpuFlags& flags) {
  if (flags.wants_cpus()) return;
  const char* lone = flags.cores             ? "--cores"
                     : flags.threads         ? "--threads"
                     : !flags.mems.empty()   ? "--mems"
                     : !flags.policy.empty() ? "--mem-policy"
                     : flags.exclusive       ? "--exclusive"
                     : flags.any_cpu         ? "--any-cpu"
                     : flags.gpu >= 0        ? "--near-gpu"
                                             : nullptr;
  if (lone != nullptr) wrong_usage("{} requires --cpus or --cpu-list", lone);
}

cpus::PlacementRequest placement_request(const CpuFlags& flags, const std::string& name) {
  cpus::PlacementRequest request;
  request.name = name;
  request.cpus = flags.cpus;
  if (flags.list_given != nullptr && flags.list_given->count() > 0) {
    request.cpus = flags.list;
    request.is_list = true;
    request.option = "--cpu-list ";
  }
  request.mems = flags.mems;
  if (!flags.policy.empty()) {
    const auto policy = cpus::memory_policy_named(flags.policy);
    if (!policy)
      wrong_usage("--mem-policy: '{}' is not a policy; use bind, preferred, interleave or local",
                  shown(flags.policy));
    request.policy = *policy;
  }
  request.exclusive = flags.exclusive;
  request.isolated = flags.isolated;
  request.any_cpu = flags.any_cpu;
  request.gpu = flags.gpu;
  request.unit = flags.cores     ? cpus::Unit::kCores
                 : flags.threads ? cpus::Unit::kThreads
                                 : cpus::Unit::kWhole;
  request.folder = cpus::lease_folder(std::getenv(ALLOT_ENV_DIR));
  return request;
}

MachineView read_machine(const std::string& root) {
  MachineView view{cpus::FsRoot(root), {}, {}, {}};
  cpus::Expected<cpus::Topology> topology = cpus::read_topology(view.fs);
  if (!topology) throw_failure(topology.error());
  view.topology = *topology;
  view.hierarchy = cpus::find_hierarchy(view.fs);
  if (!view.fs.is_this_machine()) return view;
  cpus::Expected<cpus::CpuSet> allowed = cpus::cpus_within_cpuset();
  if (!allowed) throw_failure(allowed.error());
  view.topology.allowed = *allowed & view.topology.online;
  std::string folder = cpus::lease_folder(std::getenv(ALLOT_ENV_DIR));
  // A listing must not make the folder; without it there are no leases.
  if (!view.fs.exists(folder)) return view;
  if (cpus::Expected<cpus::LockedLedger> ledger = cpus::LockedLedger::open(folder))
    view.leases = ledger->read(view.fs);
  return view;
}

std::optional<cpus::TreeModel> read_tree(const MachineView& machine, std::string* why_not) {
  cpus::Expected<cpus::TreeModel> tree =
      cpus::load_tree(machine.fs, machine.topology, machine.hierarchy);
  if (tree) return *tree;
  *why_not = tree.error().text;
  return std::nullopt;
}

void add_cpus_command(CLI::App& app, int* exit_status) {
  CLI::App* cpus = app.add_subcommand(
      "cpus", "slices of CPUs: show, plan, attach, set, detach, explain, watch, sim");
  cpus->require_subcommand(1);
  add_cpus_show(*cpus, exit_status);
  add_cpus_plan(*cpus, exit_status);
  add_cpus_attach(*cpus, exit_status);
  add_cpus_set(*cpus, exit_status);
  add_cpus_detach(*cpus, exit_status);
  add_cpus_explain(*cpus, exit_status);
  add_cpus_watch(*cpus, exit_status);
  add_cpus_sim(*cpus, exit_status);
  cpus->footer(
      "Examples:\n"
      "  allot cpus show\n"
      "  allot cpus plan --cpus 4\n"
      "  allot run --cpus 4 -- make");
}

}  // namespace allot::cli
