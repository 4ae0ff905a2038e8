// allot cpus: the group of subcommands, and what they share.
#include "cli/cpus/cmd_cpus.h"

#include <cstdlib>

#include "abi/env.h"
#include "cli/failure.h"

namespace allot::cli {

void throw_failure(const cpus::Failure& failure) {
  throw Failure(failure.code == Errc::kBadValue ? kExitUsage : kExitRefused, failure.text);
}

void add_cpu_flags(CLI::App& app, CpuFlags* flags) {
  flags->given =
      app.add_option(
             "--cpus", flags->cpus,
             "a number of CPUs, a list such as 0-3,8 or 3, (with its comma), or gpu: those near "
             "the GPU")
          ->type_name("N|LIST|gpu");
  CLI::Option* cores =
      app.add_flag("--cores", flags->cores, "the number counts cores, each with all its threads");
  app.add_flag("--threads", flags->threads,
               "the number counts single threads; the rest of a core stays idle")
      ->excludes(cores);
  app.add_option("--mems", flags->mems, "memory nodes: auto for those of the CPUs, or a list")
      ->type_name("auto|LIST");
  app.add_flag("--exclusive", flags->exclusive, "no other slice gets these CPUs");
  app.add_option("--near-gpu", flags->gpu, "near this GPU, counted by bus address")
      ->type_name("GPU")
      ->check(CLI::NonNegativeNumber);
  for (const char* name : {"--cores", "--threads", "--mems", "--exclusive", "--near-gpu"})
    app.get_option(name)->needs(flags->given);
}

cpus::PlacementRequest placement_request(const CpuFlags& flags, const std::string& name) {
  cpus::PlacementRequest request;
  request.name = name;
  request.cpus = flags.cpus;
  request.mems = flags.mems;
  request.exclusive = flags.exclusive;
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
  CLI::App* cpus =
      app.add_subcommand("cpus", "slices of CPUs: show, plan, attach, explain, watch, sim");
  cpus->require_subcommand(1);
  add_cpus_show(*cpus, exit_status);
  add_cpus_plan(*cpus, exit_status);
  add_cpus_attach(*cpus, exit_status);
  add_cpus_explain(*cpus, exit_status);
  add_cpus_watch(*cpus, exit_status);
  add_cpus_sim(*cpus, exit_status);
}

}  // namespace allot::cli
