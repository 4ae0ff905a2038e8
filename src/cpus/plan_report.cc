// Planning several slices and predicting the writes: see plan_report.h.
#include "cpus/plan_report.h"

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <set>

#include "cpus/memory_policy.h"
#include "model/fair_share.h"

namespace allot::cpus {
namespace {

// CPU time that each set gets when as many threads as it has CPUs always want to run there. Beyond
// a few hundred threads the exact answer costs more than the plan; then nothing is said.
std::vector<double> expected_time(const std::vector<CpuSet>& sets, const CpuSet& online) {
  std::vector<model::ShareTask> tasks;
  for (const CpuSet& set : sets) {
    for (int i = 0; i < set.count(); ++i) tasks.push_back({to_mask(set)});
  }
  if (tasks.size() > 300) return {};
  std::vector<double> each = model::fair_shares(tasks, to_mask(online)), sums;
  size_t at = 0;
  for (const CpuSet& set : sets) {
    double sum = 0;
    for (int i = 0; i < set.count(); ++i) sum += each[at++];
    sums.push_back(sum);
  }
  return sums;
}

Lease lease_of(const Placement& p) {
  Lease lease = p.lease;
  lease.cpus = p.cpus;
  return lease;
}

// The error with the slice's name, where several may be meant and the text does not say which.
tl::unexpected<Failure> of_slice(const PlacementRequest& r, const Failure& error) {
  const bool named = error.text.starts_with(r.option) || !r.option.starts_with("--slice");
  return failure(error.code, named ? error.text : "--slice " + r.name + ": " + error.text,
                 error.os_errno);
}

// Requests that only count CPUs are placed by one plan; a greedy one after the other could use up
// what a later one needs whole. Falls back to that when sharing or an exclusive rule sets
// them apart.
Expected<std::vector<Placement>> place_together(const Topology& t, const CpuSet& allowed,
                                                std::vector<Lease> held,
                                                const std::vector<PlacementRequest>& requests,
                                                int* cost) {
  std::vector<Placement> placed(requests.size());
  std::vector<size_t> counted;
  std::vector<Need> needs;
  bool exclusive = false;
  for (size_t i = 0; i < requests.size(); ++i) {
    const PlacementRequest& r = requests[i];
    std::optional<int> count = cpu_count_of(r);
    if (count && *count > 0 && *count < kTooManyCpus) {
      bool near = r.gpu >= 0 && r.gpu < static_cast<int>(t.gpus.size());
      needs.push_back(
          {r.name, *count, r.unit, near ? t.gpus[static_cast<size_t>(r.gpu)].node : -1});
      counted.push_back(i);
      exclusive = exclusive || r.exclusive;
      continue;
    }
    Expected<Placement> p = choose(t, allowed, held, r);
    if (!p) return of_slice(r, p.error());
    placed[i] = *p;
    held.push_back(lease_of(*p));
  }
  CpuSet busy;
  for (const Lease& lease : held) busy |= lease.cpus | lease.blocked;
  CpuSet housekeeping = default_housekeeping(t, allowed);
  CpuSet free = allowed - t.isolated - t.threads_of_cores_touching(busy);
  if (exclusive) free -= housekeeping;
  Expected<Plan> plan = plan_cpus(t, free, housekeeping, needs);
  if (!plan && counted.size() > 1) return tl::unexpected<Failure>(plan.error());
  for (size_t n = 0; n < counted.size(); ++n) {
    const PlacementRequest& r = requests[counted[n]];
    // With the CPUs fixed by the plan, the rest of the request (memory, GPU, notes) is as ever.
    PlacementRequest fixed = r;
    fixed.is_list = plan.has_value();
    if (plan) fixed.cpus = to_list(plan->grants[n].cpus);
    Expected<Placement> p = choose(t, allowed, held, fixed);
    if (!p) return of_slice(r, p.error());
    if (plan) p->lease.blocked = plan->grants[n].blocked;
    held.push_back(lease_of(*p));
    placed[counted[n]] = *p;
  }
  if (plan) *cost = plan->cost;
  return placed;
}

// Runs the writes for one slice in the model, where the earlier slices' groups are there already.
void predict_writes(const FsRoot& fs, const PlacementRequest& r, const Topology& t, TreeModel* tree,
                    SlicePlan* out) {
  const Hierarchy& h = tree->hierarchy;
  ProcessId self = identify(fs, getpid()).value_or(ProcessId{getpid(), 0});
  GroupSpec spec{h.base + "/" + group_name(out->name, self), out->cpus, out->mems, r.exclusive};
  if (spec.mems.empty() && h.kind == CpusetKind::kV1) {
    spec.mems = from_mask(tree->model.effective_mems(tree->inside(h.base)));
    if (spec.mems.empty()) spec.mems = t.allowed_mems;
  }
  std::vector<Step> steps = steps_to_make(fs, h, spec);
  if (tree->model.group_of(self.pid).empty()) {
    // In a captured machine nobody is us; some process of the group above replaces us.
    model::TaskInit program;
    program.tid = self.pid;
    program.group = tree->inside(h.own);
    tree->model.adopt_task(program);
  }
  steps.push_back({Step::Op::kWrite, procs_file(spec.path), std::to_string(self.pid)});
  bool whole = true;
  for (const Step& step : steps) {
    // Enabling the controller is done once, by the first slice.
    std::string file = step.path.substr(step.path.rfind('/') + 1);
    std::string_view enabled = "cgroup.subtree_control";
    if (file == enabled &&
        tree->model.read(tree->inside(h.base), enabled).value_or("").find("cpuset") !=
            std::string::npos) {
      continue;
    }
    model::Outcome outcome = predict(tree, step);
    out->steps.push_back({step, outcome.err, model::sentence(outcome.reason)});
    if (outcome.err == 0) continue;
    if (file.ends_with("cpu_exclusive")) {
      out->notes.push_back("other cpusets may still overlap: " + out->steps.back().why);
      continue;
    }
    whole = false;
    out->reason = fmt::format("{}: {}", errno_name(outcome.err), out->steps.back().why);
    break;
  }
  out->effective = from_mask(tree->model.effective_cpus(tree->inside(spec.path)));
  if (whole && out->effective == out->cpus) {
    out->group = spec.path;
    out->level = Level::kEnforced;
  } else if (whole) {
    out->reason = fmt::format("the kernel would grant CPUs {}", to_list(out->effective));
  }
}

}  // namespace

Expected<MachinePlan> make_plan(const FsRoot& fs, const Topology& t, const CpuSet& allowed,
                                const std::vector<Lease>& leases,
                                const std::vector<PlacementRequest>& requests,
                                const TreeModel* tree, const std::string& why_no_tree) {
  std::set<std::string> names;
  for (const PlacementRequest& r : requests) {
    if (!names.insert(r.name).second)
      return failure(Errc::kExists, fmt::format("two slices are called {}", r.name));
  }
  MachinePlan plan;
  Expected<std::vector<Placement>> placed =
      place_together(t, allowed, leases, requests, &plan.cost);
  if (!placed) return tl::unexpected<Failure>(placed.error());
  std::vector<CpuSet> busy;
  busy.reserve(leases.size());
  for (const Lease& lease : leases) busy.push_back(lease.cpus);
  std::optional<TreeModel> scratch;
  if (tree != nullptr && !tree->hierarchy.base.empty()) scratch.emplace(*tree);
  for (size_t i = 0; i < requests.size(); ++i) {
    const Placement& p = (*placed)[i];
    SlicePlan slice;
    slice.name = p.name;
    slice.cpus = slice.effective = p.cpus;
    slice.blocked = p.lease.blocked;
    slice.mems = p.fenced_mems();
    slice.memory = memory_text(p);
    slice.notes = p.notes;
    slice.reason = tree != nullptr ? tree->hierarchy.why_not : why_no_tree;
    if (scratch) predict_writes(fs, requests[i], t, &*scratch, &slice);
    busy.push_back(slice.cpus);
    plan.slices.push_back(slice);
  }
  std::vector<double> shares = expected_time(busy, t.online);
  for (size_t i = 0; i < plan.slices.size() && !shares.empty(); ++i) {
    plan.slices[i].expected_cpus = shares[leases.size() + i];
  }
  return plan;
}

}  // namespace allot::cpus
