// Turns at level launch: what is charged and paid, and what comes of it on a virtual card that
// stops no kernel.
#include "core/time_debt.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/time_sim.h"

namespace allot::core {
namespace {

constexpr uint64_t kStepNs = kMs / 2;

// A slice whose kernels run to their end, and its agent.
struct Launcher {
  SliceDemand slice;
  uint64_t kernel_ns;
  OverrunDebt turn;
  double left_ns = 0;  // of the kernel under way
  double used_ns = 0;
  bool ran = false;  // in the last step
  bool open = false;
  bool busy = true;  // always has a next kernel
};

// A card that divides its time evenly between the kernels under way; each slice keeps one there
// while its gate is open. All agents look at every step.
struct Card {
  std::vector<Launcher> all;
  uint64_t now_ns = kSecond;
  double lost = 0;  // of the card, to switches, while two or more run

  Launcher& add(uint32_t share, uint32_t max, uint64_t kernel_ns) {
    all.push_back(
        {{all.size() + 1, share, max, 1, ALLOT_PRIORITY_NORMAL, true, true, false}, kernel_ns, {}});
    return all.back();
  }

  void look(size_t i) {
    Launcher& own = all[i];
    own.turn.account(now_ns, own.ran);
    std::vector<SliceDemand> view = {own.slice};
    for (size_t k = 0; k < all.size(); ++k) {
      if (k != i) view.push_back(all[k].slice);
    }
    std::vector<TimeGrant> grants(view.size());
    own.turn.plan(view, now_ns, grants);
    ASSERT_GT(grants[0].until_ns, now_ns);
    own.open = grants[0].open;
  }

  void step() {
    for (size_t i = 0; i < all.size(); ++i) look(i);
    uint32_t running = 0;
    for (Launcher& t : all) {
      if (t.open && t.busy && t.left_ns <= 0) t.left_ns = static_cast<double>(t.kernel_ns);
      t.slice.active = t.busy || t.left_ns > 0;
      t.slice.repays = t.turn.repays();
      t.slice.drains = !t.open && t.left_ns > 0;
      if (t.left_ns > 0) ++running;
    }
    for (Launcher& t : all) {
      t.ran = t.left_ns > 0;
      if (!t.ran) continue;
      const double speed = running > 1 ? (1 - lost) / running : 1;
      const double part = std::min(t.left_ns, static_cast<double>(kStepNs) * speed);
      t.used_ns += part;
      t.left_ns -= part;
      if (t.left_ns < 1) t.left_ns = 0;
    }
    now_ns += kStepNs;
  }

