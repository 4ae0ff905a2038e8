// Whether the needs can be served at all, and one way to do it: the planner's last resort.
//
// For that only the sizes of cores matter: which core of a size is taken changes the cost, never
// what is left. So the states are counts by size, few enough to look at all of them, and no beam
// can run into a corner.
#include <algorithm>
#include <map>
#include <set>

#include "cpus/planner.h"

namespace allot::cpus {
namespace {

using Counts = std::vector<int>;  // free cores by size, sizes ascending

class AnyWay {
 public:
  explicit AnyWay(const PlanProblem& p) : p_(p) {
    std::set<int> sizes;
    for (const CoreKind& kind : p.kinds) sizes.insert(kind.threads);
    sizes_.assign(sizes.begin(), sizes.end());
  }

  // By need: cores of each size. Empty when there is no way.
  std::vector<Counts> find() {
    Counts free(sizes_.size());
    for (const CoreKind& kind : p_.kinds) free[index_of(kind.threads)] += kind.free;
    if (!serve(0, &free)) return {};
    return taken_;
  }
  size_t index_of(int threads) const {
    return static_cast<size_t>(std::lower_bound(sizes_.begin(), sizes_.end(), threads) -
                               sizes_.begin());
  }

 private:
  bool serve(size_t need, Counts* free) {
    if (need == p_.needs.size()) {
      taken_.assign(need, Counts(sizes_.size()));
      return true;
    }
    if (!failed_.insert({need, *free}).second) return false;
    Counts taken(sizes_.size());
    return choose(need, sizes_.size(), p_.needs[need].count, free, &taken);
  }

  // Largest sizes first; a core that would be one too many is never taken.
  bool choose(size_t need, size_t size, int missing, Counts* free, Counts* taken) {
    if (missing <= 0) {
      if (!serve(need + 1, free)) return false;
      taken_[need] = *taken;
      return true;
    }
    if (size == 0) return false;
    --size;
    int weight = p_.needs[need].unit == Unit::kCores ? 1 : sizes_[size];
    int most = std::min((*free)[size], (missing + weight - 1) / weight);
    for (int n = most; n >= 0; --n) {
      (*free)[size] -= n;
      (*taken)[size] = n;
      bool found = choose(need, size, missing - n * weight, free, taken);
      (*free)[size] += n;
      if (found) return true;
    }
    (*taken)[size] = 0;
    return false;
  }

  const PlanProblem& p_;
  std::vector<int> sizes_;
  std::set<std::pair<size_t, Counts>> failed_;
  std::vector<Counts> taken_;
};

}  // namespace

PlanSolution solve_any(const PlanProblem& p) {
  AnyWay any(p);
  std::vector<Counts> by_size = any.find();
  PlanSolution solution;
  if (by_size.size() != p.needs.size()) return solution;
  Counts free;
  for (const CoreKind& kind : p.kinds) free.push_back(kind.free);
  for (size_t need = 0; need < p.needs.size(); ++need) {
    // The nearest kinds of each size, those kept for the system last.
    std::vector<size_t> order(p.kinds.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      return std::pair(p.kinds[a].housekeeping, p.distance[need][a]) <
             std::pair(p.kinds[b].housekeeping, p.distance[need][b]);
    });
    std::vector<int> taken(p.kinds.size());
    for (size_t i : order) {
      int& wanted = by_size[need][any.index_of(p.kinds[i].threads)];
      taken[i] = std::min(wanted, free[i]);
      wanted -= taken[i];
      free[i] -= taken[i];
    }
    solution.cost += own_cost(p, need, taken);
    solution.taken.push_back(taken);
  }
  solution.cost += p.costs.partial * partial_domains(p, free);
  return solution;
}

}  // namespace allot::cpus
