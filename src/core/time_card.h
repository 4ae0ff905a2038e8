// A card on a virtual clock, for tests of the policy of GPU time: contexts that take turns by
// timeslices, changes between them that cost time, calls that open and close windows a little
// beside their edges, and programs of all kinds with the agents' own measures of them.
//
// What it costs (H200, driver 580.159.04; bench/results/2026-11-28-h200-580.159.04-guarantee): a
// change of contexts 0.16 ms. Natively, with the driver's slices of 2 ms, the model gives wait :
// full 24 : 79 % of alone as the card does, step : step 39 (card 38), step : full 19 : 70.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/time_gaps.h"
#include "core/time_policy.h"
#include "core/time_sim.h"
#include "core/time_use.h"
#include "core/window_ceiling.h"

namespace allot::core {

enum class Program : uint8_t { kFull, kWait, kRequest, kStep, kLaunchBound, kGraph, kLong };
inline constexpr uint32_t kPrograms = 7;

// All times in ticks.
inline constexpr uint64_t kTickNs = 10'000;
inline constexpr uint64_t ticks(double ms) {
  return static_cast<uint64_t>(ms * 1e6 / static_cast<double>(kTickNs) + 0.5);
}

struct Shape {
  uint64_t work;    // of an operation, on the GPU
  uint64_t host;    // from the end of the wait to the next submission
  uint64_t period;  // an operation is due so often; 0 = as fast as it can
  uint64_t piece;   // work that comes at once, 0 = all
  uint64_t every;   // ticks between two pieces
  uint64_t ahead = 0;  // operations that it submits before it waits for the oldest
  uint64_t on = 0, off = 0;      // it works for so long, then pauses; 0 = it works all the time
  uint64_t loads = 0;            // for so long at first it does little: reads a file, makes a model
};

inline Shape shape_of(Program program) {
  switch (program) {
    case Program::kFull:
    case Program::kGraph:
      return {ticks(16), 1, 0, 0, 0};
    case Program::kWait:
      return {ticks(0.2), ticks(0.43), 0, 0, 0};
    case Program::kRequest:
      return {ticks(0.2), 1, ticks(2.2), 0, 0};
    case Program::kStep:
      return {ticks(0.52), 2, 0, 0, 0};
    case Program::kLaunchBound:
      return {ticks(1.0), 1, 0, ticks(0.02), ticks(0.04)};
    case Program::kLong:
      return {ticks(1e6), 1, 0, 0, 0};
  }
  return {};
}

// What the card does at windows' edges and between contexts.
struct CardCosts {
  uint64_t change = ticks(0.16);       // of contexts
  uint64_t dry = ticks(0.01);          // without work for longer, a context gives the GPU away
  uint64_t opens_early = ticks(0.25);  // before its edge
  uint64_t closes_late = ticks(0.15);  // behind its edge
  uint64_t close_stops = ticks(0.16);  // for whoever runs while another one is closed
};

struct CardSlice {
  SliceDemand slice;
  Shape shape;
  Program program;
  uint64_t from = 0, until = UINT64_MAX;  // it works between these; before and after: idle

  // The program.
  bool in_operation = false;
  uint64_t submitted_at = 0, next_submit = 0, due = 0;
  uint64_t left = 0;     // work that the GPU has
  uint64_t to_come = 0;  // work of the operation not submitted yet
  uint64_t next_piece = 0;
  std::vector<uint64_t> queued;  // `total` at which each operation under way ends
  uint64_t total = 0;            // ticks on the GPU ever, and
  uint64_t asked_for = 0;        // that it was given
  bool bursting = false;
  uint64_t waited = 0;  // when a wait ended a burst
  // Figures.
  uint64_t ran = 0, done = 0;  // ticks on the GPU; operations
  std::vector<uint64_t> waits;
  // The agent.
  bool open = true;
  uint64_t acts_at = UINT64_MAX;  // when the call that is under way works
  bool acts_open = true;
  TimeGrant grant = {};
  SliceUse use;
  GapWatch gaps;
  SliceUse::Counts counts;
  uint64_t burst_open = 0, open_ticks = 0, looked_open = 0;
  uint64_t busy_at_random = 16 * kWhole;
  uint64_t last_work = 0;
  uint64_t next_look = 0;
  bool worked = false;
  uint32_t footprint = kWhole;
  uint32_t used_permille = 0;  // as NVML tells it of one alone
  uint64_t nvml_at = 0, nvml_total = 0, nvml_open = 0;
  bool nvml_steady = false;
  WindowCeiling ceiling;
};

class Card {
 public:
  explicit Card(CardCosts costs = {}, bool native = false) : costs_(costs), native_(native) {}

