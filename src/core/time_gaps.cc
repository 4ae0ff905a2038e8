// What a slice is: idle, leaving gaps, or saturating the GPU (time_gaps.h).
//
// A mean over about 0.3 s of looks; beyond that old ones fade. Idleness is no gap: looks longer
// than kForgetNs after the last work are left out, so that a pause for input does not make a slice
// one that leaves gaps. Two thresholds apart and a second between two turns keep it from flapping.
#include "core/time_gaps.h"

#include <algorithm>

#include "core/time_policy.h"

namespace allot::core {
namespace {

constexpr uint64_t kOne = 1u << 16;
// The prober looks every 2 ms in windows and every 10 ms beside others. The spans are counted in
// looks of 10 ms and chosen, not measured.
constexpr uint64_t kSpanNs = 300'000'000;      // 30 looks, and three periods of 100 ms
constexpr uint64_t kMomentNs = 60'000'000;     // 6 looks: fewer say nothing
constexpr uint64_t kLookMostNs = 20'000'000;   // a late look weighs as two
constexpr uint64_t kForgetNs = 25'000'000;     // longer than a stop of 16 ms and a look
constexpr uint64_t kFarNs = 15'000'000;        // looks that are further apart leave doubts
constexpr uint64_t kDoubtMostNs = 10'000'000;  // until the next look
constexpr uint64_t kTurnNs = 1'000'000'000;    // three spans between two changes of mind
// A launch-bound load has unfinished work at 77-81 % of the looks, loops that wait for each step at
// 97-99 % (H100).
constexpr uint32_t kGapsBelow = 880;
constexpr uint32_t kSaturatesAbove = 945;
constexpr uint32_t kAlwaysBusy = 985;

// A trial: windows are asked for until the meter has seen enough undisturbed time. It costs the
// neighbours one change of windows a period, so that trials become rarer: 10, 20, 40, 80 s apart.
constexpr uint64_t kTrialMeterNs = 600'000'000;   // two spans
constexpr uint64_t kTrialMostNs = 4'000'000'000;  // two spans of windows of 15 %
constexpr uint64_t kTrialLastNs = 80'000'000'000;

}  // namespace

void GapMeter::sample(uint64_t now_ns, bool unfinished) {
  const uint64_t since = looked_ && now_ns > last_ns_ ? now_ns - last_ns_ : 0;
  const uint64_t span = std::min(since, kLookMostNs);
  looked_ = true;
  last_ns_ = std::max(last_ns_, now_ns);
  if (unfinished) {
    worked_ = true;
    last_busy_ns_ = last_ns_;
  } else if (!worked_ || now_ns - std::min(now_ns, last_busy_ns_) > kForgetNs) {
    return;
  }
  if (span == 0) return;
  // A plain mean until it stands for kSpanNs, then each look takes its part of the span.
  seen_ns_ = std::min(seen_ns_ + span, kSpanNs);
  const uint64_t now_part = unfinished ? kOne << 16 : 0;
  busy_average_ = (busy_average_ * (seen_ns_ - span) + now_part * span) / seen_ns_;
  if (now_ns - std::min(now_ns, turned_ns_) >= kTurnNs) decide();
}

void GapMeter::decide() {
  if (seen_ns_ < kSpanNs) return;
  const uint32_t busy = busy_permille();
  if (saturates_ ? busy < kGapsBelow : busy > kSaturatesAbove) {
    saturates_ = !saturates_;
    turned_ns_ = last_ns_;
  }
}

uint32_t GapMeter::busy_permille() const {
  return static_cast<uint32_t>((busy_average_ * kWhole + (kOne << 15)) >> 32);
}

bool GapMeter::clearly_gaps() const {
  return seen_ns_ == kSpanNs && busy_permille() < kGapsBelow;
}

bool GapMeter::clearly_none() const {
  return seen_ns_ == kSpanNs && busy_permille() >= kAlwaysBusy;
}

bool GapMeter::knows() const {
  return seen_ns_ >= kMomentNs;
}

void GapWatch::look(uint64_t now_ns, uint64_t open_ns, bool undisturbed, bool unfinished) {
  uint64_t open = std::min(open_ns, kLookMostNs);
  if (doubt_ns_ != 0) {
    const bool gap = unfinished && undisturbed && now_ns - doubt_ns_ < kDoubtMostNs;
    if (gap) meter_.sample(meter_ns_ += doubt_open_ns_, false);
    doubt_ns_ = 0;
  }
  if (!unfinished && open_ns > kFarNs && undisturbed) {
    doubt_ns_ = now_ns;
    doubt_open_ns_ = open;
    open = 0;
  }
  if (undisturbed) {
    undisturbed_ns_ = now_ns;
    if (open > 0) meter_.sample(meter_ns_ += open, unfinished);
  } else if (open > 0) {
    beside_.sample(beside_ns_ += open, unfinished);
  }
  if (trial_meter_ns_ != 0) {
    if (meter_ns_ < trial_meter_ns_ && now_ns < trial_end_ns_) return;
    trial_meter_ns_ = 0;
    meter_.decide();
    undisturbed_ns_ = now_ns;
    return;
  }
  if (meter_.saturates()) {
    trial_after_ns_ = 0;
    return;
  }
  const uint64_t first = beside_.clearly_none() ? kTrialSoonNs : kTrialFirstNs;
  const uint64_t after = std::max(first, trial_after_ns_);
  if (unfinished && !beside_.clearly_gaps() && now_ns - undisturbed_ns_ > after) {
    trial_after_ns_ = std::min(2 * after, kTrialLastNs);
    trial_meter_ns_ = meter_ns_ + kTrialMeterNs;
    trial_end_ns_ = now_ns + kTrialMostNs;
  }
}

}  // namespace allot::core
