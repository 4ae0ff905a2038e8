// The planner's search: place the needs one after the other, keep the best states (planner.h).
//
// What one need costs is a sum over the kinds of core in order of place, when it is remembered what
// of the current package, node and domain is in use. So a table gives the exact least cost from any
// kind on, and the ways to serve a need can be listed cheapest first without looking at others. The
// states reached are ranked by what they have cost, plus the segments they leave, plus a lower
// bound of what the needs to come must cost in them.
#include <algorithm>
#include <array>
#include <climits>
#include <map>
#include <numeric>

#include "cpus/planner.h"

namespace allot::cpus {
namespace {

using Counts = std::vector<int>;
constexpr int kNever = INT_MAX / 4;

struct Limits {
  size_t ways = 0;    // placements of one need that are looked at from one state, the cheapest
  size_t states = 0;  // states kept after each need
};

// The ways to serve one need from one state.
class Ways {
 public:
  Ways(const PlanProblem& p, const std::vector<size_t>& order, size_t need, const Counts& free)
      : p_(p), order_(order), index_(need), need_(p.needs[need]), free_(free) {
    // Where all cores have two threads, pairs are counted: a table half as long.
    if (need_.unit != Unit::kCores) {
      scale_ = 0;
      for (const CoreKind& k : p.kinds) scale_ = std::gcd(scale_, k.threads);
      scale_ = std::max(scale_, 1);
    }
    wanted_ = (need_.count + scale_ - 1) / scale_;
    int widest = 1;
    for (size_t at = 0; at < order.size(); ++at) widest = std::max(widest, weight(at));
    span_ = static_cast<size_t>(wanted_) + static_cast<size_t>(widest);
    fill_table();
  }

