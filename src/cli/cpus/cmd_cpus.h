// allot cpus: which CPUs this machine has, which slice has which of them, and what a change would
// do. One function per subcommand, each in its own file. The flags that name a slice of CPUs are
// shared with
// `allot run`.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cpus/failure.h"
#include "cpus/fs_root.h"
#include "cpus/leases.h"
#include "cpus/placement.h"
#include "cpus/topology.h"
#include "cpus/tree_model.h"

namespace allot::cli {

void add_cpus_command(CLI::App& app, int* exit_status);

void add_cpus_show(CLI::App& cpus, int* exit_status);
void add_cpus_plan(CLI::App& cpus, int* exit_status);
void add_cpus_attach(CLI::App& cpus, int* exit_status);
void add_cpus_set(CLI::App& cpus, int* exit_status);
void add_cpus_detach(CLI::App& cpus, int* exit_status);
void add_cpus_explain(CLI::App& cpus, int* exit_status);
void add_cpus_watch(CLI::App& cpus, int* exit_status);
void add_cpus_sim(CLI::App& cpus, int* exit_status);

// The flags that say which CPUs: --cpus, --cores, --threads, --mems, --exclusive, --near-gpu.
// `run` adds them too; wants_cpus() is false when --cpus was not given.
struct CpuFlags {
  std::string cpus, list, mems, policy;
  bool cores = false, threads = false, exclusive = false, isolated = false, any_cpu = false;
  int gpu = -1;
  bool wants_cpus() const {
    return (given != nullptr && given->count() > 0) ||
           (list_given != nullptr && list_given->count() > 0);
  }
  CLI::Option* given = nullptr;
  CLI::Option* list_given = nullptr;
};
// Up to nine digits and nothing else.
bool is_whole_number(std::string_view text);
// Accepts digits only, and says in one line what is wrong with anything else.
CLI::Validator whole_number(const std::string& what);
// Throws Failure (usage) when a flag that goes with --cpus was given without it.
void require_cpus(const CpuFlags& flags);
void add_cpu_flags(CLI::App& app, CpuFlags* flags);
// The slice that the flags ask for. Throws Failure (usage).
cpus::PlacementRequest placement_request(const CpuFlags& flags, const std::string& name);

// Throws an error of a lower folder as a Failure: exit 2 for wrong usage, 125 otherwise.
[[noreturn]] void throw_failure(const cpus::Failure& failure);

// The machine that a command examines: this one, or with --machine DIR a captured one.
struct MachineView {
  cpus::FsRoot fs;
  cpus::Topology topology;
  cpus::Hierarchy hierarchy;
  std::vector<cpus::Lease> leases;  // of this machine
};
MachineView read_machine(const std::string& root);
// Draws the machine and its leases into a file. Throws Failure when it cannot be written.
void write_map(const MachineView& machine, const std::string& path);
// The cpuset tree in the model; when there is none, the reason.
std::optional<cpus::TreeModel> read_tree(const MachineView& machine, std::string* why_not);

}  // namespace allot::cli
