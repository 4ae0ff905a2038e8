// Exact branch and bound: see planner_oracle.h.
#include "cpus/planner_oracle.h"

#include <algorithm>
#include <climits>
#include <map>

namespace allot::cpus {
namespace {

class Search {
 public:
  Search(const PlanProblem& p, int known, uint64_t budget) : p_(p), budget_(budget) {
    for (const CoreKind& kind : p.kinds) free_.push_back(kind.free);
    best_ = known >= 0 ? known + 1 : INT_MAX;  // an equal solution must be found again
    group_kinds();
  }

  Optimum run() {
    // What each need would cost alone bounds what it costs among others.
    alone_.assign(p_.needs.size() + 1, 0);
    std::vector<int> solo(p_.needs.size());
    for (size_t need = 0; need < p_.needs.size(); ++need) {
      solo_best_ = INT_MAX;
      solo_ = true;
      place(need, 0, 0, Used{}, 0);
      solo_ = false;
      if (solo_best_ == INT_MAX) return {nodes_ < budget_, false, 0, nodes_};
      solo[need] = solo_best_;
    }
    for (size_t need = p_.needs.size(); need-- > 0;) alone_[need] = alone_[need + 1] + solo[need];
    next(0, 0);
    bool found = best_ != INT_MAX && reached_;
    return {nodes_ < budget_, found, best_, nodes_};
  }

 private:
  struct Used {
    uint64_t domains = 0, nodes = 0, packages = 0;
  };

  bool alone(size_t i) const {
    return std::count_if(p_.kinds.begin(), p_.kinds.end(), [&](const CoreKind& other) {
             return other.domain == p_.kinds[i].domain;
           }) == 1;
  }

  // Kinds that stand for whole domains and differ in nothing: their free counts may be sorted.
  void group_kinds() {
    std::map<std::vector<int>, std::vector<size_t>> groups;
    for (size_t i = 0; i < p_.kinds.size(); ++i) {
      const CoreKind& k = p_.kinds[i];
      bool alone = std::count_if(p_.kinds.begin(), p_.kinds.end(), [&k](const CoreKind& other) {
                     return other.domain == k.domain;
                   }) == 1;
      if (!alone) continue;
      groups[{k.node, k.package, k.threads, k.housekeeping ? 1 : 0,
              p_.domain_cores[static_cast<size_t>(k.domain)]}]
          .push_back(i);
    }
    mirror_.assign(p_.kinds.size(), false);
    for (auto& [key, members] : groups) {
      if (members.size() > 1) groups_.push_back(members);
      for (size_t m = 1; m < members.size(); ++m)
        mirror_[members[m]] = members[m] == members[m - 1] + 1;
    }
  }

  std::vector<int> canonical() const {
    std::vector<int> state = free_;
    for (const std::vector<size_t>& group : groups_) {
      std::vector<int> values;
      values.reserve(group.size());
      for (size_t i : group) values.push_back(state[i]);
      std::sort(values.begin(), values.end());
      for (size_t i = 0; i < group.size(); ++i) state[group[i]] = values[i];
    }
    return state;
  }

  int segments() const {
    std::vector<int> left(p_.domain_cores.size());
    for (size_t i = 0; i < free_.size(); ++i)
      left[static_cast<size_t>(p_.kinds[i].domain)] += free_[i];
    int n = 0;
    for (size_t d = 0; d < left.size(); ++d) {
      if (left[d] != 0 && left[d] != p_.domain_cores[d]) ++n;
    }
    return n;
  }

  void next(size_t need, int cost) {
    if (need == p_.needs.size()) {
      int total = cost + segments() * p_.costs.partial;
      if (total < best_) {
        best_ = total;
        reached_ = true;
      }
      return;
    }
    auto [it, fresh] = seen_.try_emplace({need, canonical()}, cost);
    if (!fresh && it->second <= cost) return;
    it->second = cost;
    place(need, 0, 0, Used{}, cost);
  }

