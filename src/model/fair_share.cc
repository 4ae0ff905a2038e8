// See fair_share.h. A flow network: source -> task (what it is to get) -> allowed CPUs -> sink
// (1 each).
#include "model/fair_share.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <queue>

namespace allot::model {
namespace {

constexpr double kTiny = 1e-9;

// Maximum flow by augmenting along shortest paths (Edmonds-Karp); the networks are small.
class Network {
 public:
  Network(const std::vector<ShareTask>& tasks, const Mask& cpus) : tasks_(tasks.size()) {
    for (int cpu = cpus.first(); cpu >= 0; cpu = cpus.next(cpu)) cpu_.push_back(cpu);
    nodes_ = tasks_ + cpu_.size() + 2;
    links_.resize(nodes_);
    for (size_t t = 0; t < tasks_; ++t) {
      link(source(), t, 0.0);
      for (size_t c = 0; c < cpu_.size(); ++c) {
        if (tasks[t].allowed.test(cpu_[c]))
          link(t, tasks_ + c, std::numeric_limits<double>::infinity());
      }
    }
    for (size_t c = 0; c < cpu_.size(); ++c) link(tasks_ + c, sink(), 1.0);
  }

  // Lets every task have wants[t]; true when all can be had. Else *short_of marks the tasks on the
  // source's side of the cut: those that together are confined to too few CPUs.
  bool feasible(const std::vector<double>& wants, std::vector<bool>* short_of) {
    double total = 0;
    for (Edge& edge : edges_) edge.flow = 0;
    for (size_t t = 0; t < tasks_; ++t) {
      edges_[links_[source()][t]].capacity = wants[t];
      total += wants[t];
    }
    double flow = 0;
    for (double pushed = augment(); pushed > 0; pushed = augment()) flow += pushed;
    short_of->assign(tasks_, false);
    for (size_t t = 0; t < tasks_; ++t) (*short_of)[t] = reached_[t];
    return flow > total - kTiny * static_cast<double>(tasks_ + 1);
  }

  // CPUs that the marked tasks may use, in all.
  double room(const std::vector<ShareTask>& tasks, const std::vector<bool>& marked) const {
    Mask any;
    for (size_t t = 0; t < tasks_; ++t) {
      if (marked[t]) any = any | tasks[t].allowed;
    }
    double count = 0;
    for (int cpu : cpu_) count += any.test(cpu) ? 1 : 0;
    return count;
  }

 private:
  struct Edge {
    size_t to;
    double capacity;
    double flow;
  };
  size_t source() const { return nodes_ - 2; }
  size_t sink() const { return nodes_ - 1; }

  void link(size_t from, size_t to, double capacity) {
    links_[from].push_back(edges_.size());
    edges_.push_back({to, capacity, 0});
    links_[to].push_back(edges_.size());
    edges_.push_back({from, 0, 0});
  }

  double augment() {
    std::vector<size_t> by(nodes_, edges_.size());
    reached_.assign(nodes_, false);
    reached_[source()] = true;
    std::queue<size_t> open;
    open.push(source());
    while (!open.empty()) {
      size_t node = open.front();
      open.pop();
      for (size_t id : links_[node]) {
        const Edge& edge = edges_[id];
        if (reached_[edge.to] || edge.capacity - edge.flow <= kTiny) continue;
        reached_[edge.to] = true;
        by[edge.to] = id;
        open.push(edge.to);
      }
    }
    if (!reached_[sink()]) return 0;
    double most = std::numeric_limits<double>::infinity();
    for (size_t node = sink(); node != source(); node = edges_[by[node] ^ 1].to) {
      most = std::min(most, edges_[by[node]].capacity - edges_[by[node]].flow);
    }
    for (size_t node = sink(); node != source(); node = edges_[by[node] ^ 1].to) {
      edges_[by[node]].flow += most;
      edges_[by[node] ^ 1].flow -= most;
    }
    return most;
  }

  size_t tasks_;
  std::vector<int> cpu_;
  size_t nodes_ = 0;
  std::vector<std::vector<size_t>> links_;
  std::vector<Edge> edges_;
  std::vector<bool> reached_;
};

}  // namespace

std::vector<double> fair_shares(const std::vector<ShareTask>& tasks, const Mask& cpus) {
  size_t count = tasks.size();
  std::vector<double> share(count, 0.0);
  std::vector<bool> settled(count, false);
  for (size_t t = 0; t < count; ++t) settled[t] = !tasks[t].allowed.intersects(cpus);
  Network network(tasks, cpus);

  while (std::find(settled.begin(), settled.end(), false) != settled.end()) {
    // The highest level at which every unsettled task can have level x weight, up to its demand.
    double level = 0;
    for (size_t t = 0; t < count; ++t) {
      if (!settled[t]) level = std::max(level, tasks[t].demand / tasks[t].weight);
    }
    auto wants_at = [&](double at) {
      std::vector<double> wants = share;
      for (size_t t = 0; t < count; ++t) {
        if (!settled[t]) wants[t] = std::min(tasks[t].demand, at * tasks[t].weight);
      }
      return wants;
    };
    std::vector<bool> confined;
    std::vector<bool> blocked(count, false);
    bool cut = false;
    while (!network.feasible(wants_at(level), &confined)) {
      // The cut names the tasks that cannot all be served: lower the level to what their CPUs give.
      cut = true;
      blocked = confined;
      double lower = 0;
      double upper = level;
      double room = network.room(tasks, confined);
      for (int i = 0; i < 200 && upper - lower > 1e-13; ++i) {
        double middle = (lower + upper) / 2;
        std::vector<double> wants = wants_at(middle);
        double sum = 0;
        for (size_t t = 0; t < count; ++t) sum += confined[t] ? wants[t] : 0;
        (sum <= room ? lower : upper) = middle;
      }
      level = lower;
    }
    std::vector<double> wants = wants_at(level);
    bool progress = false;
    for (size_t t = 0; t < count; ++t) {
      if (settled[t]) continue;
      if (!cut || blocked[t] || wants[t] >= tasks[t].demand - kTiny) {
        share[t] = wants[t];
        settled[t] = true;
        progress = true;
      }
    }
    if (!progress) break;
  }
  return share;
}

}  // namespace allot::model
