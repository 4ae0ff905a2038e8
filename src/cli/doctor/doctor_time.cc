// The check of GPU time: which level would enforce it here, and why not a better one.
//
// Only a process that works on the GPU can know whether the driver accepts the calls of level
// channel; its agent publishes what it found in its client. So this check says what is visible from
// outside, and adds what the agents of running slices publish.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>

#include "cli/doctor/doctor_checks.h"
#include "cli/failure.h"
#include "cli/output.h"
#include "cli/region/region_view.h"
#include "cli/slice_spec.h"
#include "driver/rm_branches.h"

namespace allot::cli {
namespace {

void add_time(Findings* findings, Verdict verdict, std::string found, std::string advice = "") {
  findings->push_back({verdict, "time", std::move(found), std::move(advice)});
}

bool has_mig(const Inventory& inventory) {
  for (const Gpu& gpu : inventory.gpus) {
    if (gpu.mig_enabled) return true;
  }
  return false;
}

// What a program started in this shell would get from --level auto.
void expected_level(const Inventory& inventory, Findings* findings) {
  if (inventory.gpus.empty()) {
    add_time(findings, Verdict::kNote, "held once there is a GPU");
    return;
  }
  const bool daemon = !processes_named("nvidia-cuda-mps").empty();
  const bool client = std::getenv("CUDA_MPS_PIPE_DIRECTORY") != nullptr;
  if (daemon || client) {
    add_time(
        findings, Verdict::kNote,
        fmt::format("level launch, because {}: an MPS client's channels are the MPS server's, so "
                    "they cannot be stopped for one client; each launch waits at a gate instead",
                    client ? "CUDA_MPS_PIPE_DIRECTORY is set" : "an MPS daemon runs"),
        "for level channel, unset CUDA_MPS_PIPE_DIRECTORY and end the MPS daemon");
  } else {
    add_time(
        findings, Verdict::kGood,
        "level channel, if the driver answers its calls (tried when a program starts; else level "
        "launch)");
  }
  if (has_mig(inventory)) {
    add_time(findings, Verdict::kNote,
             "MIG is on: shares and ceilings count within an instance; between instances the GPU "
             "itself divides");
  }
}

// "535 to 595": the branches whose layouts are ours.
std::string compared_branches() {
  uint32_t first = UINT32_MAX, last = 0;
  for (const driver::RmBranch& branch : driver::kRmBranches) {
    if (!branch.as_ours) continue;
    first = std::min(first, branch.branch);
    last = std::max(last, branch.branch);
  }
  return fmt::format("{} to {}", first, last);
}

// "alice: channel", and why where it is less.
void levels_in_force(Findings* findings) {
  RegionView region;
  try {
    region = read_region();
  } catch (const Failure&) {
    return;  // check_region says it
  }
  std::map<std::string, std::set<std::string>> found;  // what is in force -> in which slices
  for (const SliceView& slice : region.slices) {
    for (const ClientView& client : slice.clients) {
      if (client.level == ALLOT_LEVEL_AUTO) continue;
      const std::string why = reason_text(client.reason);
      const std::string level = level_text(client.level);
      found[why.empty() ? level : fmt::format("{} ({})", level, why)].insert(slice.name);
    }
  }
  for (const SliceView& slice : region.slices) {
    for (const ProcessView& process : slice.processes) {
      if (const std::string tables = tables_text(process.full_tables); !tables.empty()) {
        add_time(findings, Verdict::kNote,
                 fmt::format("process {} in {}: {}", process.pid, harmless(slice.name), tables),
                 "its limits hold, less finely; docs/limits.md says how");
      }
      const std::string unheld = unheld_text(slice, process);
      if (unheld.empty()) continue;
      add_time(findings, slice.fail_closed() ? Verdict::kNote : Verdict::kProblem,
               fmt::format("process {} in {}: {}", process.pid, harmless(slice.name), unheld),
               process.unheld_gpus != 0
                   ? "divide the processes among several slices"
                   : "choose at most 16 GPUs with CUDA_VISIBLE_DEVICES or run --gpu");
    }
  }
  for (const auto& [level, names] : found) {
    std::string text;
    for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
    add_time(findings, Verdict::kNote,
             fmt::format("in force now: {} in {}", level, harmless(text)));
  }
}

}  // namespace

Finding rm_calls_of(const std::string& driver_version) {
  const driver::RmBranch* branch = driver::find_rm_branch(driver_version);
  if (branch == nullptr) {
    return {Verdict::kNote, "time",
            fmt::format("driver {}: its branch is not among those whose RM calls were compared "
                        "with allot's ({})",
                        driver_version.empty() ? "of unknown version" : harmless(driver_version),
                        compared_branches()),
            "allot checks each call's answer; if shares do not hold, use --level launch, and look "
            "for a newer allot"};
  }
  if (!branch->as_ours) {
    return {Verdict::kNote, "time",
            fmt::format("driver branch {} has other layouts of the RM calls than allot: level "
                        "launch",
                        branch->branch),
            fmt::format("for level channel, install a driver of branch {}", compared_branches())};
  }
  return {Verdict::kGood, "time",
          fmt::format("RM calls compared with the published versions of driver branch {} ({} to {})",
                      branch->branch, branch->first, branch->last),
          ""};
}

void check_time(const Inventory& inventory, Findings* findings) {
  expected_level(inventory, findings);
  if (!inventory.gpus.empty()) findings->push_back(rm_calls_of(inventory.driver_version));
  levels_in_force(findings);
}

}  // namespace allot::cli
