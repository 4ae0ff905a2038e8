// The exact answer to a planning problem, by another way than the planner's: depth-first over every
// placement of every need, cutting a branch only when it provably cannot beat the best one found.
//
// It shares the problem's description with the planner and nothing else: costs are computed here
// again from the words of planner.h, so that a slip in one of the two shows as a difference.
#pragma once

#include <cstdint>

#include "cpus/planner.h"

namespace allot::cpus {

struct Optimum {
  bool decided = false;  // false: the budget of nodes ran out
  bool feasible = false;
  int cost = 0;
  uint64_t nodes = 0;
};

// `known` is a cost that has been reached already (-1: none); it only cuts, the answer is the same.
Optimum optimum(const PlanProblem& problem, int known, uint64_t node_budget);

}  // namespace allot::cpus