  // Parts of `seconds`.
  std::vector<double> run(double seconds) {
    std::vector<double> before;
    for (const Launcher& t : all) before.push_back(t.used_ns);
    const uint64_t begin = now_ns;
    while (now_ns < begin + static_cast<uint64_t>(seconds * kSecond)) step();
    for (size_t i = 0; i < all.size(); ++i) {
      before[i] = (all[i].used_ns - before[i]) / static_cast<double>(now_ns - begin);
    }
    return before;
  }
};

constexpr double kPoint = 0.01;

TEST(DebtSim, SharesComeOutForKernelsOfAnyLength) {
  struct Case {
    uint32_t share;
    uint64_t first_ms, second_ms;
  };
  const Case cases[] = {{300, 1, 1},   {100, 1, 20},  {500, 8, 1},    {100, 50, 50},
                        {300, 50, 50}, {700, 50, 1},  {300, 1, 50},   {500, 50, 20},
                        {300, 250, 1}, {700, 250, 1}, {500, 250, 20}, {300, 130, 250}};
  for (const Case& each : cases) {
    Card card;
    card.add(each.share, 0, each.first_ms * kMs);
    card.add(kWhole - each.share, 0, each.second_ms * kMs);
    card.run(3);
    // A kernel more or less at the end is up to a quarter of a second.
    const bool longer = std::max(each.first_ms, each.second_ms) > 100;
    // No switches here: what is charged for them is too much by as much.
    const double tolerance = std::max(each.first_ms, each.second_ms) < 50 ? kPoint : 1.5 * kPoint;
    const std::vector<double> part = card.run(longer ? 30 : 20);
    EXPECT_NEAR(part[0], each.share / 1000.0, tolerance)
        << each.share << " " << each.first_ms << " " << each.second_ms;
    EXPECT_GT(part[0] + part[1], 0.97)
        << each.share << " " << each.first_ms << " " << each.second_ms;
  }
}

// As on an H100. Who overruns costs the others switches, too.
TEST(DebtSim, SharesComeOutWhereSwitchesCostATenth) {
  for (const uint32_t share : {300u, 500u, 700u}) {
    for (const uint64_t second : {1 * kMs, 50 * kMs}) {
      Card card;
      card.lost = 0.09;
      card.add(share, 0, 50 * kMs);
      card.add(kWhole - share, 0, second);
      card.run(3);
      const std::vector<double> part = card.run(10);
      const double sum = part[0] + part[1];
      EXPECT_NEAR(part[0] / sum, share / 1000.0, 2 * kPoint) << share << " " << second / kMs;
      EXPECT_GT(sum, 0.92) << share << " " << second / kMs;
    }
  }
}

TEST(DebtSim, FourSlicesGetTheirSharesWithKernelsOfDifferentLengths) {
  Card card;
  card.add(100, 0, 60 * kMs);
  card.add(200, 0, kMs);
  card.add(300, 0, 20 * kMs);
  card.add(400, 0, kMs);
  card.run(5);
  const std::vector<double> part = card.run(20);
  for (size_t i = 0; i < 4; ++i)
    EXPECT_NEAR(part[i], 0.1 * static_cast<double>(i + 1), 1.5 * kPoint) << i;
}

TEST(DebtSim, ACeilingHoldsForKernelsOfAnyLength) {
  for (const uint64_t kernel : {1 * kMs, 20 * kMs, 50 * kMs, 250 * kMs}) {
    for (const uint32_t max : {100u, 250u, 750u}) {
      Card card;
      card.add(0, max, kernel);
      card.run(3);
      const double part = card.run(30)[0];
      EXPECT_NEAR(part, max / 1000.0, kPoint) << kernel / kMs << " " << max;
    }
  }
}

TEST(DebtSim, NobodyIsHeldBackForOneThatHasNothingToDo) {
  Card card;
  card.add(300, 0, 250 * kMs);
  card.add(700, 0, kMs);
  card.run(10);
  card.all[1].busy = false;
  card.run(1);
  EXPECT_GT(card.run(5)[0], 0.99);
  card.all[1].busy = true;
  card.run(5);
  EXPECT_NEAR(card.run(40)[0], 0.3, 1.5 * kPoint);
}

TEST(DebtSim, WorkThatNeverEndsDoesNotStopItsNeighbour) {
  Card card;
  card.add(500, 0, 1000 * kSecond);
  card.add(500, 0, kMs);
  EXPECT_GT(card.run(10)[1], 0.45);
  EXPECT_GT(card.run(10)[1], 0.49);
}

// ---- one turn in hand --------------------------------------------------------------------------

struct OneTurn {
  std::vector<SliceDemand> slices = {{1, 300, 0, 1, ALLOT_PRIORITY_NORMAL, true, true, false},
                                     {2, 700, 0, 1, ALLOT_PRIORITY_NORMAL, true, true, false}};
  OverrunDebt turn;
  TimeGrant at(uint64_t now_ns, bool ran) {
    TimeGrant grants[2];
    turn.account(now_ns, ran);
    turn.plan(slices, now_ns, grants);
    return grants[0];
  }
};

TEST(OverrunDebt, WhatRunsOverTheWindowIsPaidInTheNextOnes) {
  OneTurn own;
  EXPECT_TRUE(own.at(1000 * kMs, false).open);
  EXPECT_FALSE(own.at(1030 * kMs, true).open);
  EXPECT_EQ(own.turn.debt_ns(), 0);
  own.at(1070 * kMs, true);  // half of the card for 40 ms
  EXPECT_NEAR(static_cast<double>(own.turn.debt_ns()), 20.0 * kMs, 1.0 * kMs);
  EXPECT_TRUE(own.turn.repays());
  const TimeGrant held = own.at(1100 * kMs, false);
  EXPECT_FALSE(held.open);
  EXPECT_EQ(held.until_ns, 1100 * kMs + static_cast<uint64_t>(own.turn.debt_ns()));
  const TimeGrant then = own.at(held.until_ns, false);
  EXPECT_TRUE(then.open);
  EXPECT_FALSE(own.turn.repays());
  EXPECT_EQ(then.until_ns, 1130 * kMs);
}

TEST(OverrunDebt, ALookThatComesLateIsTakenBack) {
  OneTurn own;
  own.at(1030 * kMs, false);
  own.at(1034 * kMs, true);
  own.turn.refund(2 * kMs);
  EXPECT_NEAR(static_cast<double>(own.turn.debt_ns()), 1.0 * kMs, 0.1 * kMs);
}

TEST(OverrunDebt, ALittleIsLeftUnpaid) {
  OneTurn own;
  own.at(1030 * kMs, false);
  own.at(1050 * kMs, true);
  EXPECT_NEAR(static_cast<double>(own.turn.debt_ns()), 9.5 * kMs, 0.5 * kMs);
  EXPECT_FALSE(own.turn.repays());
  EXPECT_TRUE(own.at(1100 * kMs, false).open);
}

TEST(OverrunDebt, WhatOthersTakeOfItsWindowIsOwedToItUpToABound) {
  OneTurn own;
  own.slices[1].drains = true;
  own.at(1000 * kMs, false);
  own.at(1020 * kMs, true);
  EXPECT_NEAR(static_cast<double>(own.turn.debt_ns()), -10.0 * kMs, 0.5 * kMs);
  for (uint64_t at = 1100; at < 12'000; at += 10) own.at(at * kMs, at % 100 <= 30 && at % 100 != 0);
  EXPECT_EQ(own.turn.debt_ns(), -OverrunDebt::kMostDueNs);
}

TEST(OverrunDebt, APayersWindowGoesToTheOthersAndIsChargedToThem) {
  OneTurn own;
  own.slices[1].repays = true;
  EXPECT_TRUE(own.at(1040 * kMs, false).open);
  own.at(1060 * kMs, true);
  EXPECT_EQ(own.turn.debt_ns(), static_cast<int64_t>(20 * kMs));
}

TEST(OverrunDebt, WhereAllPayNobodyIsHeldBack) {
  OneTurn own;
  own.at(1030 * kMs, false);
  own.at(1070 * kMs, true);
  ASSERT_TRUE(own.turn.repays());
  const int64_t owed = own.turn.debt_ns();
  own.slices[1].repays = true;
  EXPECT_TRUE(own.at(1100 * kMs, false).open);
  own.at(1105 * kMs, true);
  EXPECT_NEAR(static_cast<double>(own.turn.debt_ns()), static_cast<double>(owed) - 5.0 * kMs,
              1.0 * kMs);
}

TEST(OverrunDebt, AFreezeIsNotCharged) {
  OneTurn own;
  own.slices[0].frozen = true;
  own.at(1030 * kMs, false);
  own.at(1070 * kMs, true);
  EXPECT_EQ(own.turn.debt_ns(), 0);
}

}  // namespace
}  // namespace allot::core