  std::vector<CardSlice> slices;

  CardSlice& add(Program program, uint32_t share, uint32_t max = 0) {
    CardSlice one;
    one.program = program;
    one.shape = shape_of(program);
    one.slice = {100 + slices.size(), share, max, 1, ALLOT_PRIORITY_NORMAL, false, true, false};
    slices.push_back(one);
    return slices.back();
  }
  CardSlice& add(const Shape& shape, uint32_t share) {
    CardSlice& one = add(Program::kFull, share);
    one.shape = shape;
    return one;
  }

  void run(double ms) {
    for (const uint64_t end = now_ + ticks(ms); now_ < end; ++now_) tick();
  }
  // What was done before counts no more.
  void forget() {
    begin_ = now_;
    for (CardSlice& one : slices) {
      one.ran = one.done = 0;
      one.waits.clear();
    }
  }
  // Part of what the program does alone.
  double progress(size_t i) const {
    const Shape& s = slices[i].shape;
    const uint64_t submits = s.piece == 0 ? s.work : (s.work / s.piece - 1) * s.every + s.piece;
    const uint64_t alone = s.period != 0 ? s.period : submits + s.host;
    const double work = slices[i].program == Program::kLong || s.work > ticks(5)
                            ? static_cast<double>(slices[i].ran) / static_cast<double>(s.work)
                            : static_cast<double>(slices[i].done);
    return work * static_cast<double>(alone) / static_cast<double>(now_ - begin_);
  }
  double use(size_t i) const {
    return static_cast<double>(slices[i].ran) / static_cast<double>(now_ - begin_);
  }
  double wait_ms(size_t i, double part) const {
    std::vector<uint64_t> sorted = slices[i].waits;
    if (sorted.empty()) return 0;
    std::sort(sorted.begin(), sorted.end());
    const auto at = static_cast<size_t>(part * static_cast<double>(sorted.size() - 1));
    return static_cast<double>(sorted[at]) * static_cast<double>(kTickNs) / 1e6;
  }

 private:
  static constexpr uint64_t kLook = ticks(2);
  static constexpr uint64_t kPresent = ticks(500);

  uint64_t ns() const { return kSecond + now_ * kTickNs; }

  void begin_burst(CardSlice& one) {
    if (one.bursting) return;
    one.bursting = true;
    one.burst_open = one.open_ticks;
  }

  void end_burst(CardSlice& one) {
    if (!one.bursting) return;
    one.bursting = false;
    ++one.counts.bursts;
    one.counts.busy_ns += (one.open_ticks - one.burst_open) * kTickNs;
  }

  void submit(CardSlice& one, const Shape& shape) {
    one.in_operation = true;
    one.submitted_at = shape.period != 0 ? one.due : now_;
    one.to_come = shape.work;
    one.next_piece = now_;
    begin_burst(one);
  }

  // What it does now.
  Shape shape_at(const CardSlice& one) const {
    constexpr Shape kLoading = {ticks(0.2), ticks(5), 0, 0, 0};
    const bool loads = one.shape.loads != 0 && now_ < one.from + one.shape.loads;
    return loads ? kLoading : one.shape;
  }

  bool works(const CardSlice& one) const {
    if (now_ < one.from || now_ >= one.until) return false;
    const Shape& shape = one.shape;
    return shape.on == 0 || (now_ - one.from) % (shape.on + shape.off) < shape.on;
  }

  // One that keeps operations ahead of the GPU: it waits for the oldest, and submits the next one.
  void host_ahead(CardSlice& one, const Shape& shape) {
    if (!one.queued.empty() && one.total >= one.queued.front()) {
      one.queued.erase(one.queued.begin());
      ++one.done;
      one.counts.waits += one.bursting;
      end_burst(one);
      one.waited = now_;
      one.next_submit = now_ + shape.host;
    }
    if (works(one) && one.queued.size() <= shape.ahead && now_ >= one.next_submit) {
      one.left += shape.work;
      one.asked_for += shape.work;
      one.queued.push_back(one.asked_for);
      begin_burst(one);
      one.next_submit = now_ + shape.host;
    }
    one.in_operation = !one.queued.empty();
  }

