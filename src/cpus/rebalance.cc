// Moving starved threads within their slice (watch.h).
//
// A thread pinned to part of its slice keeps its kind of pin: the new mask has as many CPUs as the
// old one, with the busiest replaced by the idlest. Threads that may use the whole slice are the
// kernel's business. Whose pins are all equally loaded is balanced, however little each gets.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "cpus/watch.h"

namespace allot::cpus {
namespace {

struct SchedStat {
  uint64_t ran_ns = 0, waited_ns = 0;
};

std::optional<SchedStat> schedstat(const FsRoot& fs, pid_t pid, pid_t tid) {
  std::optional<std::string> text = fs.read(fmt::format("/proc/{}/task/{}/schedstat", pid, tid));
  if (!text) return std::nullopt;
  SchedStat s;
  const char* end = text->data() + text->size();
  auto [at, ec] = std::from_chars(text->data(), end, s.ran_ns);
  if (ec != std::errc{} || at >= end) return std::nullopt;
  if (std::from_chars(at + 1, end, s.waited_ns).ec != std::errc{}) return std::nullopt;
  return s;
}

// Where a thread's demand falls when it may run on several CPUs: evenly.
void add_load(std::vector<double>* load, const CpuSet& mask, double demand) {
  double part = demand / std::max(1, mask.count());
  for (int cpu = mask.first(); cpu >= 0; cpu = mask.next(cpu))
    (*load)[static_cast<size_t>(cpu)] += part;
}

double mean(const std::vector<double>& load, const CpuSet& mask) {
  double sum = 0;
  for (int cpu = mask.first(); cpu >= 0; cpu = mask.next(cpu))
    sum += load[static_cast<size_t>(cpu)];
  return sum / std::max(1, mask.count());
}

}  // namespace

std::vector<Watcher::Demand> Watcher::demands_of(const Lease& lease, double seconds) {
  std::vector<Demand> demands;
  for (pid_t pid : processes_of(lease)) {
    for (pid_t tid : threads_of(fs_, pid)) {
      std::optional<SchedStat> now = schedstat(fs_, pid, tid);
      std::optional<ThreadStat> stat = thread_stat(fs_, pid, tid);
      CpuSet mask;
      if (!now || !stat || get_affinity(tid, &mask) != 0) continue;
      auto [it, fresh] = threads_.try_emplace({tid, stat->start_ticks});
      ThreadSample& sample = it->second;
      double ran = static_cast<double>(now->ran_ns - sample.ran_ns) / 1e9;
      double waited = static_cast<double>(now->waited_ns - sample.waited_ns) / 1e9;
      sample.ran_ns = now->ran_ns;
      sample.waited_ns = now->waited_ns;
      if (fresh || seconds <= 0) continue;
      // A wait is booked when it ends, so one that began long ago may exceed the interval.
      double demand = std::min(1.0, (ran + waited) / seconds);
      demands.push_back({pid, tid, mask & lease.cpus, demand, std::min(1.0, waited / seconds)});
    }
  }
  return demands;
}

void Watcher::rebalance(const Lease& lease, double now_s, double seconds,
                        std::vector<WatchAction>* actions) {
  CpuSet slice = lease.cpus & online_;
  std::vector<Demand> demands = demands_of(lease, seconds);
  if (slice.count() < 2) return;
  std::vector<double> load(static_cast<size_t>(kMaxCpus), 0);
  for (const Demand& d : demands) add_load(&load, d.mask.empty() ? slice : d.mask, d.demand);
  // The most starved first; each move is seen by the next decision.
  std::sort(demands.begin(), demands.end(),
            [](const Demand& a, const Demand& b) { return a.waited > b.waited; });
  for (Demand& d : demands) {
    std::optional<ThreadStat> stat = thread_stat(fs_, d.pid, d.tid);
    if (!stat) continue;
    ThreadSample& sample = threads_[{d.tid, stat->start_ticks}];
    bool pinned = !d.mask.empty() && slice.contains(d.mask) && d.mask != slice;
    if (!pinned || d.waited < options_.wait_part) {
      sample.starved_looks = 0;
      continue;
    }
    if (++sample.starved_looks < 2 || now_s - sample.moved_s < options_.rest_s) continue;
    int idlest = -1, busiest = d.mask.first();
    for (int cpu = slice.first(); cpu >= 0; cpu = slice.next(cpu)) {
      double here = load[static_cast<size_t>(cpu)];
      if (d.mask.has(cpu) && here > load[static_cast<size_t>(busiest)]) busiest = cpu;
      if (!d.mask.has(cpu) && (idlest < 0 || here < load[static_cast<size_t>(idlest)]))
        idlest = cpu;
    }
    CpuSet moved = d.mask;
    moved.remove(busiest);
    moved.add(idlest);
    double before = mean(load, d.mask), there = load[static_cast<size_t>(idlest)];
    // With a margin of a quarter CPU: a tie is no reason to move, and demand is a measurement.
    if (there + d.demand / d.mask.count() > load[static_cast<size_t>(busiest)] - 0.25) continue;
    std::string what =
        fmt::format("move thread {} from CPUs {} to {}", d.tid, to_list(d.mask), to_list(moved));
    std::string why =
        fmt::format("it waited {:.0f} % of {:.1f} s there (load {:.1f}), CPU {} has load {:.1f}",
                    d.waited * 100, seconds, before, idlest, there);
    int error = options_.dry_run ? 0 : set_affinity(d.tid, moved);
    act({WatchAction::Kind::kRebalance, lease.name, what, why, false, ""}, error, actions);
    sample.moved_s = now_s;
    sample.starved_looks = 0;
    if (error != 0) continue;
    add_load(&load, d.mask, -d.demand);
    add_load(&load, moved, d.demand);
  }
}

}  // namespace allot::cpus
