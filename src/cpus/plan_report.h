// What would happen if a set of slices were started: who gets which CPUs, each write with its
// predicted outcome, what is in force afterwards and how much CPU time to expect. Changes nothing.
#pragma once

#include <string>
#include <vector>

#include "cpus/leases.h"
#include "cpus/placement.h"
#include "cpus/tree_model.h"

namespace allot::cpus {

struct PlannedStep {
  Step step;
  int os_errno = 0;
  std::string why;  // the model's sentence; empty when it simply works
};

struct SlicePlan {
  std::string name;
  CpuSet cpus, blocked, mems;
  std::string memory;  // as memory_text()
  std::string group;  // empty without a cpuset
  CpuSet effective;   // as predicted
  Level level = Level::kAdvised;
  std::string reason;         // why not enforced
  double expected_cpus = -1;  // CPU time with one busy thread per CPU asked for; -1: not computed
  std::vector<PlannedStep> steps;
  std::vector<std::string> notes;
};

struct MachinePlan {
  std::vector<SlicePlan> slices;
  int cost = 0;  // of the CPUs that were planned together (planner.h)
};

// Plans `requests` together, beside the `leases` that are held. `tree` may be null: then no writes
// are predicted and the level is advised for `why_no_tree`. Errors: those of choose(), with the
// slice's name in front; kExists (two of the same name).
Expected<MachinePlan> make_plan(const FsRoot& fs, const Topology& topology, const CpuSet& allowed,
                                const std::vector<Lease>& leases,
                                const std::vector<PlacementRequest>& requests,
                                const TreeModel* tree, const std::string& why_no_tree);

}  // namespace allot::cpus