  void host(CardSlice& one) {
    const Shape shape = shape_at(one);
    if (shape.ahead != 0 || !one.queued.empty()) return host_ahead(one, shape);
    if (!one.in_operation && works(one) && now_ >= one.next_submit) submit(one, shape);
    if (!one.in_operation) return;
    if (one.to_come > 0 && now_ >= one.next_piece) {
      const uint64_t piece =
          shape.piece == 0 || shape.piece > one.to_come ? one.to_come : shape.piece;
      begin_burst(one);
      one.left += piece;
      one.asked_for += piece;
      one.to_come -= piece;
      one.next_piece = now_ + shape.every;
    }
    if (one.left > 0 || one.to_come > 0) return;
    one.in_operation = false;
    ++one.done;
    one.waits.push_back(now_ - one.submitted_at + 1);
    one.counts.waits += one.bursting;
    end_burst(one);
    one.waited = now_;
    one.next_submit = now_ + shape.host;
    if (shape.period != 0) {
      while (one.due <= now_) one.due += shape.period;
      one.next_submit = one.due;
    }
  }

  bool ready(const CardSlice& one) const { return one.left > 0 && one.open; }

  void gpu() {
    if (changing_ > 0) {
      --changing_;
      return;
    }
    const size_t count = slices.size();
    CardSlice& now = slices[current_];
    dry_ = ready(now) ? 0 : dry_ + 1;
    if (now.open && dry_ > 0 && dry_ <= costs_.dry) return;
    const uint64_t slice_us = native_ ? 2000 : std::max(1u, now.grant.timeslice_us);
    const bool used_up = turn_ * kTickNs >= slice_us * 1000;
    if (!ready(now) || used_up) {
      for (size_t k = 1; k < count; ++k) {
        const size_t next = (current_ + k) % count;
        if (!ready(slices[next])) continue;
        current_ = next;
        turn_ = dry_ = 0;
        changing_ = costs_.change - 1;
        return;
      }
      turn_ = used_up ? 0 : turn_;
    }
    CardSlice& one = slices[current_];
    if (!ready(one)) return;
    --one.left;
    ++one.ran;
    ++one.total;
    ++turn_;
  }

  // The part of its open time of a second that it used, if it was alone in that and the one before
  // (shim/time/prober.cc).
  void ask_nvml(CardSlice& one, bool alone, bool work) {
    const bool wanted = alone && (work || now_ < one.last_work + ticks(300));
    if (wanted && one.nvml_at != 0 && now_ - one.nvml_at < ticks(1000)) return;
    const uint64_t open = one.open_ticks - one.nvml_open;
    if (wanted && one.nvml_at != 0 && one.nvml_steady && open > 0) {
      const uint64_t use = std::max<uint64_t>(1, (one.total - one.nvml_total) * kWhole / open);
      const uint64_t before = one.used_permille;
      one.used_permille = static_cast<uint32_t>(
          std::min<uint64_t>(kWhole, before == 0 || use > before ? use : (3 * before + use) / 4));
    }
    one.nvml_steady = wanted && one.nvml_at != 0;
    one.nvml_at = wanted ? now_ : 0;
    one.nvml_total = one.total;
    one.nvml_open = one.open_ticks;
  }

