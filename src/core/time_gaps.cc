// What a tenant is: idle, leaving gaps, or filling its windows (time_policy.h).
//
// A mean over about 0.3 s of looks; beyond that old ones fade. Idleness is no gap: looks longer
// than kForgetNs after the last work are left out, so that a pause for input does not make a tenant one
// that leaves gaps. Two thresholds apart and a second between two turns keep it from flapping.
#include <algorithm>

#include "core/time_policy.h"

namespace allot::core {
namespace {

constexpr uint64_t kOne = 1u << 16;
constexpr uint64_t kSpanNs = 300'000'000;
constexpr uint64_t kLookMostNs = 20'000'000;
constexpr uint64_t kForgetNs = 5'000'000;
constexpr uint64_t kTurnNs = 1'000'000'000;
constexpr uint32_t kGapsBelow = 880;
constexpr uint32_t kFillsAbove = 945;

}  // namespace

void GapMeter::sample(uint64_t now_ns, bool unfinished) {
  const uint64_t since = looked_ && now_ns > last_ns_ ? now_ns - last_ns_ : 0;
  const uint64_t span = std::min(since, kLookMostNs);
  looked_ = true;
  last_ns_ = std::max(last_ns_, now_ns);
  unfinished_ = unfinished;
  if (unfinished) {
    submitted(now_ns);
  } else if (!worked_ || now_ns - std::min(now_ns, last_busy_ns_) > kForgetNs) {
    return;
  }
  if (span == 0) return;
  // A plain mean until it stands for kSpanNs, then each look takes its part of the span.
  seen_ns_ = std::min(seen_ns_ + span, kSpanNs);
  const uint64_t now_part = unfinished ? kOne << 16 : 0;
  busy_average_ = (busy_average_ * (seen_ns_ - span) + now_part * span) / seen_ns_;
  if (seen_ns_ < kSpanNs || now_ns - std::min(now_ns, turned_ns_) < kTurnNs) return;
  const uint32_t busy = busy_permille();
  if (fills_ ? busy < kGapsBelow : busy > kFillsAbove) {
    fills_ = !fills_;
    turned_ns_ = now_ns;
  }
}

void GapMeter::submitted(uint64_t now_ns) {
  worked_ = true;
  last_busy_ns_ = std::max(last_busy_ns_, now_ns);
}

bool GapMeter::active(uint64_t now_ns) const {
  if (unfinished_) return true;
  return worked_ && now_ns - std::min(now_ns, last_busy_ns_) <= kIdleNs;
}

uint32_t GapMeter::busy_permille() const {
  return static_cast<uint32_t>((busy_average_ * kWhole + (kOne << 15)) >> 32);
}

}  // namespace allot::core
