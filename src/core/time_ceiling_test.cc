// The ceiling beside a plain model of it that looks at every microsecond, and the meter of gaps.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "core/time_sim.h"

namespace allot::core {
namespace {

// Remembers for each tick whether the owner ran in it.
class Model {
 public:
  static constexpr uint64_t kTick = 100'000;
  static constexpr uint64_t kSpan = kCeilingSpanNs / kTick;
  explicit Model(uint32_t permille) : budget_(kSpan * permille / 1000) {}

  void pass(bool ran) { ran_.push_back(ran); }
  uint64_t used() const { return used_before(ran_.size()); }
  // How many ticks it may run from now on, if it may run at all for as long as it likes at most a
  // span.
  uint64_t may_run() const {
    uint64_t ticks = 0;
    while (ticks <= kSpan && used_after(ticks + 1, 0) <= budget_) ++ticks;
    return ticks;
  }
  // In how many ticks it may start for `useful` ticks.
  uint64_t next_start(uint64_t useful) const {
    for (uint64_t wait = 0;; ++wait) {
      if (used_after(useful, wait) <= budget_) return wait;
    }
  }
  uint64_t budget() const { return budget_; }

 private:
  uint64_t used_before(size_t end) const {
    uint64_t used = 0;
    for (size_t i = end > kSpan ? end - kSpan : 0; i < std::min(end, ran_.size()); ++i)
      used += ran_[i];
    return used;
  }
  // Used in the span that ends after `wait` ticks without and `ticks` with a run.
  uint64_t used_after(uint64_t ticks, uint64_t wait) const {
    return std::min(ticks, kSpan) + used_before_span(ran_.size() + wait + ticks);
  }
  uint64_t used_before_span(size_t end) const {
    uint64_t used = 0;
    for (size_t i = end > kSpan ? end - kSpan : 0; i < ran_.size(); ++i) used += ran_[i];
    return used;
  }
  uint64_t budget_;
  std::vector<uint8_t> ran_;
};

TEST(Ceiling, AnswersAsAPlainModelDoes) {
  Random random(21);
  for (int round = 0; round < 30; ++round) {
    const uint32_t max = 10 * (1 + random() % 99);
    Model model(max);
    Ceiling ceiling;
    ceiling.set_max(max);
    bool runs = false;
    const uint64_t start = random() % 3 ? random() % kSecond / Model::kTick * Model::kTick : 0;
    const uint32_t turn = 2 + random() % 150;  // runs and pauses of about this many ticks
    for (uint64_t tick = 0; tick < 3000; ++tick) {
      const uint64_t now = start + tick * Model::kTick;
      if (random() % turn == 0) {
        // Obeys, but stops and starts when it likes.
        runs = !runs && ceiling.next_start(now) == now;
        runs ? ceiling.start(now) : ceiling.stop(now);
      }
      const uint64_t until = ceiling.may_run_until(now);
      if (runs && until == now) {
        ceiling.stop(now);
        runs = false;
      }
      if (tick % 29 == 0) {
        ASSERT_EQ(ceiling.used_ns(now), model.used() * Model::kTick);
        ASSERT_EQ((until - now) / Model::kTick, model.may_run()) << round << " " << tick;
        const uint64_t useful = std::min<uint64_t>(50, model.budget());
        ASSERT_EQ(ceiling.next_start(now) - now, model.next_start(useful) * Model::kTick);
      }
      ASSERT_LE(model.used(), model.budget());
      model.pass(runs);
    }
  }
}

TEST(Ceiling, HoldsWhereMoreRunsFitIntoASpanThanItRemembers) {
  Random random(22);
  Model model(500);
  Ceiling ceiling;
  ceiling.set_max(500);
  bool runs = false;
  uint64_t used = 0;
  for (uint64_t tick = 0; tick < 20'000; ++tick) {
    const uint64_t now = kSecond + tick * Model::kTick;
    if (runs && (random() % 3 == 0 || ceiling.may_run_until(now) == now)) {
      ceiling.stop(now);
      runs = false;
    } else if (!runs && ceiling.next_start(now) == now) {
      ceiling.start(now);
      runs = true;
    }
    EXPECT_GE(ceiling.used_ns(now), model.used() * Model::kTick);
    model.pass(runs);
    used += runs;
    ASSERT_LE(model.used(), model.budget());
  }
  EXPECT_GT(used, 20'000u / 5);
}

TEST(Ceiling, ManyShortRunsInASecondReachIt) {
  Ceiling ceiling(kSecond);
  ceiling.set_max(500);
  uint64_t used = 0;
  for (uint64_t window = 0; window < 500; ++window) {  // of 5 ms in every 10: a hundred in a second
    const uint64_t begin = kSecond + window * 10 * kMs;
    const uint64_t from = std::max(begin, ceiling.next_start(begin));
    if (from >= begin + 5 * kMs) continue;
    ceiling.start(from);
    const uint64_t to = std::min(begin + 5 * kMs, ceiling.may_run_until(from));
    ceiling.stop(to);
    used += to - from;
  }
  EXPECT_GE(used, 500 * 5 * kMs * 97 / 100);
  EXPECT_LE(used, 500 * 5 * kMs);
}

TEST(Ceiling, OneThatStopsLateWaitsForIt) {
  Ceiling ceiling;
  ceiling.set_max(300);
  ceiling.start(kSecond);
  EXPECT_EQ(ceiling.may_run_until(kSecond), kSecond + 30 * kMs);
  EXPECT_EQ(ceiling.may_run_until(kSecond + 40 * kMs), kSecond + 40 * kMs);
  ceiling.stop(kSecond + 40 * kMs);
  // 25 ms of the 40 may still be seen when 5 ms have run.
  EXPECT_EQ(ceiling.next_start(kSecond + 40 * kMs), kSecond + 15 * kMs + 95 * kMs);
}

TEST(Ceiling, NoneAndAllAreNoCeiling) {
  Ceiling ceiling;
  for (uint32_t max : {0u, kWhole, 5000u}) {
    ceiling.set_max(max);
    ceiling.start(kSecond);
    EXPECT_EQ(ceiling.may_run_until(9 * kSecond), UINT64_MAX);
    EXPECT_EQ(ceiling.next_start(9 * kSecond), 9 * kSecond);
  }
}

TEST(Ceiling, AChangeCountsFromTheNextQuestionOn) {
  Ceiling ceiling;
  ceiling.set_max(800);
  ceiling.start(kSecond);
  EXPECT_EQ(ceiling.may_run_until(kSecond + 20 * kMs), kSecond + 80 * kMs);
  ceiling.set_max(100);
  EXPECT_EQ(ceiling.may_run_until(kSecond + 20 * kMs), kSecond + 20 * kMs);
}

// Looks every ms for `span`, busy for the first `busy` of each ten.
uint64_t look(GapMeter& meter, uint64_t from, uint64_t span, uint32_t busy) {
  for (uint64_t at = from; at < from + span; at += kMs) meter.sample(at, at / kMs % 10 < busy);
  return from + span;
}

TEST(GapMeter, TellsGapsFromFillingAndDoesNotFlap) {
  GapMeter meter;
  EXPECT_TRUE(meter.saturates());
  uint64_t now = look(meter, 5 * kSecond, 200 * kMs, 5);
  EXPECT_TRUE(meter.saturates());  // too little seen
  now = look(meter, now, 200 * kMs, 5);
  EXPECT_FALSE(meter.saturates());
  EXPECT_NEAR(meter.busy_permille(), 500, 20);
  now = look(meter, now, 300 * kMs, 10);
  now = look(meter, now, 300 * kMs, 9);
  EXPECT_FALSE(meter.saturates());  // between the thresholds
  now = look(meter, now, 3 * kSecond, 10);
  EXPECT_TRUE(meter.saturates());
  now = look(meter, now, 3 * kSecond, 9);
  EXPECT_TRUE(meter.saturates());
}

TEST(GapMeter, TurnsAtMostOnceASecond) {
  Random random(23);
  GapMeter meter;
  bool saturates = meter.saturates();
  uint64_t turned = 0;
  uint64_t turns = 0;
  uint64_t now = kSecond;
  bool busy = true;
  for (uint64_t i = 0; i < 60'000; ++i) {
    now += random() % (2 * kMs);
    if (random() % 700 == 0) busy = !busy;
    meter.sample(now, busy || random() % 4 == 0);
    if (meter.saturates() == saturates) continue;
    saturates = meter.saturates();
    EXPECT_GE(now - turned, turned == 0 ? 0 : kSecond);
    turned = now;
    ++turns;
  }
  EXPECT_GE(turns, 4u);
}

TEST(GapMeter, WeighsUnevenLooksByTheirTime) {
  GapMeter meter;
  uint64_t now = kSecond;
  meter.sample(now, true);
  for (int i = 0; i < 400; ++i) {  // busy for 9 ms, seen once; idle for 1 ms, seen ten times
    meter.sample(now += 9 * kMs, true);
    for (int k = 0; k < 10; ++k) meter.sample(now += kMs / 10, false);
  }
  EXPECT_NEAR(meter.busy_permille(), 900, 20);
}

TEST(GapMeter, AnIdleSecondIsNoGap) {
  GapMeter meter;
  uint64_t now = look(meter, kSecond, 2 * kSecond, 10);
  now = look(meter, now, 10 * kSecond, 0);
  EXPECT_TRUE(meter.saturates());
  EXPECT_GT(meter.busy_permille(), 800u);
}

// Looks for `span`, beside others every 10 ms, else every 2 ms; busy at `busy` of each ten. How
// many of them asked for windows.
uint32_t watch(GapWatch& gaps, uint64_t& now, uint64_t span, bool undisturbed, uint32_t busy) {
  uint32_t asked = 0;
  const uint64_t step = undisturbed ? 2 * kMs : 10 * kMs;
  for (const uint64_t end = now + span; now < end; now += step) {
    gaps.look(now, step, undisturbed, now / step * 7 % 10 < busy);
    asked += gaps.saturates();
  }
  return asked;
}

TEST(GapWatch, OneWhoseGapsAreSeenBesideOthersIsLeftAlone) {
  GapWatch gaps;
  uint64_t now = kSecond;
  watch(gaps, now, kSecond, true, 5);
  EXPECT_FALSE(gaps.saturates());
  EXPECT_EQ(watch(gaps, now, 300 * kSecond, false, 8), 0u);
}

TEST(GapWatch, OneThatMayHaveBegunToFillIsTriedEverMoreRarely) {
  GapWatch gaps;
  uint64_t now = kSecond;
  watch(gaps, now, kSecond, true, 5);
  EXPECT_EQ(watch(gaps, now, 900 * kMs, false, 10), 0u);  // every look finds work: soon
  // With windows nobody is beside it, and it is seen as it is.
  uint32_t trials = 0;
  for (int second = 0; second < 100; ++second) {
    const bool before = gaps.saturates();
    watch(gaps, now, kSecond, before, before ? 5 : 10);
    trials += gaps.saturates() && !before;
  }
  EXPECT_GE(trials, 4u);
  EXPECT_LE(trials, 7u);
}

TEST(GapWatch, OneThatHasBegunToFillGetsItsWindowsBack) {
  GapWatch gaps;
  uint64_t now = kSecond;
  watch(gaps, now, kSecond, true, 8);
  for (int tenth = 0; tenth < 130; ++tenth) watch(gaps, now, kSecond / 10, gaps.saturates(), 10);
  EXPECT_TRUE(gaps.saturates());
  EXPECT_EQ(watch(gaps, now, 10 * kSecond, true, 10), 5000u);
}

// Alone it is looked at every 220 ms.
TEST(GapWatch, OneAloneIsKnownToLeaveGapsByRareLooks) {
  for (const uint64_t again : {2 * kMs, 50 * kMs}) {  // a gap, or a pause for input
    GapWatch gaps;
    uint64_t now = kSecond;
    for (int i = 0; i < 60; ++i) {
      now += 220 * kMs;
      gaps.look(now, 220 * kMs, true, i % 4 != 0);
      if (i % 4 == 0) gaps.look(now += again, again, true, true);
    }
    EXPECT_EQ(gaps.saturates(), again > 10 * kMs);
  }
}

}  // namespace
}  // namespace allot::core