  // As the agents do (shim/time/agent_gpu.cc).
  void look(CardSlice& one, size_t active) {
    // A launch that is under way counts as work, its own gaps do not.
    const bool work = one.left > 0 || (one.to_come > 0 && now_ + 1 >= one.next_piece);
    if (!work && now_ > one.waited + ticks(50)) end_burst(one);  // as the prober does
    SliceUse::Counts counts = one.counts;
    counts.open_ns = one.open_ticks * kTickNs;
    if (one.bursting) counts.busy_ns += (one.open_ticks - one.burst_open) * kTickNs;
    const bool cut = one.grant.window_permille < kWhole;
    bool undisturbed = one.grant.undisturbed || (!cut && active <= 1);
    if (!cut && active > 1) undisturbed = false;
    one.gaps.look(ns(), (one.open_ticks - one.looked_open) * kTickNs, undisturbed, work);
    one.looked_open = one.open_ticks;
    if (one.open) {
      one.busy_at_random = (one.busy_at_random * 31 + (work ? kWhole * 16 : 0)) / 32;
    }
    ask_nvml(one, active <= 1, work || one.in_operation);
    one.use.look(ns(), counts, {undisturbed, cut, one.grant.part_permille, one.grant.first});
    if (work || one.in_operation) {
      one.last_work = now_;
      one.worked = true;
    }
    SliceDemand& slice = one.slice;
    slice.saturates = core::saturates(one.gaps.saturates(),
                                      one.gaps.knows() ? one.gaps.busy_permille() : 0,
                                      one.used_permille, one.use);
    const uint32_t footprint =
        slice.saturates || one.busy_at_random > 900 * 16 ? kWhole : one.use.footprint_permille();
    const uint32_t by =
        footprint > one.footprint ? footprint - one.footprint : one.footprint - footprint;
    if (by >= 15 || footprint == kWhole) one.footprint = footprint;
    slice.footprint_permille = one.footprint;
    slice.credit = one.use.credit() && footprint < kWhole;
    slice.waits = one.use.waits();
    const uint64_t stays = slice.credit ? kPresent : GapMeter::kIdleNs / kTickNs;
    slice.active = one.worked && now_ < one.last_work + stays + kLook;
    slice.awake = slice.active || (one.worked && now_ < one.last_work + ticks(10'000));
  }

  // The slices' grants as they are at `at`.
  void plan(uint64_t at_ns, std::vector<TimeGrant>& grants) {
    std::vector<SliceDemand> view;
    for (const CardSlice& one : slices) view.push_back(one.slice);
    grants.resize(view.size());
    plan_gpu(view, at_ns, grants);
  }

  void agents() {
    size_t active = 0;
    bool news = false;
    for (const CardSlice& one : slices) active += one.slice.active;
    for (CardSlice& one : slices) {
      const bool idle = !one.slice.active && one.worked && now_ > one.last_work + ticks(50);
      if (!one.slice.active && one.in_operation) one.next_look = now_;
      else if (idle) continue;  // its agent sleeps
      if (now_ < one.next_look) continue;
      look(one, active);
      one.next_look = now_ + (one.open ? kLook : 5 * kLook / 2) + random_() % 32;
      news = true;
    }
    if (!news && now_ < next_plan_) return;
    std::vector<TimeGrant> now, soon;
    plan(ns(), now);
    plan(ns() + costs_.opens_early * kTickNs, soon);
    next_plan_ = UINT64_MAX;
    for (size_t i = 0; i < slices.size(); ++i) grant(slices[i], now[i], soon[i]);
  }

  void wake_at(uint64_t at_ns, uint64_t before) {
    if (at_ns == UINT64_MAX) return;
    const uint64_t at = (at_ns - kSecond + kTickNs - 1) / kTickNs;
    next_plan_ = std::min(next_plan_, std::max(now_ + 1, at - std::min(at, before)));
  }

  // Opens before the edge, closes at it.
  void grant(CardSlice& one, TimeGrant now, TimeGrant soon) {
    const uint32_t window = now.window_permille;
    const uint32_t max = one.slice.max_permille;
    one.ceiling.set(max_of_open_time(max, one.slice.saturates, one.used_permille, one.use),
                    window == kWhole    ? WindowCeiling::Kind::kExact
                    : slices.size() > 1 ? WindowCeiling::Kind::kNetBeside
                                        : WindowCeiling::Kind::kNet,
                    ns());
    const bool open = one.acts_at != UINT64_MAX ? one.acts_open : one.open;
    wake_at(one.ceiling.hold(ns(), open, &now), 0);
    wake_at(one.ceiling.hold(ns(), open, &soon), 0);
    one.grant = now;
    wake_at(now.until_ns, 0);
    wake_at(soon.until_ns, costs_.opens_early);
    const bool want = open ? now.open || soon.open : soon.open;
    if (want == open) return;
    one.acts_open = want;
    one.acts_at = now_ + (want ? 0 : costs_.closes_late);
  }

  void act(CardSlice& one) {
    if (one.acts_at > now_) return;
    one.acts_at = UINT64_MAX;
    if (one.open == one.acts_open) return;
    one.open = one.acts_open;
    if (!one.open) changing_ = std::max(changing_, costs_.close_stops);
  }

  void tick() {
    for (CardSlice& one : slices) host(one);
    if (!native_) agents();
    for (CardSlice& one : slices) {
      if (!native_) act(one);
      one.open_ticks += one.open;
      one.ceiling.run(ns(), one.open && one.slice.active);
    }
    gpu();
  }

  CardCosts costs_;
  bool native_;
  uint64_t now_ = 0, begin_ = 0, next_plan_ = 0;
  size_t current_ = 0;
  uint64_t turn_ = 0, changing_ = 0, dry_ = 0;
  Random random_{1};
};

}  // namespace allot::core
