// Turning machines into planning problems and solutions into CPU numbers. Search: solve.cc.
#include "cpus/planner.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

namespace allot::cpus {
namespace {

// The free cores of a machine with their usable threads, by kind, lowest number first.
struct CoresByKind {
  std::vector<CoreKind> kinds;
  std::vector<std::vector<CpuSet>> cores;
};

CoresByKind free_cores(const Topology& t, const CpuSet& usable, const CpuSet& housekeeping) {
  CoresByKind out;
  std::map<std::tuple<int, int, bool>, size_t> index;
  for (const Core& core : t.cores) {
    CpuSet threads = core.threads & usable;
    if (threads.empty()) continue;
    bool kept = core.threads.overlaps(housekeeping);
    auto [it, added] = index.try_emplace({core.domain, threads.count(), kept}, out.kinds.size());
    if (added) {
      out.kinds.push_back({core.domain, core.node, core.package, threads.count(), kept, 0});
      out.cores.emplace_back();
    }
    ++out.kinds[it->second].free;
    out.cores[it->second].push_back(threads);
  }
  return out;
}

std::string shortage(const PlanProblem& problem, const std::vector<Need>& needs) {
  int cores = 0, threads = 0;
  for (const CoreKind& kind : problem.kinds) {
    cores += kind.free;
    threads += kind.free * kind.threads;
  }
  std::string wanted;
  for (const Need& need : needs) {
    if (!wanted.empty()) wanted += ", ";
    wanted += fmt::format("{} {}", need.count, need.unit == Unit::kCores ? "core" : "CPU");
    if (need.count != 1) wanted += "s";
    if (needs.size() > 1) wanted += " for " + need.name;
  }
  return fmt::format("no room for {}: {} CPU{} on {} core{} {} free", wanted, threads,
                     threads == 1 ? "" : "s", cores, cores == 1 ? "" : "s",
                     threads == 1 ? "is" : "are");
}

Grant grant_of(const Need& need, const std::vector<int>& taken, CoresByKind* free) {
  Grant grant;
  CpuSet all;
  for (size_t kind = 0; kind < taken.size(); ++kind) {
    for (int i = 0; i < taken[kind]; ++i) {
      all |= free->cores[kind].front();
      free->cores[kind].erase(free->cores[kind].begin());
    }
  }
  grant.cpus = all;
  if (need.unit == Unit::kThreads) {
    // Whole cores first would be the same: `taken` has no core too many; the surplus is within one.
    while (grant.cpus.count() > need.count) {
      int last = grant.cpus.last();
      grant.cpus.remove(last);
      grant.blocked.add(last);
    }
  }
  return grant;
}

}  // namespace

PlanProblem problem_of(const Topology& t, const CpuSet& usable, const CpuSet& housekeeping,
                       const std::vector<Need>& needs) {
  PlanProblem problem;
  problem.kinds = free_cores(t, usable, housekeeping).kinds;
  problem.needs = needs;
  problem.domain_cores.resize(t.domains.size());
  for (const Core& core : t.cores) ++problem.domain_cores[static_cast<size_t>(core.domain)];
  for (const Need& need : needs) {
    std::vector<int> row;
    for (const CoreKind& kind : problem.kinds) {
      bool known = need.node >= 0 && kind.node >= 0;
      row.push_back(known ? t.distance(need.node, kind.node) - 10 : 0);
    }
    problem.distance.push_back(row);
  }
  return problem;
}

Expected<Plan> plan_cpus(const Topology& t, const CpuSet& usable, const CpuSet& housekeeping,
                         const std::vector<Need>& needs) {
  for (const Need& need : needs) {
    if (need.count < 1) return failure(Errc::kBadValue, "the number of CPUs must be 1 or more");
  }
  PlanProblem problem = problem_of(t, usable, housekeeping, needs);
  PlanSolution solution = solve(problem);
  if (solution.taken.size() != needs.size()) return failure(Errc::kFull, shortage(problem, needs));
  CoresByKind free = free_cores(t, usable, housekeeping);
  Plan plan;
  plan.cost = solution.cost;
  for (size_t i = 0; i < needs.size(); ++i) {
    plan.grants.push_back(grant_of(needs[i], solution.taken[i], &free));
    plan.grants.back().cost = own_cost(problem, i, solution.taken[i]);
  }
  return plan;
}

CpuSet default_housekeeping(const Topology& t, const CpuSet& allowed) {
  int lowest = allowed.first();
  int cores = 0;
  CpuSet kept;
  for (const Core& core : t.cores) {
    if (!core.threads.overlaps(allowed)) continue;
    ++cores;
    if (core.threads.has(lowest)) kept = core.threads & allowed;
  }
  return cores > 1 ? kept : CpuSet{};
}

}  // namespace allot::cpus
