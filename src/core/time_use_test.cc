// What a slice is taken for by its bursts and gaps.
#include "core/time_use.h"

#include <gtest/gtest.h>

namespace allot::core {
namespace {

constexpr uint64_t kMs = 1'000'000;

// A program that is let run and counted as an agent would, in looks of 10 ms.
struct Program {
  SliceUse use;
  SliceUse::Counts counts;
  uint64_t now_ns = 1'000'000'000;

  // For `ms`, bursts of `burst_us` and gaps of `gap_us`.
  void run(uint64_t ms, uint64_t burst_us, uint64_t gap_us, bool undisturbed, uint32_t part = 300,
           bool cut = false) {
    const uint64_t period_us = burst_us + gap_us;
    for (uint64_t t = 0; t < ms; t += 10) {
      now_ns += cut ? 33 * kMs : 10 * kMs;  // in its windows a third of the time
      counts.open_ns += 10 * kMs;
      done_us += 10'000;
      const uint64_t bursts = done_us / period_us;
      done_us -= bursts * period_us;
      counts.bursts += bursts;
      if (waits) counts.waits += bursts;
      counts.busy_ns += bursts * burst_us * 1000;
      use.look(now_ns, counts, {undisturbed, cut, part});
    }
  }
  uint64_t done_us = 0;
  bool waits = true;
};

TEST(SliceUse, NothingIsKnownAtFirst) {
  const SliceUse use;
  EXPECT_EQ(use.footprint_permille(), kWhole);
  EXPECT_EQ(use.alone_permille(), kWhole);
  EXPECT_FALSE(use.credit());
  EXPECT_FALSE(use.waits());
}

TEST(SliceUse, AFootprintIsTheBurstsAndTheSwitchesAroundThem) {
  Program request;
  request.run(2000, 390, 2000, false);  // as seen beside a neighbour
  EXPECT_NEAR(request.use.footprint_permille(), (390 + 190) * 1000 / 2390, 8);
  Program alone;
  alone.run(2000, 210, 2000, true);  // predicted from what it does alone
  EXPECT_NEAR(alone.use.footprint_permille(), request.use.footprint_permille(), 8);
}

TEST(SliceUse, GapsShorterThanTheSwitchesAreNobodysUse) {
  Program step;
  step.run(2000, 520, 20, false);
  EXPECT_EQ(step.use.footprint_permille(), kWhole);
  Program shorter;
  shorter.run(2000, 200, 300, false);
  EXPECT_EQ(shorter.use.footprint_permille(), kWhole);
  shorter.run(4000, 200, 500, false);
  EXPECT_LT(shorter.use.footprint_permille(), kWhole);
}

TEST(SliceUse, CreditIsSpentByAFootprintAboveThePart) {
  Program request;
  request.run(1000, 390, 2000, false, 300);
  EXPECT_TRUE(request.use.credit());
  request.run(2000, 390, 400, false, 300);
  EXPECT_FALSE(request.use.credit());
  request.run(2000, 390, 3000, false, 300);
  EXPECT_TRUE(request.use.credit());
}

TEST(SliceUse, ABurstThatDoesNotEndSpendsTheCreditWithin50Ms) {
  Program request;
  request.run(1000, 390, 2000, false, 300);
  ASSERT_TRUE(request.use.credit());
  int looks = 0;
  while (request.use.credit() && looks < 100) {
    ++looks;
    request.now_ns += 10 * kMs;
    request.counts.open_ns += 10 * kMs;
    request.counts.busy_ns += 10 * kMs;
    request.use.look(request.now_ns, request.counts, {false, false, 300});
  }
  EXPECT_LE(looks, 5);
}

// Requests that pile up before a window leave no gaps in it; that says nothing of the program.
TEST(SliceUse, WhatPilesUpBeforeAWindowIsNotTakenForTheProgramsNature) {
  Program request;
  request.run(300, 210, 2000, true);
  request.run(1000, 390, 2000, false);
  const uint32_t before = request.use.footprint_permille();
  request.run(300, 390, 600, false, 300, true);
  EXPECT_NEAR(request.use.footprint_permille(), before, 60);
}

// A decode loop that pauses: its gaps are too short for anybody, and its pauses are none.
TEST(SliceUse, APauseIsNoGap) {
  Program decode;
  decode.run(1000, 1750, 50, true);
  for (int phase = 0; phase < 3; ++phase) {
    decode.now_ns += 400 * kMs;
    decode.counts.open_ns += 400 * kMs;
    // Its agent does not look while it is idle, or it does.
    if (phase % 2 == 0) decode.use.look(decode.now_ns, decode.counts, {true, false, 500});
    decode.run(100, 1750, 50, true);
    EXPECT_EQ(decode.use.footprint_permille(), kWhole);
  }
  Program started;  // long ago, and idle since
  started.now_ns += 20'000 * kMs;
  started.counts.open_ns += 20'000 * kMs;
  started.run(100, 1750, 50, true);
  EXPECT_EQ(started.use.footprint_permille(), kWhole);
  Program request;  // a gap that a program has before each burst is one
  request.run(3000, 200, 20'000, true);
  EXPECT_NEAR(request.use.footprint_permille(), 28, 3);
  Program seldom;  // and so is a pause that it has before each burst
  seldom.run(5000, 200, 100'000, true);
  EXPECT_NEAR(seldom.use.footprint_permille(), 23, 4);
}

TEST(SliceUse, WhoFallsBelowItsPartBesideOthersHasWindowsForAWhile) {
  Program program;
  program.run(2000, 1000, 1000, true);
  program.run(1000, 2000, 1000, false, 500);  // two thirds of its pace, for half of the GPU
  EXPECT_FALSE(program.use.slow());
  program.run(3000, 4000, 1000, false, 500);  // 40 %
  EXPECT_TRUE(program.use.slow());
  EXPECT_EQ(program.use.footprint_permille(), kWhole);
  EXPECT_TRUE(saturates(false, 300, 0, program.use));
  program.run(6000, 1000, 1000, true, 500);  // its windows
  EXPECT_FALSE(program.use.slow());
}

// Looks that find nothing unfinished end such a program's bursts: beside others there are fewer.
TEST(SliceUse, WhoDoesNotWaitTellsNoPace) {
  Program program;
  program.waits = false;
  program.run(2000, 1000, 1000, true);
  program.run(3000, 8000, 1000, false, 500);
  EXPECT_FALSE(program.use.slow());
}

TEST(SliceUse, WhoGoesFirstWithinItsPartKeepsGoingFirst) {
  Program request;
  for (int look = 0; look < 300; ++look) {
    request.now_ns += 10 * kMs;
    request.counts.open_ns += 10 * kMs;
    request.counts.bursts += 1;
    request.counts.waits += 1;
    request.counts.busy_ns += kMs;
    request.use.look(request.now_ns, request.counts, {false, false, 300, true});
    ASSERT_FALSE(request.use.slow()) << look;
  }
}

TEST(SliceUse, WhoWasNeverAloneAsksForWindowsForASecond) {
  Program program;
  program.run(400, 1000, 1000, false, 500);
  EXPECT_TRUE(program.use.slow());
  program.run(1200, 1000, 1000, true, 500);
  EXPECT_FALSE(program.use.slow());
  program.run(5000, 1000, 1000, false, 500);
  EXPECT_FALSE(program.use.slow());
}

TEST(SliceUse, WaitsAreBurstsOfAFewMilliseconds) {
  Program step, batch;
  step.run(1000, 520, 20, true);
  batch.run(1000, 16'000, 10, true);
  EXPECT_TRUE(step.use.waits());
  EXPECT_FALSE(batch.use.waits());
}

TEST(SliceUse, UseAloneIsTheBurstsWithoutTheirLaunches) {
  Program wait;
  wait.run(2000, 210, 400, true);
  EXPECT_NEAR(wait.use.alone_permille(), 200 * 1000 / 610, 3);
  EXPECT_NEAR(static_cast<double>(wait.use.burst_ns()), 200'000, 1000);
}

TEST(SliceUse, ClocksThatStandOrJumpDoNoHarm) {
  SliceUse use;
  use.look(5, {10, 10, 10}, {false, false, 300});
  use.look(5, {5, 5, 5}, {false, false, 300});
  use.look(UINT64_MAX / 2, {UINT64_MAX / 2, UINT64_MAX / 2, UINT64_MAX / 2}, {false, true, 5000});
  use.look(4, {0, 0, 0}, {true, false, 0});
  EXPECT_GE(use.footprint_permille(), 1u);
  EXPECT_LE(use.footprint_permille(), kWhole);
}

}  // namespace
}  // namespace allot::core