  // The cheapest `limit` ways, mirror images of one another counted once.
  std::vector<Counts> cheapest(size_t limit) {
    int least = least_from(0, 0, false, 0);
    if (least >= kNever) return {};
    Counts taken(free_.size());
    // Steps of the costs in use; each pass lists what costs more than the one before allowed.
    int floor = -1;
    // The table does not know of mirror images, so some branches end in nothing: bounded.
    steps_left_ = static_cast<long>(limit) * 200;
    for (int more : {0, 4, 8, 14, 20, 30, 40, 60, 90, 130, 200, 400, 10'000}) {
      floor_ = floor;
      ceiling_ = least + more;
      list(0, 0, false, 0, 0, limit, &taken);
      if (found_.size() >= limit || (steps_left_ < 0 && !found_.empty())) break;
      floor = ceiling_;
    }
    return std::move(found_);
  }

 private:
  const CoreKind& kind(size_t at) const { return p_.kinds[order_[at]]; }
  int free(size_t at) const { return free_[order_[at]]; }
  int weight(size_t at) const { return need_.unit == Unit::kCores ? 1 : kind(at).threads / scale_; }
  int total(size_t at) const { return p_.domain_cores[static_cast<size_t>(kind(at).domain)]; }

  // What is in use where kind `at` stands: 0 not even its package, 1 its package, 2 its node,
  // 3 its domain.
  int level_at(size_t at, int level) const {
    const CoreKind &before = kind(at - 1), &now = kind(at);
    if (before.domain == now.domain) return level;
    if (before.node == now.node && before.package == now.package) return std::min(level, 2);
    return before.package == now.package ? std::min(level, 1) : 0;
  }
  bool last_of_domain(size_t at) const {
    return at + 1 == order_.size() || kind(at + 1).domain != kind(at).domain;
  }
  int free_in_domain(size_t at) const {
    int sum = 0;
    for (size_t i = 0; i < order_.size(); ++i)
      sum += kind(i).domain == kind(at).domain ? free(i) : 0;
    return sum;
  }

  struct Step {
    int cost, level;
    bool left;
  };
  // Taking `n` cores of kind `at`, when `have` is there already.
  Step step(size_t at, int level, bool left, int have, int n) const {
    Step s{n * price_[at], n > 0 ? 3 : level, left || free(at) > n};
    if (n > 0 && have > 0) {
      if (level < 1) s.cost += p_.costs.package;
      if (level < 2) s.cost += p_.costs.node;
      if (level < 3) s.cost += p_.costs.domain;
    }
    if (last_of_domain(at)) {
      if (s.left && (s.level == 3 || begun_[at])) s.cost += p_.costs.partial;
      s.left = false;
    }
    if (at + 1 < order_.size()) s.level = level_at(at + 1, s.level);
    return s;
  }

  int& cell(size_t at, int level, bool left, int have) {
    return table_[((at * 4 + static_cast<size_t>(level)) * 2 + (left ? 1 : 0)) * span_ +
                  static_cast<size_t>(have)];
  }
  int least_from(size_t at, int level, bool left, int have) {
    if (at < order_.size()) return cell(at, level, left, have);
    return have < wanted_ ? kNever : (have * scale_ - need_.count) * p_.costs.idle_thread;
  }
  int most(size_t at, int have) const {
    int missing = std::max(0, wanted_ - have);
    return std::min(free(at), (missing + weight(at) - 1) / weight(at));
  }

  void fill_table() {
    for (size_t at = 0; at < order_.size(); ++at) {
      const CoreKind& k = kind(at);
      price_.push_back(k.threads * (p_.distance[index_][order_[at]] * p_.costs.distance +
                                    (k.housekeeping ? p_.costs.housekeeping : 0)));
      begun_.push_back(free_in_domain(at) < total(at));
    }
    count_mirrors();
    table_.assign(order_.size() * 8 * span_, kNever);
    for (size_t at = order_.size(); at-- > 0;) {
      // Where a domain begins, nothing of it can be in use or left over yet.
      bool begins = at == 0 || kind(at - 1).domain != kind(at).domain;
      for (int level = 0; level < (begins ? 3 : 4); ++level) {
        for (bool left : {false, true}) {
          if (begins && left) continue;
          for (int have = 0; have < static_cast<int>(span_); ++have) {
            int best = kNever;
            for (int n = most(at, have); n >= 0; --n) {
              Step s = step(at, level, left, have, n);
              best = std::min(best,
                              s.cost + least_from(at + 1, s.level, s.left, have + n * weight(at)));
            }
            cell(at, level, left, have) = best;
          }
        }
      }
    }
  }

  // Two kinds that differ in nothing, each the only one of its domain.
  bool alike(size_t a, size_t b) const {
    const CoreKind &x = kind(a), &y = kind(b);
    bool alone =
        last_of_domain(a) && last_of_domain(b) && (a == 0 || kind(a - 1).domain != x.domain);
    return alone && x.domain != y.domain && x.node == y.node && x.package == y.package &&
           x.threads == y.threads && free(a) == free(b) && total(a) == total(b) &&
           !x.housekeeping && !y.housekeeping;
  }

  void count_mirrors() {
    mirrors_.assign(order_.size(), 0);
    after_mirrors_.assign(order_.size(), 0);
    int behind = 0, run = 0;  // units of the kinds behind the run of mirror images, and in it
    for (size_t at = order_.size(); at-- > 0;) {
      if (at + 1 < order_.size() && alike(at, at + 1)) {
        mirrors_[at] = mirrors_[at + 1] + 1;
      } else {
        behind += run;
        run = 0;
      }
      after_mirrors_[at] = behind;
      run += free(at) * weight(at);
    }
  }

  void list(size_t at, int level, bool left, int have, int cost, size_t limit, Counts* taken) {
    int bound = cost + least_from(at, level, left, have);
    if (bound > ceiling_ || found_.size() >= limit) return;
    if (--steps_left_ < 0 && !found_.empty()) return;
    if (at == order_.size()) {
      if (bound > floor_) found_.push_back(*taken);
      return;
    }
    int n = most(at, have);
    if (at > 0 && alike(at - 1, at)) n = std::min(n, (*taken)[order_[at - 1]]);
    for (; n >= 0; --n) {
      // Its mirror images may take no more than it does: fewer here can leave the rest too little.
      if (have + n * weight(at) * (1 + mirrors_[at]) + after_mirrors_[at] < wanted_) break;
      Step s = step(at, level, left, have, n);
      (*taken)[order_[at]] = n;
      list(at + 1, s.level, s.left, have + n * weight(at), cost + s.cost, limit, taken);
    }
    (*taken)[order_[at]] = 0;
  }

  const PlanProblem& p_;
  const std::vector<size_t>& order_;  // kinds by package, node, domain
  size_t index_;
  const Need& need_;
  const Counts& free_;
  int scale_ = 1;   // threads that are counted as one
  int wanted_ = 0;  // in that measure
  size_t span_ = 0;
  std::vector<int> price_;          // of one core
  std::vector<bool> begun_;         // some of the domain is in use already
  std::vector<int> mirrors_;        // how many kinds like this one follow it
  std::vector<int> after_mirrors_;  // units that the kinds behind those offer
  std::vector<int> table_;
  int floor_ = 0, ceiling_ = 0;
  long steps_left_ = 0;
  std::vector<Counts> found_;
};

// No need in this state costs less: the cheapest cores by distance alone, and the fewest
// places by size.
int lower_bound(const PlanProblem& p, size_t need, const Counts& free) {
  const Need& n = p.needs[need];
  std::vector<std::pair<int, int>> offers;  // price of a unit, units
  std::map<int, int> domains, nodes, packages;
  for (size_t i = 0; i < free.size(); ++i) {
    if (free[i] == 0) continue;
    const CoreKind& k = p.kinds[i];
    int weight = n.unit == Unit::kCores ? 1 : k.threads;
    int price = k.threads * (p.distance[need][i] * p.costs.distance +
                             (k.housekeeping ? p.costs.housekeeping : 0));
    offers.emplace_back(price / weight, free[i] * weight);
    domains[k.domain] += free[i] * weight;
    nodes[k.node] += free[i] * weight;
    packages[k.package] += free[i] * weight;
  }
  std::sort(offers.begin(), offers.end());
  int missing = n.count, cost = 0;
  for (auto [price, units] : offers) {
    int take = std::min(units, missing);
    cost += take * price;
    missing -= take;
  }
  if (missing > 0) return kNever;
  auto beyond_first = [&n](const std::map<int, int>& places) {
    std::vector<int> sizes;
    sizes.reserve(places.size());
    for (auto [id, size] : places) sizes.push_back(size);
    std::sort(sizes.rbegin(), sizes.rend());
    int left = n.count, used = 0;
    for (int size : sizes) {
      if (left <= 0) break;
      left -= size;
      ++used;
    }
    return used - 1;
  };
  return cost + beyond_first(domains) * p.costs.domain + beyond_first(nodes) * p.costs.node +
         beyond_first(packages) * p.costs.package;
}

struct State {
  Counts free;
  int cost = 0;
  int rank = 0;
  size_t parent = 0;
  Counts taken;
};

// Large needs first: what they leave suits small ones better than the other way round.
std::vector<size_t> order_of_needs(const PlanProblem& p) {
  std::vector<size_t> order(p.needs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  auto size = [&p](size_t i) {
    return p.needs[i].count * (p.needs[i].unit == Unit::kCores ? 2 : 1);
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return size(a) > size(b); });
  return order;
}

std::vector<size_t> order_of_kinds(const PlanProblem& p) {
  std::vector<size_t> order(p.kinds.size());
  std::iota(order.begin(), order.end(), size_t{0});
  auto place = [&p](size_t i) {
    const CoreKind& k = p.kinds[i];
    return std::array<int, 4>{k.package, k.node, k.domain, k.housekeeping ? 0 : 1};
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return place(a) < place(b); });
  return order;
}

PlanSolution search(const PlanProblem& p, const std::vector<size_t>& needs, const Limits& limits) {
  std::vector<size_t> kinds = order_of_kinds(p);
  std::vector<std::vector<State>> layers(1);
  layers[0].emplace_back();
  for (const CoreKind& kind : p.kinds) layers[0][0].free.push_back(kind.free);
  for (size_t depth = 0; depth < needs.size(); ++depth) {
    std::map<Counts, State> next;
    for (size_t from = 0; from < layers.back().size(); ++from) {
      const State& now = layers.back()[from];
      for (Counts& taken : Ways(p, kinds, needs[depth], now.free).cheapest(limits.ways)) {
        Counts left = now.free;
        for (size_t i = 0; i < left.size(); ++i) left[i] -= taken[i];
        int cost = now.cost + own_cost(p, needs[depth], taken);
        auto [it, added] = next.try_emplace(left);
        if (!added && it->second.cost <= cost) continue;
        int rank = cost + p.costs.partial * partial_domains(p, left);
        for (size_t later = depth + 1; later < needs.size(); ++later) {
          rank = std::min(kNever, rank + lower_bound(p, needs[later], left));
        }
        it->second = {std::move(left), cost, rank, from, std::move(taken)};
      }
    }
    std::vector<State> layer;
    for (auto& [key, state] : next) {
      if (state.rank < kNever) layer.push_back(std::move(state));
    }
    if (layer.empty()) return {};
    std::stable_sort(layer.begin(), layer.end(),
                     [](const State& a, const State& b) { return a.rank < b.rank; });
    if (layer.size() > limits.states) layer.resize(limits.states);
    layers.push_back(std::move(layer));
  }
  // In the last layer the rank is the whole cost, so its first state is the best.
  PlanSolution solution;
  solution.taken.resize(p.needs.size());
  solution.cost = layers.back()[0].rank;
  size_t at = 0;
  for (size_t depth = needs.size(); depth > 0; --depth) {
    const State& state = layers[depth][at];
    solution.taken[needs[depth - 1]] = state.taken;
    at = state.parent;
  }
  return solution;
}

}  // namespace

int own_cost(const PlanProblem& p, size_t need, const std::vector<int>& taken) {
  const Need& n = p.needs[need];
  CpuSet domains, nodes, packages;
  int cost = 0, got = 0;
  for (size_t i = 0; i < taken.size(); ++i) {
    if (taken[i] == 0) continue;
    const CoreKind& kind = p.kinds[i];
    domains.add(kind.domain);
    nodes.add(kind.node);
    packages.add(kind.package);
    got += taken[i] * (n.unit == Unit::kCores ? 1 : kind.threads);
    cost += taken[i] * kind.threads * p.distance[need][i] * p.costs.distance;
    if (kind.housekeeping) cost += taken[i] * kind.threads * p.costs.housekeeping;
  }
  if (got < n.count) return -1;
  auto extra = [](const CpuSet& set) { return std::max(0, set.count() - 1); };
  return cost + (got - n.count) * p.costs.idle_thread + extra(domains) * p.costs.domain +
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
  // The work goes with the number of tables, one for each state kept, and a table is as long as the
  // machine is large. With these widths 64 CPUs take 5 ms at the median and 256 at most 7 ms; 24
  // states instead of 48 were over 5 % above the optimum on twice as many machines (0.8 %).
  int cores = std::accumulate(problem.domain_cores.begin(), problem.domain_cores.end(), 0);
  int threads = 1;
  for (const CoreKind& kind : problem.kinds) threads = std::max(threads, kind.threads);
  bool small = cores * threads <= 64;
  // Tables are as long as the need; one that exceeds the machine must not get a table first.
  for (const Need& need : problem.needs) {
    if (need.count > cores * threads) return {};
  }
  std::vector<size_t> needs = order_of_needs(problem);
  PlanSolution best = search(problem, needs, small ? Limits{48, 48} : Limits{8, 8});
  // A beam may run into a corner from which a need cannot be served at all (1 machine of 9,056).
  return best.taken.empty() ? solve_any(problem) : best;
}

}  // namespace allot::cpus
