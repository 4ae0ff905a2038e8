// See time_debt.h.
#include "core/time_debt.h"

#include <algorithm>

namespace allot::core {
namespace {

// An agent that did not run for longer does not know what happened.
constexpr uint64_t kMostSpanNs = 100'000'000;

// Two at once under the driver's own slices lose 9 % of the card to switches (H100, slices of 2,048
// us). Each is charged its part of that, or the one with the smaller share would lose more of it.
constexpr uint64_t kLost = 11;  // one part of so many

}  // namespace

void OverrunDebt::add(int64_t ns, int64_t most_due_ns) {
  const int64_t least = std::min(debt_, -most_due_ns);
  debt_ = std::clamp(debt_ + ns, least, kMostDebtNs);
}

// For work that ran so long.
int64_t OverrunDebt::charge(uint64_t ns) const {
  if (beside_ == 0) return static_cast<int64_t>(ns);
  const uint64_t lost = ns / kLost;
  return static_cast<int64_t>((ns - lost) / (1 + beside_) + lost * part_ / kWhole);
}

void OverrunDebt::account_span(uint64_t ns, bool window, bool ran) {
  const auto span = static_cast<int64_t>(ns);
  const int64_t used = charge(ns);
  if (all_pay_ && debt_ > 0) debt_ -= std::min(debt_, span);
  if (ran) {
    add(window ? used - span : used, capped_ ? kMostSparedNs : kMostDueNs);
  } else if (window) {
    // Held back, or waiting for its turn. Without work it pays, but spares nothing.
    add(-span, wants_ ? kMostSparedNs : 0);
  }
}

void OverrunDebt::account(uint64_t now_ns, bool ran) {
  const uint64_t begin = last_ns_;
  last_ns_ = std::max(now_ns, last_ns_);
  if (begin == 0 || now_ns <= begin) return;
  if (!counts_) {  // nobody is there to be paid
    const uint64_t span = std::min(now_ns - begin, kMostSpanNs);
    if (debt_ > 0) debt_ -= std::min(debt_, static_cast<int64_t>(span));
    return;
  }
  if (now_ns - begin > kMostSpanNs) return;
  const uint64_t edge = std::clamp(edge_ns_, begin, now_ns);
  if (edge > begin) account_span(edge - begin, window_, ran);
  if (now_ns > edge) account_span(now_ns - edge, !window_, ran);
}

void OverrunDebt::refund(uint64_t ns) {
  if (!counts_) return;
  const uint64_t most = std::min(ns, kMostSpanNs);
  add(-charge(most), kMostSparedNs);
}

void OverrunDebt::plan(std::span<SliceDemand> slices, uint64_t now_ns,
                       std::span<TimeGrant> grants) {
  SliceDemand& own = slices[0];
  bool payers = false;
  bool takers = false;
  bool paying[kMaxSlicesOnGpu] = {};
  const size_t count = std::min<size_t>(slices.size(), kMaxSlicesOnGpu);
  for (size_t i = 1; i < count; ++i) {
    paying[i] = slices[i].repays;
    if (!slices[i].active || slices[i].frozen) continue;
    payers |= paying[i];
    takers |= !paying[i];
  }
  for (size_t i = 0; i < count; ++i) slices[i].repays = false;
  wants_ = own.active;
  own.active = true;
  plan_gpu(slices, now_ns, grants);
  own.active = wants_;
  const TimeGrant base = grants[0];
  counts_ = base.window_permille < kWhole && !own.frozen && own.priority != ALLOT_PRIORITY_HIGH;
  window_ = base.open;
  part_ = base.window_permille;
  edge_ns_ = base.until_ns;
  capped_ = own.max_permille > 0 && own.max_permille < kWhole;
  if (!counts_ || debt_ <= 0) repays_ = false;
  if (counts_ && debt_ > kDebtToRepayNs) repays_ = true;
  all_pay_ = repays_ && payers && !takers && !capped_;
  for (size_t i = 1; i < count; ++i) slices[i].repays = paying[i];
  own.repays = repays_;
  if (payers || repays_ || !wants_) plan_gpu(slices, now_ns, grants);
  count_beside(slices, grants);
  if (repays_) grants[0] = base;
  if (repays_ && !all_pay_ && (takers || capped_)) {
    grants[0].open = false;
    // Paid in its own windows only; asked again at their edges.
    if (window_) grants[0].until_ns = std::min(edge_ns_, now_ns + static_cast<uint64_t>(debt_));
  }
}

// The others that run now: in its own window only what still drains, or what it lets run first.
void OverrunDebt::count_beside(std::span<const SliceDemand> slices,
                               std::span<const TimeGrant> grants) {
  beside_ = 0;
  for (size_t i = 1; i < slices.size(); ++i) {
    const SliceDemand& other = slices[i];
    if (!other.active) continue;
    const bool windowed = other.saturates || other.max_permille > 0;
    const bool let_run = windowed && grants[i].open && !other.repays && (!window_ || repays_);
    if (other.drains || let_run) ++beside_;
  }
}

}  // namespace allot::core
