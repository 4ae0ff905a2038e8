// The checks of `allot doctor`. Each is a function from the machine to findings.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/gpus/gpu_inventory.h"
#include "cli/gpus/libraries.h"

namespace allot::cli {

enum class Verdict {
  kGood,     // works
  kNote,     // worth knowing; nothing to do
  kProblem,  // limits cannot be enforced, or not as asked: doctor exits 1
};

struct Finding {
  Verdict verdict;
  std::string check;   // short name, stable: "driver", "region", ...
  std::string found;   // one line
  std::string advice;  // what to do; empty for kGood and most notes
};
using Findings = std::vector<Finding>;

// The driver's libraries, its version, its GPUs, MIG. `inventory` is the driver's answer.
void check_driver(const DriverFiles& driver, const Inventory& inventory, Findings* findings);
// Exports of libcuda that the driver table does not list: limits may miss them.
void check_exports(const DriverFiles& driver, Findings* findings);
// Our preloaded libraries: present, and loadable into a process of this machine.
void check_shim(Findings* findings);
// The region's folder and the files in it.
void check_region(Findings* findings);
// The administrator's rules: which apply to this user, and, for root, all of them.
void check_rules(Findings* findings);
// MPS, by its environment and its processes.
void check_mps(Findings* findings);
// Whether LD_PRELOAD reaches `program` (may be empty), and which programs in general ignore it.
void check_preload(const std::string& program, Findings* findings);
// The environment-only way: our variables and HAMi's, as this shell has them.
void check_environment(Findings* findings);
// What is enforced, and how strictly.
void check_memory(bool gpus_found, Findings* findings);
// The level that would enforce GPU time here, and the levels in force in the slices that run.
void check_time(const Inventory& inventory, Findings* findings);
// Whether the RM calls that level channel makes were compared with this driver's branch
// (driver/rm_branches.h). "" = the version is not known.
Finding rm_calls_of(const std::string& driver_version);
// Pids of processes whose short name begins with `name`.
std::vector<std::string> processes_named(std::string_view name);

}  // namespace allot::cli
