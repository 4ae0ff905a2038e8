// The planner's search: place the needs one after the other, keep the best states (planner.h).
//
// Three bounds keep it small on large machines, each loosened until something is found: how many ways
// a need is placed from one state, how many states are kept, and how many domains more than the fewest
// possible a need may span. The last has an exception for the domains of one node, because many small
// local remnants can be better than one distant domain.
#include <algorithm>
#include <climits>
#include <map>
#include <set>

#include "cpus/planner.h"

namespace allot::cpus {
namespace {

using Counts = std::vector<int>;

struct Limits {
  size_t ways = 0;    // placements of one need looked at from one state, per enumeration
  size_t states = 0;  // states kept after each need
  int slack = 0;      // domains beyond the fewest
};

int cpus_of(const PlanProblem& p, const Need& need, const Counts& taken) {
  int sum = 0;
  for (size_t i = 0; i < taken.size(); ++i) {
    sum += taken[i] * (need.unit == Unit::kCores ? 1 : p.kinds[i].threads);
  }
  return sum;
}

// All ways to serve one need from the free cores, within the bounds. Kinds that are alike (same place,
// same size, same number free and in all) are filled in order, largest share first, so that a way and
// its mirror image are looked at once.
class Ways {
 public:
  Ways(const PlanProblem& p, size_t need, const Counts& free, const Limits& limits)
      : p_(p), need_(p.needs[need]), free_(free), limits_(limits) {
    for (const CoreKind& kind : p.kinds) {
      domains_ = std::max(domains_, kind.domain + 1);
      if (kind.node >= 0) nodes_.insert(kind.node);
    }
  }

  std::set<Counts> find() {
    int fewest = fewest_domains();
    if (fewest < 0) return {};
    enumerate(-1, fewest + limits_.slack);
    if (nodes_.size() > 1) {
      for (int node : nodes_) enumerate(node, fewest + 4 + limits_.slack);
    }
    for (int more = limits_.slack + 1; found_.empty() && more <= domains_; ++more)
      enumerate(-1, fewest + more);
    return std::move(found_);
  }

 private:
  int weight(size_t kind) const { return need_.unit == Unit::kCores ? 1 : p_.kinds[kind].threads; }

  int fewest_domains() const {
    std::vector<int> offer(static_cast<size_t>(domains_));
    for (size_t i = 0; i < free_.size(); ++i)
      offer[static_cast<size_t>(p_.kinds[i].domain)] += free_[i] * weight(i);
    std::sort(offer.rbegin(), offer.rend());
    int sum = 0, used = 0;
    for (int o : offer) {
      if (sum >= need_.count) break;
      sum += o;
      ++used;
    }
    return sum >= need_.count ? used : -1;
  }

  void enumerate(int node, int max_domains) {
    node_ = node;
    max_domains_ = max_domains;
    budget_ = limits_.ways;
    Counts taken(free_.size());
    rest_.assign(free_.size() + 1, 0);
    for (size_t i = free_.size(); i-- > 0;)
      rest_[i] = rest_[i + 1] + (usable(i) ? free_[i] * weight(i) : 0);
    descend(0, need_.count, 0, &taken);
  }

  bool usable(size_t i) const { return node_ < 0 || p_.kinds[i].node == node_; }

  bool alike(size_t a, size_t b) const {
    const CoreKind &x = p_.kinds[a], &y = p_.kinds[b];
    auto total = [this](const CoreKind& k) {
      return p_.domain_cores[static_cast<size_t>(k.domain)];
    };
    return x.node == y.node && x.package == y.package && x.threads == y.threads &&
           !x.housekeeping && !y.housekeeping && free_[a] == free_[b] && total(x) == total(y) &&
           alone(a) && alone(b);
  }
  // No other kind in the same domain: only then are two domains interchangeable.
  bool alone(size_t a) const {
    for (size_t i = 0; i < p_.kinds.size(); ++i) {
      if (i != a && p_.kinds[i].domain == p_.kinds[a].domain) return false;
    }
    return true;
  }

  void descend(size_t i, int missing, int used_domains, Counts* taken) {
    if (missing <= 0) {
      if (minimal(*taken) && found_.insert(*taken).second && budget_ > 0) --budget_;
      return;
    }
    if (budget_ == 0 || i == free_.size() || rest_[i] < missing) return;
    int most = usable(i) ? free_[i] : 0;
    most = std::min(most, (missing + weight(i) - 1) / weight(i));
    if (i > 0 && usable(i) && alike(i - 1, i)) most = std::min(most, (*taken)[i - 1]);
    bool fresh = true;
    for (size_t j = 0; j < i; ++j)
      fresh = fresh && !((*taken)[j] > 0 && p_.kinds[j].domain == p_.kinds[i].domain);
    for (int n = most; n >= 0; --n) {
      int domains = used_domains + (n > 0 && fresh ? 1 : 0);
      if (domains > max_domains_) continue;
      (*taken)[i] = n;
      descend(i + 1, missing - n * weight(i), domains, taken);
    }
    (*taken)[i] = 0;
  }

