// Which CPUs a set of slices gets: whole cores, of as few cache domains as possible, near the
// memory node that each prefers, with what is left over in as few segments as possible.
//
// Hard rules: slices never share a core (so SMT siblings are never split between them), each gets
// as many CPUs as it asked for, and nothing outside `usable` is taken. Within those the sum of the
// costs below is made small. They are ranks in disguise: an extra package is worse than an extra
// node, that worse than an extra cache domain, that worse than an idle sibling; distance counts for
// every thread.
//
// Method: cores that differ in nothing are counted, not named. A state is how many cores of each
// kind are free; slices are placed one after the other, and of the states reached only the best are
// kept (a beam). With an unbounded beam this is exact; planner_oracle.cc solves the same problem
// without bounds and grades it.
#pragma once

#include <string>
#include <vector>

#include "cpus/cpu_set.h"
#include "cpus/failure.h"
#include "cpus/topology.h"

namespace allot::cpus {

// What a number of CPUs means.
enum class Unit {
  kWhole,    // that many CPUs, rounded up to whole cores (the default)
  kThreads,  // exactly that many; what is left of a core stays idle rather than go to someone else
  kCores,    // that many cores with all their threads
};

struct Need {
  std::string name;
  int count = 1;
  Unit unit = Unit::kWhole;
  int node = -1;  // memory node to be near to; -1 = no preference
};

struct PlanCosts {
  int domain = 20;        // each cache domain beyond the first
  int node = 40;          // each memory node beyond the first
  int package = 60;       // each package beyond the first
  int idle_thread = 5;    // each thread taken beyond what was asked for
  int housekeeping = 30;  // each thread of the cores kept for the rest of the system
  int partial = 4;        // each domain that ends up partly used
  int distance = 1;       // each thread times (node distance - 10)
};

// A kind of core: where it stands, how many threads of it may be used, how many there are.
struct CoreKind {
  int domain = -1;
  int node = -1;
  int package = -1;
  int threads = 1;
  bool housekeeping = false;
  int free = 0;
};

// The planner's view of a machine, and the unit in which the oracle of the tests solves it too.
struct PlanProblem {
  std::vector<CoreKind> kinds;
  std::vector<int> domain_cores;  // cores of each domain in all, free or not
  std::vector<Need> needs;
  // Distance of a need's node to each kind, 0 when it has no preference: [need][kind].
  std::vector<std::vector<int>> distance;
  PlanCosts costs;
};
// How many cores of each kind each need gets: [need][kind]. Empty when there is no way.
struct PlanSolution {
  std::vector<std::vector<int>> taken;
  int cost = 0;
};

// The cost of one need's cores, without the fragmentation, which depends on all. -1: too few CPUs.
int own_cost(const PlanProblem& problem, size_t need, const std::vector<int>& taken);
int partial_domains(const PlanProblem& problem, const std::vector<int>& free);
// Solves within bounded work (about 5 ms on 256 CPUs). Finds a way whenever there is one.
PlanSolution solve(const PlanProblem& problem);

// Any way to serve the needs, near what they prefer but with no regard to the segments it leaves;
// empty exactly when there is none. solve() falls back to it.
PlanSolution solve_any(const PlanProblem& problem);

struct Grant {
  CpuSet cpus;
  CpuSet blocked;  // siblings left idle
  int cost = 0;
};
struct Plan {
  std::vector<Grant> grants;  // one per need, in order
  int cost = 0;
};

// The problem that a machine poses when `usable` is free (cores of it that are partly outside are
// taken as smaller cores) and `housekeeping` had better be left alone.
PlanProblem problem_of(const Topology& topology, const CpuSet& usable, const CpuSet& housekeeping,
                       const std::vector<Need>& needs);

// Plans all needs at once.
// Errors: kBadValue (a count below 1), kFull (no way to place them; the text says what is short).
Expected<Plan> plan_cpus(const Topology& topology, const CpuSet& usable, const CpuSet& housekeeping,
                         const std::vector<Need>& needs);

// The core kept for the rest of the system: that of the lowest allowed CPU. Empty with one core.
CpuSet default_housekeeping(const Topology& topology, const CpuSet& allowed);

}  // namespace allot::cpus