  // Decides how many cores of kind `i` the need gets; `have` is what it has of the kinds before.
  void place(size_t need, size_t i, int have, Used used, int cost) {
    if (++nodes_ >= budget_) return;
    const Need& n = p_.needs[need];
    if (have >= n.count) {
      int surplus = (have - n.count) * p_.costs.idle_thread;
      if (solo_) {
        solo_best_ = std::min(solo_best_, cost + surplus);
      } else if (cost + surplus + alone_[need + 1] < best_) {
        next(need + 1, cost + surplus);
      }
      return;
    }
    if (i == p_.kinds.size() || rest(need, i) < n.count - have) return;
    int more = fewest_more(need, i, n.count - have, used) * p_.costs.domain;
    if (have == 0 && more > 0) more -= p_.costs.domain;  // the first domain is free of charge
    if (solo_ ? cost + more >= solo_best_ : cost + more + alone_[need + 1] >= best_) return;
    const CoreKind& kind = p_.kinds[i];
    int each = n.unit == Unit::kCores ? 1 : kind.threads;
    int price = kind.threads * (p_.distance[need][i] * p_.costs.distance +
                                (kind.housekeeping ? p_.costs.housekeeping : 0));
    int had = free_[i];
    // Of two kinds that differ in nothing, the first takes at least as much.
    int most = i > 0 && mirror_[i] && free_[i - 1] + taken_before_ == had
                   ? std::min(had, taken_before_)
                   : had;
    for (int take = 0; take <= most; ++take) {
      if (take > 0 && have + (take - 1) * each >= n.count) break;
      free_[i] = had - take;
      Used now = used;
      int spread = 0;
      if (take > 0) {
        spread += widen(&now.domains, kind.domain, p_.costs.domain);
        spread += widen(&now.nodes, kind.node, p_.costs.node);
        spread += widen(&now.packages, kind.package, p_.costs.package);
      }
      int outer = taken_before_;
      taken_before_ = take;
      place(need, i + 1, have + take * each, now, cost + spread + take * price);
      taken_before_ = outer;
    }
    free_[i] = had;
  }

  // Units that kinds from `i` on still offer.
  int rest(size_t need, size_t i) const {
    int sum = 0;
    for (; i < free_.size(); ++i)
      sum += free_[i] * (p_.needs[need].unit == Unit::kCores ? 1 : p_.kinds[i].threads);
    return sum;
  }

  // How many unused domains must at least be opened to get `missing` units from kind `i` onwards.
  int fewest_more(size_t need, size_t i, int missing, const Used& used) const {
    std::vector<int> fresh(p_.domain_cores.size());
    for (; i < free_.size(); ++i) {
      int units = free_[i] * (p_.needs[need].unit == Unit::kCores ? 1 : p_.kinds[i].threads);
      size_t domain = static_cast<size_t>(p_.kinds[i].domain);
      if ((used.domains >> domain & 1) != 0) {
        missing -= units;
      } else {
        fresh[domain] += units;
      }
    }
    std::sort(fresh.rbegin(), fresh.rend());
    int opened = 0;
    for (; missing > 0; ++opened) missing -= fresh[static_cast<size_t>(opened)];
    return opened;
  }

  // The price of using place `where`, when another one is in use already and this one is not.
  static int widen(uint64_t* used, int where, int price) {
    if (where < 0) return 0;
    uint64_t bit = uint64_t{1} << where;
    if ((*used & bit) != 0) return 0;
    bool first = *used == 0;
    *used |= bit;
    return first ? 0 : price;
  }

  const PlanProblem& p_;
  uint64_t budget_;
  uint64_t nodes_ = 0;
  std::vector<int> free_;
  std::vector<int> alone_;
  std::vector<std::vector<size_t>> groups_;
  std::vector<bool> mirror_;  // the kind before differs in nothing but its number free
  int taken_before_ = 0;
  std::map<std::pair<size_t, std::vector<int>>, int> seen_;
  int best_ = 0;
  bool reached_ = false;
  bool solo_ = false;
  int solo_best_ = 0;
};

}  // namespace

Optimum optimum(const PlanProblem& problem, int known, uint64_t node_budget) {
  return Search(problem, known, node_budget).run();
}

}  // namespace allot::cpus