  // No core could be left out: with cores of several sizes a way may hold one too many.
  bool minimal(const Counts& taken) const {
    int surplus = cpus_of(p_, need_, taken) - need_.count;
    for (size_t i = 0; i < taken.size(); ++i) {
      if (taken[i] > 0 && surplus >= weight(i)) return false;
    }
    return true;
  }

  const PlanProblem& p_;
  const Need& need_;
  const Counts& free_;
  const Limits& limits_;
  int domains_ = 0;
  std::set<int> nodes_;
  int node_ = -1;
  int max_domains_ = 0;
  size_t budget_ = 0;
  std::vector<int> rest_;
  std::set<Counts> found_;
};

struct State {
  int cost = 0;
  size_t parent = 0;
  Counts taken;
};
using Layer = std::map<Counts, State>;  // free cores -> cheapest way there

// Large and picky needs first: what they leave suits small ones better than the other way round.
std::vector<size_t> order_of(const PlanProblem& p) {
  std::vector<size_t> order(p.needs.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  auto size = [&p](size_t i) {
    return p.needs[i].count * (p.needs[i].unit == Unit::kCores ? 2 : 1);
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return size(a) > size(b); });
  return order;
}

PlanSolution search(const PlanProblem& p, const Limits& limits) {
  std::vector<size_t> order = order_of(p);
  Counts free;
  for (const CoreKind& kind : p.kinds) free.push_back(kind.free);
  std::vector<std::vector<std::pair<Counts, State>>> layers{{{free, State{}}}};
  for (size_t need : order) {
    Layer next;
    for (size_t from = 0; from < layers.back().size(); ++from) {
      const auto& [now, state] = layers.back()[from];
      for (const Counts& taken : Ways(p, need, now, limits).find()) {
        Counts left = now;
        for (size_t i = 0; i < left.size(); ++i) left[i] -= taken[i];
        int cost = state.cost + own_cost(p, need, taken);
        auto [it, added] = next.try_emplace(std::move(left), State{cost, from, taken});
        if (!added && cost < it->second.cost) it->second = {cost, from, taken};
      }
    }
    if (next.empty()) return {};
    std::vector<std::pair<int, Layer::iterator>> ranked;
    for (auto it = next.begin(); it != next.end(); ++it) {
      ranked.emplace_back(it->second.cost + p.costs.partial * partial_domains(p, it->first), it);
    }
    std::stable_sort(ranked.begin(), ranked.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    if (ranked.size() > limits.states) ranked.resize(limits.states);
    layers.emplace_back();
    for (auto& [rank, it] : ranked) layers.back().emplace_back(it->first, std::move(it->second));
  }
  // The layers are ranked with the fragmentation, so the first of the last one is the best.
  PlanSolution solution;
  solution.taken.resize(p.needs.size());
  size_t at = 0;
  solution.cost =
      layers.back()[0].second.cost + p.costs.partial * partial_domains(p, layers.back()[0].first);
  for (size_t depth = layers.size(); depth-- > 1;) {
    const State& state = layers[depth][at].second;
    solution.taken[order[depth - 1]] = state.taken;
    at = state.parent;
  }
  return solution;
}

}  // namespace

int own_cost(const PlanProblem& p, size_t need, const std::vector<int>& taken) {
  CpuSet domains, nodes, packages;
  int cost = 0;
  for (size_t i = 0; i < taken.size(); ++i) {
    if (taken[i] == 0) continue;
    const CoreKind& kind = p.kinds[i];
    domains.add(kind.domain);
    nodes.add(kind.node);
    packages.add(kind.package);
    cost += taken[i] * kind.threads * p.distance[need][i] * p.costs.distance;
    if (kind.housekeeping) cost += taken[i] * kind.threads * p.costs.housekeeping;
  }
  int surplus = cpus_of(p, p.needs[need], taken) - p.needs[need].count;
  if (surplus < 0) return -1;
  auto extra = [](const CpuSet& set) { return std::max(0, set.count() - 1); };
  return cost + surplus * p.costs.idle_thread + extra(domains) * p.costs.domain +
         extra(nodes) * p.costs.node + extra(packages) * p.costs.package;
}

int partial_domains(const PlanProblem& p, const std::vector<int>& free) {
  std::vector<int> left(p.domain_cores.size());
  for (size_t i = 0; i < free.size(); ++i) left[static_cast<size_t>(p.kinds[i].domain)] += free[i];
  int n = 0;
  for (size_t d = 0; d < left.size(); ++d) n += left[d] > 0 && left[d] < p.domain_cores[d] ? 1 : 0;
  return n;
}

PlanSolution solve(const PlanProblem& problem) {
  int cores = 0;
  for (const CoreKind& kind : problem.kinds) cores += kind.free;
  bool small = cores <= 64;
  for (Limits limits : {small ? Limits{300, 100, 2} : Limits{24, 12, 1}, Limits{2000, 2000, 64}}) {
    PlanSolution solution = search(problem, limits);
    if (!solution.taken.empty() || problem.needs.empty()) return solution;
  }
  return {};
}

}  // namespace allot::cpus
