// A GPU on a virtual clock, for tests of the policy of GPU time: slices with patterns of demand,
// the policy and the ceilings as an agent would use them, and a card that gives its time to the
// open slices with work by their timeslices. No switches, no latency: what is wrong here is the
// policy's fault.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "core/time_ceiling.h"
#include "core/time_gaps.h"
#include "core/time_policy.h"

namespace allot::core {

// The same numbers everywhere, of a width that fits the fields.
struct Random {
  using result_type = uint32_t;
  explicit Random(uint32_t seed) : engine(seed) {}
  static constexpr uint32_t min() { return 0; }
  static constexpr uint32_t max() { return UINT32_MAX; }
  uint32_t operator()() { return static_cast<uint32_t>(engine()); }
  std::mt19937 engine;
};

inline constexpr uint64_t kMs = 1'000'000;
inline constexpr uint64_t kSecond = 1'000'000'000;

// What a program wants: segments of `work_ns` of GPU time with `pause_ns` between the end of one
// and the start of the next. work 0 = nothing ever; pause 0 = always more.
struct Demand {
  uint64_t work_ns = 0;
  uint64_t pause_ns = 0;
  uint64_t first_ns = 0;  // when it begins
};
inline constexpr Demand kBusy = {kSecond, 0, 0};
inline constexpr Demand kIdle = {};

struct SimSlice {
  SliceDemand slice;
  Demand demand;

  // As the simulation goes.
  double left_ns = 0;    // of the piece under way
  uint64_t next_ns = 0;  // when the next piece begins, if left_ns is 0
  uint64_t active_until_ns = 0;
  Ceiling ceiling;
  bool started = false;  // as the ceiling was told
  double used_ns = 0;
  uint64_t waiting_since_ns = 0;  // last time it ran, or began to want to
  uint64_t longest_wait_ns = 0;   // with work, without running
  std::vector<std::pair<uint64_t, double>> used_at = {{0, 0.0}};  // at every change

  double used_by(uint64_t at_ns) const {
    auto after = std::upper_bound(
        used_at.begin(), used_at.end(), at_ns,
        [](uint64_t at, const std::pair<uint64_t, double>& point) { return at < point.first; });
    const auto& before = *(after - 1);
    if (after == used_at.end()) return before.second;
    const double part = static_cast<double>(at_ns - before.first) /
                        static_cast<double>(after->first - before.first);
    return before.second + part * (after->second - before.second);
  }
  // The most that any span of this length saw, as a part of it.
  double most_in(uint64_t span_ns) const {
    double most = 0;
    for (const auto& [at, used] : used_at) {
      if (at < span_ns) continue;
      most = std::max(most, used - used_by(at - span_ns));
      if (at + span_ns <= used_at.back().first) most = std::max(most, used_by(at + span_ns) - used);
    }
    return most / static_cast<double>(span_ns);
  }
};

class GpuSim {
 public:
  std::vector<SimSlice> slices;
  uint64_t now_ns = 0;

  SimSlice& add(uint32_t share, uint32_t max, Demand demand, bool saturates = true,
                AllotPriority priority = ALLOT_PRIORITY_NORMAL) {
    SimSlice t;
    t.slice = {100 + slices.size(), share, max, 1, priority, false, saturates, false};
    t.demand = demand;
    t.next_ns = demand.work_ns > 0 ? demand.first_ns : std::numeric_limits<uint64_t>::max();
    slices.push_back(t);
    return slices.back();
  }

  void run_until(uint64_t end_ns) {
    while (now_ns < end_ns) step(end_ns);
  }

  double part(size_t i) const { return slices[i].used_ns / static_cast<double>(now_ns); }

 private:
  bool wants(const SimSlice& t) const { return t.left_ns > 0; }

  void arrive() {
    for (SimSlice& t : slices) {
      if (!wants(t) && t.next_ns <= now_ns) {
        t.left_ns = static_cast<double>(t.demand.work_ns);
        t.waiting_since_ns = now_ns;
      }
      t.slice.active = wants(t) || now_ns < t.active_until_ns;
    }
  }

  // Whether slice i's work runs now, by its grant and its ceiling; lowers `next` to when that may
  // change.
  bool runs(SimSlice& t, const TimeGrant& grant, uint64_t& next) {
    next = std::min(next, grant.until_ns);
    t.ceiling.set_max(t.slice.max_permille);
    const bool may = grant.open && t.slice.active;
    const uint64_t from = t.started ? now_ns : t.ceiling.next_start(now_ns);
    const uint64_t until = t.ceiling.may_run_until(now_ns);
    const bool go = may && from <= now_ns && until > now_ns;
    if (go && !t.started) t.ceiling.start(now_ns);
    if (!go && t.started) t.ceiling.stop(now_ns);
    t.started = go;
    if (go) next = std::min(next, until);
    if (may && !go) next = std::min(next, std::max(t.ceiling.next_start(now_ns), now_ns + 1));
    return go && wants(t);
  }

  void step(uint64_t end_ns) {
    arrive();
    std::vector<SliceDemand> view;
    for (const SimSlice& t : slices) view.push_back(t.slice);
    std::vector<TimeGrant> grants(view.size());
    plan_gpu(view, now_ns, grants);

    uint64_t next = end_ns;
    double timeslices = 0;
    std::vector<double> rate(view.size(), 0);
    for (size_t i = 0; i < view.size(); ++i) {
      SimSlice& t = slices[i];
      if (runs(t, grants[i], next)) timeslices += rate[i] = std::max(1u, grants[i].timeslice_us);
      if (!wants(t)) next = std::min(next, t.next_ns);
      if (!wants(t) && t.active_until_ns > now_ns) next = std::min(next, t.active_until_ns);
    }
    for (size_t i = 0; i < view.size(); ++i) {
      if (rate[i] == 0) continue;
      rate[i] /= timeslices;
      const double needed = slices[i].left_ns / rate[i];
      if (needed < static_cast<double>(end_ns)) {
        next = std::min(next, now_ns + std::max<uint64_t>(1, static_cast<uint64_t>(needed)));
      }
    }
    next = std::max(next, now_ns + 1);
    pass(next, rate);
  }

  void pass(uint64_t to_ns, const std::vector<double>& rate) {
    const double span = static_cast<double>(to_ns - now_ns);
    for (size_t i = 0; i < slices.size(); ++i) {
      SimSlice& t = slices[i];
      if (wants(t)) {
        if (rate[i] > 0) t.waiting_since_ns = to_ns;
        t.longest_wait_ns = std::max(t.longest_wait_ns, to_ns - t.waiting_since_ns);
      }
      if (rate[i] > 0) {
        const double used = std::min(t.left_ns, span * rate[i]);
        t.used_ns += used;
        t.left_ns -= used;
        if (t.left_ns < 1) {
          t.left_ns = t.demand.pause_ns == 0 ? static_cast<double>(t.demand.work_ns) : 0;
          t.next_ns = to_ns + t.demand.pause_ns;
          t.active_until_ns = to_ns + GapMeter::kIdleNs;
        }
      }
      if (t.slice.max_permille > 0) t.used_at.emplace_back(to_ns, t.used_ns);
    }
    now_ns = to_ns;
  }
};

}  // namespace allot::core
