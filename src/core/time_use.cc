// See time_use.h.
#include "core/time_use.h"

#include <algorithm>

namespace allot::core {
namespace {

constexpr double kSlowNs = 1e9;                // what it is: a second, as ceilings promise
constexpr double kFastNs = 1e8;                // what it does now: a tenth
constexpr double kCutWeight = 0.1;             // a burst that a window's end cut off says little
constexpr uint64_t kMostSpanNs = 100'000'000;  // an agent that did not run for longer does not know
constexpr uint32_t kClearlyGapsPermille = 800;  // some way below kGapsBelow of time_gaps.cc
// A launch-bound program has unfinished work at 80-98 % of the looks, whatever its kernels use.
// What NVML saw of it alone tells, unless every look finds work.
constexpr uint32_t kUsesLessPermille = 850;
constexpr uint32_t kAlwaysBusyPermille = 985;
constexpr double kManyBursts = 20;  // their mean is within a quarter, where they vary by their mean
constexpr uint64_t kLostCreditNs = 1'000'000'000;  // or windows would move within a period
// Another program's work in a gap pays when the gap is longer than the two switches. A tenth to
// each side keeps it from flapping.
constexpr double kPaysAboveNs = 1.1 * (kSwitchInNs + kSwitchOutNs);
constexpr double kPaysBelowNs = 0.9 * (kSwitchInNs + kSwitchOutNs);
// Its pace may fall below what it must be by so much: the measures wander by a few points.
constexpr double kPaceSlack = 0.04;
// How long a program that lost its pace has windows of its own, each time twice as long: by then it
// or its neighbours may do something else.
constexpr uint64_t kSlowFirstNs = 5'000'000'000;
constexpr uint64_t kSlowMostNs = 80'000'000'000;
// One that never was undisturbed has windows for so long, now and then.
constexpr uint64_t kAsksNs = 1'000'000'000;
constexpr double kFewBursts = 5;
constexpr double kJudgeAfterNs = 3e8;  // of open time: what follows a change of windows says little
constexpr uint64_t kBurstsBetweenPauses = 8;
constexpr uint32_t kPausesForAHabit = 3;

uint64_t grown(uint64_t now, uint64_t before) {
  return now > before ? now - before : 0;
}

}  // namespace

void SliceUse::Sums::add(const Counts& more, double span_ns, double weight) {
  const double fresh = weight * static_cast<double>(more.open_ns);
  const double keep = open_ns + fresh > span_ns ? std::max(0.0, 1 - fresh / span_ns) : 1;
  open_ns = open_ns * keep + fresh;
  bursts = bursts * keep + weight * static_cast<double>(more.bursts);
  busy_ns = busy_ns * keep + weight * static_cast<double>(more.busy_ns);
  waits = waits * keep + weight * static_cast<double>(more.waits);
}

void SliceUse::look(uint64_t now_ns, const Counts& counts, const Situation& situation) {
  const Counts fresh = {grown(counts.open_ns, last_.open_ns), grown(counts.bursts, last_.bursts),
                        grown(counts.busy_ns, last_.busy_ns), grown(counts.waits, last_.waits)};
  const uint64_t passed = last_ns_ == 0 ? 0 : grown(now_ns, last_ns_);
  last_ = counts;
  last_ns_ = now_ns;
  if (passed == 0) return;
  const Counts more = without_pause(fresh);
  const bool undisturbed = situation.undisturbed;
  Sums& sums = undisturbed ? alone_ : beside_;
  sums.add(more, kSlowNs, situation.cut && sums.enough() ? kCutWeight : 1);
  lately_.add(more, kFastNs, 1);
  const double gap = std::max(alone_.bursts >= kFewBursts ? alone_.gap_ns() : 0,
                              beside_.bursts >= kFewBursts ? beside_.gap_ns() : 0);
  pays_ = gap > (pays_ ? kPaysBelowNs : kPaysAboveNs);
  const uint64_t span = std::min(passed, kMostSpanNs);
  const auto earned =
      static_cast<int64_t>(span * std::min(situation.part_permille, kWhole) / kWhole);
  const auto spent =
      static_cast<int64_t>(std::min(more.busy_ns + more.bursts * kSwitchOutNs, 2 * span));
  credit_ns_ = undisturbed && !pays_ ? credit_ns_ : credit_ns_ + earned - (undisturbed ? 0 : spent);
  credit_ns_ = std::clamp(credit_ns_, -kMostCreditNs, kMostCreditNs);
  const bool had = has_credit_;
  const bool waits = lost_credit_ns_ != 0 && grown(now_ns, lost_credit_ns_) < kLostCreditNs;
  has_credit_ = had ? credit_ns_ > 0 : credit_ns_ > kMostCreditNs / 2 && !waits;
  if (had && !has_credit_) lost_credit_ns_ = now_ns;
  judge_pace(now_ns, situation);
}

// Time without a burst counts with the one behind it; an agent that has nothing to do does not even
// look. A pause counts as the longest gap, and only where nearly each burst has one before it: then
// it is how the program works.
SliceUse::Counts SliceUse::without_pause(Counts more) {
  if (more.bursts == 0 && more.busy_ns == 0) {
    quiet_ns_ += more.open_ns;
    return {};
  }
  const uint64_t gaps_ns = quiet_ns_ + grown(more.open_ns, more.busy_ns);
  quiet_ns_ = 0;
  if (gaps_ns <= kMostGapNs) {
    more.open_ns = more.busy_ns + gaps_ns;
    bursts_since_pause_ += more.bursts;
    return more;
  }
  pauses_ = bursts_since_pause_ <= kBurstsBetweenPauses ? pauses_ + 1 : 0;
  more.open_ns = more.busy_ns + (pauses_ > kPausesForAHabit ? kMostGapNs : 0);
  bursts_since_pause_ = more.bursts;
  return more;
}

void SliceUse::judge_pace(uint64_t now_ns, const Situation& situation) {
  if (slow_until_ns_ != 0 && now_ns < slow_until_ns_) return;
  if (slow_until_ns_ != 0) {
    slow_until_ns_ = 0;
    beside_ = {};
    return;
  }
  // Who goes first within its part is not put to the test: its requests would wait for windows, and
  // one that comes at its own times has no pace to compare.
  if (situation.undisturbed || situation.first) return;
  if (beside_.waits < kManyBursts || beside_.open_ns < kJudgeAfterNs) return;
  if (alone_.waits < kFewBursts) {
    if (now_ns < asks_ns_) return;
    asks_again_ns_ = std::clamp(2 * asks_again_ns_, 2 * kSlowFirstNs, kSlowMostNs);
    asks_ns_ = now_ns + asks_again_ns_;
    slow_until_ns_ = now_ns + kAsksNs;
    return;
  }
  double least = std::min(situation.part_permille, kWhole) / double{kWhole};
  if (pays_ && situation.cut)
    least = std::max(least, footprint_if_first());
  if (beside_.pace() >= (least - kPaceSlack) * alone_.pace()) return;
  slow_for_ns_ = std::clamp(2 * slow_for_ns_, kSlowFirstNs, kSlowMostNs);
  slow_until_ns_ = now_ns + slow_for_ns_;
}

// `first`: the sums are of a time in which it went first, so switches in are in its bursts already.
double SliceUse::footprint_of(const Sums& sums, bool first) const {
  const double burst = sums.burst_ns() + (first ? 0.0 : static_cast<double>(kSwitchInNs));
  return std::min(1.0, (burst + kSwitchOutNs) / (burst + sums.gap_ns()));
}

double SliceUse::footprint_if_first() const {
  double footprint = 1;
  if (beside_.enough()) {
    footprint = footprint_of(beside_, true);
    // A burst that waits for another one that goes first is not longer for the others.
    if (alone_.bursts >= kManyBursts && beside_.open_ns > 0) {
      const double own = alone_.burst_ns() + kSwitchInNs + kSwitchOutNs;
      footprint = std::min(footprint, own * beside_.bursts / beside_.open_ns);
    }
  } else if (alone_.enough()) {
    footprint = footprint_of(alone_, false);
  }
  return footprint;
}

uint32_t SliceUse::footprint_permille() const {
  if (!pays_ || slow_until_ns_ != 0) return kWhole;
  double footprint = footprint_if_first();
  if (credit_ns_ < 0 && lately_.enough())
    footprint = std::max(footprint, footprint_of(lately_, true));
  return std::clamp(static_cast<uint32_t>(footprint * kWhole), 1u, kWhole);
}

bool SliceUse::waits() const {
  for (const Sums* sums : {&beside_, &alone_}) {
    if (sums->enough()) return sums->open_ns / sums->bursts < kWaitsNs;
  }
  return false;
}

uint64_t SliceUse::burst_ns() const {
  if (!alone_.enough() && !beside_.enough()) return 0;
  const double burst =
      alone_.enough() ? alone_.burst_ns() : std::max(0.0, beside_.burst_ns() - kSwitchInNs);
  return static_cast<uint64_t>(std::max(1000.0, burst - kLaunchNs));
}

uint32_t SliceUse::alone_permille() const {
  if (!alone_.enough()) return kWhole;
  const double period = alone_.open_ns / alone_.bursts;
  const double busy = static_cast<double>(burst_ns()) / std::max(period, 1.0);
  return std::clamp(static_cast<uint32_t>(busy * kWhole + 0.5), 1u, kWhole);
}

// Bursts tell sooner than looks at the driver that there are gaps. What they show as a gap is none
// if the driver has unfinished work in it.
bool saturates(bool looks, uint32_t busy_permille, uint32_t used_permille, const SliceUse& use) {
  const bool gaps = use.footprint_permille() < kWhole;
  if (use.slow()) return true;
  if (!looks) return false;
  if (busy_permille == 0) return !gaps;
  if (used_permille != 0 && used_permille < kUsesLessPermille &&
      busy_permille < kAlwaysBusyPermille)
    return false;
  return busy_permille > kClearlyGapsPermille || !gaps;
}

uint32_t max_of_open_time(uint32_t max_permille, bool saturates, uint32_t used_permille,
                          const SliceUse& use) {
  if (max_permille == 0 || max_permille >= kWhole || saturates) return max_permille;
  const uint32_t used = used_permille != 0 ? used_permille : use.alone_permille();
  return max_permille >= used ? 0 : max_permille * kWhole / used;
}

}  // namespace allot::core
