// The plan of GPU time as a function: what it grants to given slices at a given moment, and
// properties of thousands of random sets. What comes of it over seconds: time_sim_test.cc.
#include "core/time_policy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "core/time_sim.h"

namespace allot::core {
namespace {

constexpr uint64_t kForever = UINT64_MAX;

struct Set {
  std::vector<SliceDemand> slices;

  Set& add(uint32_t share, uint32_t max = 0, bool saturates = true,
           AllotPriority priority = ALLOT_PRIORITY_NORMAL) {
    slices.push_back({slices.size() + 1, share, max, 1, priority, true, saturates, false});
    return *this;
  }
  std::vector<TimeGrant> at(uint64_t now_ns) const {
    std::vector<TimeGrant> grants(slices.size());
    plan_gpu(slices, now_ns, grants);
    return grants;
  }
};

bool same(const TimeGrant& a, const TimeGrant& b) {
  return a.open == b.open && a.until_ns == b.until_ns && a.timeslice_us == b.timeslice_us &&
         a.window_permille == b.window_permille;
}

Set random_set(Random& random, uint32_t most = 12) {
  Set set;
  const uint32_t count = 1 + random() % most;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t share = random() % 2 ? random() % 1001 : 0;
    const uint32_t max = random() % 3 ? 0 : 1 + random() % 1000;
    set.add(share, max, random() % 3 != 0,
            static_cast<AllotPriority>(random() % 8 < 5 ? 0 : random() % 3));
    SliceDemand& slice = set.slices.back();
    slice.id = random();
    slice.gpus = 1 + random() % 3;
    slice.active = random() % 4 != 0;
    slice.frozen = random() % 10 == 0;
  }
  return set;
}

TEST(Plan, TwoThatFillTheirWindowsTakeTurnsByShare) {
  const Set set = Set().add(300).add(700);
  auto early = set.at(1000 * kMs + 5 * kMs);
  EXPECT_TRUE(early[0].open);
  EXPECT_FALSE(early[1].open);
  EXPECT_EQ(early[0].until_ns, 1030 * kMs);
  EXPECT_EQ(early[1].until_ns, 1030 * kMs);
  EXPECT_EQ(early[0].window_permille, 300u);
  EXPECT_EQ(early[1].window_permille, 700u);
  auto late = set.at(1000 * kMs + 30 * kMs);
  EXPECT_FALSE(late[0].open);
  EXPECT_TRUE(late[1].open);
  EXPECT_EQ(late[0].until_ns, 1100 * kMs);
  EXPECT_EQ(late[1].until_ns, 1100 * kMs);
}

TEST(Plan, TwoThatLeaveGapsRunAtTheSameTimeWith5MsSlices) {
  const Set set = Set().add(500, 0, false).add(500, 0, false);
  for (const TimeGrant& grant : set.at(7 * kMs)) {
    EXPECT_TRUE(same(grant, {true, kForever, 5000, kWhole}));
  }
}

TEST(Plan, SlicesOfThoseThatLeaveGapsAreAsTheirShares) {
  const Set set = Set().add(100, 0, false).add(200, 0, false).add(300, 0, false).add(400, 0, false);
  const auto grants = set.at(0);
  for (uint32_t i = 0; i < 4; ++i) EXPECT_NEAR(grants[i].timeslice_us, 1000 * (i + 1), 1);
  const auto few = Set().add(20, 0, false).add(980, 0, false).at(0);
  EXPECT_NEAR(few[0].timeslice_us, 1000, 1);
  EXPECT_NEAR(few[1].timeslice_us, 49'000, 50);
}

// Beside one that needs the GPU for itself, gaps that are shorter than a switch are nobody's use.
TEST(Plan, OneThatLeavesGapsTakesAWindowBesideOneThatSaturates) {
  const auto grants = Set().add(300).add(300).add(400, 0, false).at(0);
  EXPECT_EQ(grants[0].window_permille, 300u);
  EXPECT_EQ(grants[1].window_permille, 300u);
  EXPECT_EQ(grants[2].window_permille, 400u);
  EXPECT_FALSE(grants[2].open);
}

SliceDemand waiting(uint64_t id, uint32_t share, uint32_t footprint, bool credit = false) {
  SliceDemand slice = {id, share, 0, 1, ALLOT_PRIORITY_NORMAL, true, false, false};
  slice.footprint_permille = footprint;
  slice.credit = credit;
  slice.waits = true;
  return slice;
}

TEST(Plan, OneWithinItsPartGoesFirstAllTheTime) {
  Set set = Set().add(700);
  set.slices.push_back(waiting(2, 300, 240, true));
  for (uint64_t now = 0; now < 200 * kMs; now += 3 * kMs) {
    const auto grants = set.at(now);
    EXPECT_TRUE(grants[0].open);
    EXPECT_TRUE(grants[1].open);
    EXPECT_TRUE(grants[1].first);
    EXPECT_EQ(grants[0].timeslice_us, 20u);
    EXPECT_EQ(grants[0].until_ns, kForever);
    EXPECT_EQ(grants[0].part_permille, 760u);
  }
}

TEST(Plan, OneThatTakesMoreThanItsPartGoesFirstInWindows) {
  Set set = Set().add(500);
  set.slices.push_back(waiting(2, 500, 670));
  uint64_t first_ns = 0, both_ns = 0;
  for (uint64_t now = 0; now < 1000 * kMs; now += kMs / 10) {
    const auto grants = set.at(now);
    EXPECT_TRUE(grants[0].open);  // in its gaps, too
    if (grants[1].open) first_ns += kMs / 10;
    if (grants[1].open && grants[0].open) both_ns += kMs / 10;
  }
  EXPECT_NEAR(static_cast<double>(first_ns) / kSecond, 0.5 / 0.67, 0.01);
  EXPECT_EQ(both_ns, first_ns);
}

TEST(Plan, WithoutCreditNobodyGoesFirstAllTheTime) {
  Set set = Set().add(700);
  set.slices.push_back(waiting(2, 300, 240, false));
  EXPECT_FALSE(set.at(0)[1].first);
}

// Four tenths each for two that need two thirds of the GPU for that would leave the third nothing.
TEST(Plan, FirstWindowsDoNotOverlapWhereSomebodyNeedsTheGpuForItself) {
  Set set = Set().add(200);
  set.slices.push_back(waiting(2, 400, 670));
  set.slices.push_back(waiting(3, 400, 670));
  for (uint64_t now = 0; now < 1000 * kMs; now += kMs / 4) {
    const auto grants = set.at(now);
    EXPECT_FALSE(grants[1].open && grants[2].open);
  }
}

TEST(Plan, OnlyTheUserOfOthersGapsHasShortSlices) {
  Set set = Set().add(200, 0, false).add(100).add(400).add(300);
  set.slices[0].footprint_permille = 700;
  const auto grants = set.at(1000 * kMs);
  EXPECT_EQ(grants[2].timeslice_us, 20u);
  EXPECT_GE(grants[1].timeslice_us, 1000u);
  EXPECT_GE(grants[3].timeslice_us, 1000u);
  EXPECT_TRUE(grants[1].undisturbed);
  EXPECT_FALSE(grants[2].undisturbed);
}

TEST(Plan, WindowsOfThoseWhoGoFirstLeaveRoomForAllButTheUserOfTheirGaps) {
  Set set = Set().add(100, 0, false).add(250, 0, false).add(200).add(200).add(250);
  set.slices[0].footprint_permille = 270;
  set.slices[1].footprint_permille = 657;
  const auto grants = set.at(1000 * kMs);
  EXPECT_GE(grants[2].window_permille, 195u);
  EXPECT_GE(grants[3].window_permille, 195u);
}

TEST(Plan, OneWhoseShareIsMoreThanItHasBesideOthersTakesWindows) {
  Set set = Set().add(610, 0, false).add(90, 0, false).add(10, 0, false);
  for (SliceDemand& slice : set.slices) slice.footprint_permille = 720;
  EXPECT_LT(set.at(1000 * kMs)[0].window_permille, kWhole);
  set.slices[0].share_permille = 300;
  EXPECT_EQ(set.at(1000 * kMs)[0].window_permille, kWhole);
}

TEST(Plan, AFullOneGivesBackAPartOfWhatItsEdgesCostOneThatWaits) {
  Set set = Set().add(300).add(700);
  set.slices[0].waits = true;
  const auto grants = set.at(1000 * kMs);
  EXPECT_NEAR(grants[0].window_permille, 313, 1);  // 0.25 ms of 20
  EXPECT_NEAR(grants[1].window_permille, 688, 1);
}

TEST(Plan, APeriodIsShortWhereSomebodyWaitsForItsWork) {
  for (const auto& [latency_us, stop_ms] :
       {std::pair{0u, 16.0}, {5'000u, 5.0}, {10'000u, 10.0}, {50'000u, 50.0}, {100'000u, 100.0}}) {
    Set set = Set().add(300).add(700);
    set.slices[0].waits = true;
    set.slices[0].latency_us = latency_us;
    uint64_t stop = 0, longest = 0;
    for (uint64_t now = 0; now < 1000 * kMs; now += kMs / 10) {
      stop = set.at(now)[0].open ? 0 : stop + kMs / 10;
      longest = std::max(longest, stop);
    }
    EXPECT_LE(static_cast<double>(longest) / kMs, stop_ms) << latency_us;
    EXPECT_GE(static_cast<double>(longest) / kMs, stop_ms / 2) << latency_us;
  }
}

TEST(Plan, OneAloneIsAlwaysOpenUnlessItHasAMax) {
  EXPECT_TRUE(same(Set().add(0).at(99 * kMs)[0], {true, kForever, 10'000, kWhole}));
  const Set set = Set().add(100, 250);
  EXPECT_TRUE(same(set.at(200 * kMs)[0], {true, 225 * kMs, 10'000, 250}));
  EXPECT_TRUE(same(set.at(225 * kMs)[0], {false, 300 * kMs, 10'000, 250}));
}

// Its ceiling is one of use, and kept by its agent.
TEST(Plan, OneAloneThatLeavesGapsTakesNoWindowForItsMax) {
  EXPECT_TRUE(same(Set().add(100, 250, false).at(225 * kMs)[0], {true, kForever, 2'500, kWhole}));
}

TEST(Plan, WhatOneAtItsMaxLeavesGoesToTheOthers) {
  const Set set = Set().add(500, 200).add(250).add(250);
  const auto grants = set.at(0);
  EXPECT_EQ(grants[0].window_permille, 200u);
  EXPECT_EQ(grants[1].window_permille, 400u);
  EXPECT_EQ(grants[2].window_permille, 400u);
}

TEST(Plan, TheRestOfTheCycleIsIdleWhenAllAreAtTheirMax) {
  const Set set = Set().add(0, 200).add(0, 300);
  EXPECT_TRUE(set.at(0)[0].open);
  EXPECT_TRUE(set.at(20 * kMs)[1].open);
  EXPECT_FALSE(set.at(50 * kMs)[0].open);
  EXPECT_FALSE(set.at(50 * kMs)[1].open);
}

TEST(Plan, NobodyRunsBesideAHolderThatNeedsAllOfItsWindow) {
  const Set set = Set().add(300, 300).add(0, 0, false);
  const auto in = set.at(10 * kMs);
  EXPECT_TRUE(in[0].open);
  EXPECT_TRUE(same(in[1], {false, 30 * kMs, in[1].timeslice_us, 700}));
  const auto out = set.at(30 * kMs);
  EXPECT_FALSE(out[0].open);
  EXPECT_TRUE(same(out[1], {true, 100 * kMs, in[1].timeslice_us, 700}));
}

TEST(Plan, LowBesideNormalHasItsShareAndIsLentNothing) {
  const auto beside = Set().add(200).add(100, 0, true, ALLOT_PRIORITY_LOW).at(0);
  EXPECT_EQ(beside[0].window_permille, 900u);
  EXPECT_EQ(beside[1].window_permille, 100u);
  const auto without = Set().add(0).add(0, 0, true, ALLOT_PRIORITY_LOW).at(0);
  EXPECT_EQ(without[1].window_permille, 10u);
  const auto capped = Set().add(200, 400).add(100, 0, true, ALLOT_PRIORITY_LOW).at(0);
  EXPECT_EQ(capped[0].window_permille, 400u);
  EXPECT_EQ(capped[1].window_permille, 600u);
  const auto alone =
      Set().add(0, 0, true, ALLOT_PRIORITY_LOW).add(0, 0, true, ALLOT_PRIORITY_LOW).at(0);
  EXPECT_EQ(alone[0].window_permille, 500u);
}

TEST(Plan, HighIsAlwaysOpenAndOthersGiveWayAtOnce) {
  Set set = Set().add(300).add(300, 0, false).add(400, 0, true, ALLOT_PRIORITY_HIGH);
  set.slices[2].active = false;
  for (const TimeGrant& grant : set.at(0)) EXPECT_GT(grant.timeslice_us, 50u);
  set.slices[2].active = true;
  for (uint64_t now = 0; now < 200 * kMs; now += 3 * kMs) {
    const auto grants = set.at(now);
    EXPECT_TRUE(same(grants[2], {true, kForever, 10'000, kWhole}));
    EXPECT_EQ(grants[0].timeslice_us, 20u);
    EXPECT_EQ(grants[1].timeslice_us, 20u);
  }
}

// By slices of 20 us two side by side would do little but switch; and each change of windows makes
// the high one wait.
TEST(Plan, BesideAHighSliceOthersTakeTurnsInTheLongestCycle) {
  Set set = Set().add(0, 0, false).add(0, 0, false).add(0, 0, true, ALLOT_PRIORITY_HIGH);
  for (const bool active : {true, false}) {  // between two requests nothing moves
    set.slices[2].active = active;
    EXPECT_TRUE(same(set.at(0)[0], {true, 125 * kMs, active ? 20u : 10'000u, 500})) << active;
    EXPECT_FALSE(set.at(0)[1].open) << active;
  }
  set.slices[2].awake = false;
  EXPECT_EQ(set.at(0)[0].window_permille, kWhole);
  EXPECT_EQ(set.at(0)[1].window_permille, kWhole);
}

TEST(Plan, FrozenIsClosedAndTakesNoPart) {
  for (AllotPriority priority : {ALLOT_PRIORITY_NORMAL, ALLOT_PRIORITY_HIGH}) {
    Set set = Set().add(500, 0, true, priority).add(0);
    set.slices[0].frozen = true;
    const auto grants = set.at(0);
    EXPECT_FALSE(grants[0].open);
    EXPECT_EQ(grants[0].until_ns, kForever);
    EXPECT_EQ(grants[1].window_permille, kWhole);
    EXPECT_GT(grants[1].timeslice_us, 50u);
  }
}

TEST(Plan, OneWithoutWorkIsOpenAndTakesNoWindow) {
  Set set = Set().add(500).add(200).add(0);
  set.slices[0].active = false;
  const auto grants = set.at(0);
  EXPECT_TRUE(grants[0].open);
  EXPECT_EQ(grants[0].until_ns, kForever);
  EXPECT_EQ(grants[1].window_permille, 200u);
  EXPECT_EQ(grants[2].window_permille, 800u);
}

TEST(Plan, SlicesOfSeveralGpusComeFirst) {
  Set set = Set().add(0).add(0).add(0);
  set.slices[1].gpus = 4;
  EXPECT_TRUE(set.at(0)[1].open);
  set.slices[1].gpus = 1;
  EXPECT_TRUE(set.at(0)[0].open);
}

// Seen on two H100s: two programs with all-reduces between both cards, in windows on one and beside
// each other on the other, got a third of what one gets alone.
TEST(Plan, ASliceOfSeveralGpusTakesWindowsThoughItLeavesGaps) {
  Set gaps = Set().add(500).add(500), saturates = gaps;
  for (SliceDemand& slice : gaps.slices) {
    slice.gpus = 2;
    slice.saturates = false;
  }
  for (SliceDemand& slice : saturates.slices) slice.gpus = 2;
  for (uint64_t now = 0; now < 200 * kMs; now += 7 * kMs) {
    const auto a = gaps.at(now), b = saturates.at(now);
    EXPECT_NE(a[0].open, a[1].open) << now;
    EXPECT_EQ(a[0].open, b[0].open) << now;
    EXPECT_EQ(a[0].until_ns, b[0].until_ns) << now;
  }
}

TEST(Plan, ACycleIsAPartOfASecondAndNoLongerThanACeilingAllows) {
  for (uint32_t windows : {0u, 1u, 2u, 3u, 4u, 5u, UINT32_MAX}) {
    EXPECT_EQ(1000 * kMs % cycle_ns(windows), 0u);
  }
  EXPECT_EQ(cycle_ns(2), 100 * kMs);
  EXPECT_EQ(cycle_ns(4), 200 * kMs);
  EXPECT_EQ(cycle_ns(UINT32_MAX), 250 * kMs);
  EXPECT_NEAR(static_cast<double>(Set().add(0).add(0).add(0).at(0)[0].until_ns), 66.67 * kMs,
              0.01 * kMs);
  const TimeGrant capped = Set().add(0, 400).add(0).add(0).at(0)[0];
  EXPECT_NEAR(static_cast<double>(capped.until_ns), 33.33 * kMs, 0.01 * kMs);
}

// Six slices that take windows; some have a share, in odd rounds some a max.
Set windowed_set(Random& random, bool maxima) {
  Set set;
  uint32_t left = 980;
  for (uint32_t i = 0; i < 6; ++i) {
    const uint32_t share = random() % 3 ? 10 + random() % (left / 4) : 0;
    left -= share;
    set.add(share, maxima && random() % 2 ? share + 10 + random() % (991 - share) : 0);
    set.slices.back().gpus = 1 + random() % 2;
  }
  return set;
}

// Who is open when all have work is open then whoever else has none, with a share and without.
TEST(PlanProperty, APlaceStaysWhereItIsWhoeverElseComesAndGoes) {
  Random random(6);
  for (int round = 0; round < 500; ++round) {
    Set set = windowed_set(random, round % 2);
    for (int look = 0; look < 50; ++look) {
      const uint64_t now = random() % (1000 * kMs);
      for (SliceDemand& slice : set.slices) slice.active = true;
      const auto all = set.at(now), near = set.at(now + 1000), before = set.at(now - now % 1000);
      for (SliceDemand& slice : set.slices) slice.active = random() % 2;
      const auto grants = set.at(now);
      for (size_t i = 0; i < grants.size(); ++i) {
        if (!all[i].open || !near[i].open || !before[i].open) continue;  // an edge, rounded
        // Where one at its max left others more than they weigh, without it they may have less.
        if (grants[i].window_permille < all[i].window_permille) continue;
        EXPECT_TRUE(grants[i].open) << round << " " << i << " " << now;
      }
    }
  }
}

// How many windows a slice has in a cycle, one that continues over its end counted once.
uint32_t windows_of(const Set& set, size_t slice) {
  uint32_t begun = 0;
  bool open = set.at(1000 * kMs - 1)[slice].open;
  for (uint64_t now = 1000 * kMs; now < 2000 * kMs;) {
    const TimeGrant grant = set.at(now)[slice];
    if (grant.open && !open) ++begun;
    open = grant.open;
    now = std::min(grant.until_ns, 2000 * kMs);
  }
  return begun;
}
uint32_t cycles_of(const Set& set) {
  uint32_t places = 0;
  bool narrow = false;
  for (const SliceDemand& slice : set.slices) {
    if (!slice.awake && !slice.active) continue;
    ++places;
    narrow |= slice.max_permille > 0 || slice.gpus > 1;
  }
  return static_cast<uint32_t>(1000 * kMs / (narrow ? kCeilingSpanNs : cycle_ns(places)));
}

TEST(PlanProperty, OneThatSleepsCutsNobodysWindowInTwo) {
  Random random(8);
  for (int round = 0; round < 300; ++round) {
    Set set = windowed_set(random, false);
    for (SliceDemand& slice : set.slices) slice.active = slice.awake = random() % 2;
    for (size_t i = 0; i < set.slices.size(); ++i) {
      if (!set.slices[i].active || set.at(0)[i].window_permille == kWhole) continue;
      EXPECT_EQ(windows_of(set, i), cycles_of(set)) << round << " " << i;
    }
  }
}

TEST(Plan, WhatOneWithoutWorkLeavesJoinsTheWindowsBesideIt) {
  for (size_t idle = 0; idle < 4; ++idle) {
    Set set = Set().add(250).add(250).add(250).add(250);
    set.slices[idle].active = false;
    uint32_t windows = 0;
    for (size_t i = 0; i < 4; ++i) windows += i == idle ? 0 : windows_of(set, i);
    EXPECT_EQ(windows, 4 * cycles_of(set)) << idle;  // the one that is not beside it has two
    set.slices[(idle + 2) % 4].active = false;
    for (size_t i = 0; i < 4; ++i) {
      if (!set.slices[i].active) continue;
      EXPECT_EQ(windows_of(set, i), cycles_of(set)) << idle << i;
    }
  }
}

TEST(Plan, WindowsOnSeveralGpusBeginTogetherHoweverManyAreOnEach) {
  Set few = Set().add(300).add(200);
  Set many = Set().add(100).add(100).add(100).add(100).add(100);
  for (Set* set : {&few, &many}) {
    set->slices.push_back({99, 200, 0, 2, ALLOT_PRIORITY_NORMAL, true, true, false});
    uint32_t opened = 0;
    for (uint64_t now = 0; now < 1000 * kMs; now += 100 * kMs) {
      opened += set->at(now).back().open && !set->at(now + 100 * kMs - 1).back().open;
    }
    EXPECT_EQ(opened, 10u);
  }
}

TEST(Plan, NobodyWeighsNothing) {
  EXPECT_NEAR(Set().add(600).add(400).add(0).at(0)[2].window_permille, 10, 1);
  Set crowd = Set().add(10);
  for (int i = 0; i < 63; ++i) crowd.add(1000);
  EXPECT_GE(crowd.at(0)[0].window_permille, 4u);
}

TEST(Plan, HostileNumbersAreClamped) {
  Set set = Set().add(UINT32_MAX, UINT32_MAX).add(500, 1001);
  set.slices[0].priority = 77;
  set.slices[1].gpus = UINT32_MAX;
  const auto grants = set.at(kForever - 5);
  EXPECT_EQ(grants[0].window_permille + grants[1].window_permille, kWhole);
  EXPECT_NEAR(grants[0].window_permille, 667, 1);
  Random random(4);
  for (int round = 0; round < 2000; ++round) {
    Set noise = random_set(random, 200);
    for (SliceDemand& slice : noise.slices) {
      if (random() % 2) slice.share_permille = static_cast<uint32_t>(random());
      if (random() % 2) slice.max_permille = static_cast<uint32_t>(random());
      if (random() % 2) slice.priority = random();
    }
    const uint64_t now = random();
    for (const TimeGrant& grant : noise.at(now)) EXPECT_GT(grant.until_ns, now);
  }
}

TEST(PlanProperty, TheOrderOfTheSlicesDoesNotMatter) {
  Random random(1);
  for (int round = 0; round < 3000; ++round) {
    Set set = random_set(random, round % 50 == 0 ? 100 : 10);
    const uint64_t now = random() % (1000 * kMs);
    const auto grants = set.at(now);
    EXPECT_TRUE(std::ranges::equal(grants, set.at(now), same));
    std::vector<size_t> order(grants.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), random);
    Set other;
    for (size_t i : order) other.slices.push_back(set.slices[i]);
    const auto others = other.at(now);
    for (size_t i = 0; i < order.size(); ++i) EXPECT_TRUE(same(others[i], grants[order[i]]));
  }
}

TEST(PlanProperty, AGrantHoldsUntilItSaysAndChangesThen) {
  Random random(2);
  for (int round = 0; round < 3000; ++round) {
    const Set set = random_set(random);
    const uint64_t now = random() % (10'000 * kMs);
    const auto grants = set.at(now);
    for (size_t i = 0; i < grants.size(); ++i) {
      ASSERT_GT(grants[i].until_ns, now);
      const uint64_t last = std::min(grants[i].until_ns - 1, now + 1000 * kMs);
      for (int look = 0; look < 8; ++look) {
        const uint64_t then = look == 0 ? last : now + random() % (last - now + 1);
        EXPECT_TRUE(same(set.at(then)[i], grants[i])) << round << " " << i << " " << then;
      }
      if (grants[i].until_ns == kForever) continue;
      EXPECT_LE(grants[i].until_ns, now + 2 * cycle_ns(UINT32_MAX));
      EXPECT_NE(set.at(grants[i].until_ns)[i].open, grants[i].open);
    }
  }
}

TEST(PlanProperty, WindowsAreDisjoint) {
  Random random(3);
  for (int round = 0; round < 2000; ++round) {
    const Set set = random_set(random);
    for (int look = 0; look < 20; ++look) {
      const auto grants = set.at(random() % (10'000 * kMs));
      int open = 0;
      for (size_t i = 0; i < grants.size(); ++i) {
        const SliceDemand& slice = set.slices[i];
        if (!slice.active || !slice.saturates || slice.priority == ALLOT_PRIORITY_HIGH) continue;
        if (grants[i].open) ++open;
      }
      EXPECT_LE(open, 1);
    }
  }
}

TEST(PlanProperty, MaximaThatFitIntoTheWholeGetDisjointWindows) {
  Random random(5);
  for (int round = 0; round < 2000; ++round) {
    Set set;
    uint32_t left = kWhole;
    while (left > 20 && set.slices.size() < 8) {
      const uint32_t max = 10 + random() % (left - 9);
      left -= max;
      set.add(random() % 2 ? random() % (max + 1) : 0, max);
    }
    std::vector<uint64_t> open_ns(set.slices.size());
    for (uint64_t now = 0; now < 1000 * kMs;) {
      const auto grants = set.at(now);
      uint64_t next = 1000 * kMs;
      int open = 0;
      for (const TimeGrant& grant : grants) {
        open += grant.open;
        next = std::min(next, grant.until_ns);
      }
      EXPECT_LE(open, 1);
      for (size_t i = 0; i < grants.size(); ++i) open_ns[i] += grants[i].open ? next - now : 0;
      now = next;
    }
    for (size_t i = 0; i < open_ns.size(); ++i) {
      EXPECT_NEAR(static_cast<double>(open_ns[i]), set.slices[i].max_permille * 1.0 * kMs, 1000);
    }
  }
}

TEST(Admission, SharesMayFillTheWholeAndNoMore) {
  const uint32_t shares[] = {300, 0, 500};
  EXPECT_TRUE(share_fits(shares, 200));
  EXPECT_FALSE(share_fits(shares, 201));
  EXPECT_TRUE(share_fits({}, 1000));
  EXPECT_FALSE(share_fits({}, 1001));
  const uint32_t over[] = {UINT32_MAX, UINT32_MAX};
  EXPECT_TRUE(share_fits(over, 0));
  EXPECT_FALSE(share_fits(over, 1));
  EXPECT_FALSE(share_fits(shares, UINT32_MAX));
}

}  // namespace
}  // namespace allot::core
