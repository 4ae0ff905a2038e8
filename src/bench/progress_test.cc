// Sums of work over time, and the moment from which a share holds.
#include "bench/progress.h"

#include <gtest/gtest.h>

#include <numeric>

namespace allot::bench {
namespace {

TEST(Progress, SpreadsWorkOverItsInterval) {
  Progress progress(10);
  progress.add(1.5, 3.5, 4);
  EXPECT_DOUBLE_EQ(progress.bins()[1], 1);
  EXPECT_DOUBLE_EQ(progress.bins()[2], 2);
  EXPECT_DOUBLE_EQ(progress.bins()[3], 1);
  progress.add(7, 7, 5);
  EXPECT_DOUBLE_EQ(progress.bins()[7], 5);
}

TEST(Progress, LeavesOutWhatLiesOutsideTheRun) {
  Progress progress(10);
  progress.add(-2, 2, 4);  // half of it was before
  progress.add(11, 1000, 989);
  progress.add(-5, -1, 100);
  progress.add(2000, 2000, 7);
  progress.add(3, 4, -1);
  const double sum = std::accumulate(progress.bins().begin(), progress.bins().end(), 0.0);
  EXPECT_DOUBLE_EQ(sum, 2 + 1);
  EXPECT_EQ(progress.bins().size(), 12u);
}

TEST(WorkBetween, CountsPartsOfAMillisecond) {
  const std::vector<double> bins = {1, 2, 3, 4};
  EXPECT_DOUBLE_EQ(work_between(bins, 0, 4), 10);
  EXPECT_DOUBLE_EQ(work_between(bins, 0.5, 2.5), 0.5 + 2 + 1.5);
  EXPECT_DOUBLE_EQ(work_between(bins, -3, 1), 1);
  EXPECT_DOUBLE_EQ(work_between(bins, 3, 100), 4);
  EXPECT_DOUBLE_EQ(work_between(bins, 2, 2), 0);
  EXPECT_DOUBLE_EQ(work_between(bins, 9, 12), 0);
}

// Half of the whole until 100 ms, then a fifth.
struct Change {
  std::vector<double> mine = std::vector<double>(1000, 0.2), other = std::vector<double>(1000, 0.8);
  Change() {
    for (size_t ms = 0; ms < 100; ++ms) mine[ms] = other[ms] = 0.5;
  }
};

TEST(Reached, SaysHowLongAShareTook) {
  const Change change;
  Reached what;
  what.at_ms = 40;
  what.target = 0.2;
  what.tolerance = 0.01;
  what.span_ms = 50;
  // Each millisecond of the old share in the span is 0.3 / 50 too much, and 0.01 is let pass.
  const double ms = reached_ms(change.mine, {change.mine, change.other}, what);
  EXPECT_NEAR(ms, 60, 2);
  what.target = 0.5;
  EXPECT_EQ(reached_ms(change.mine, {change.mine, change.other}, what), 0);
}

TEST(Reached, AMomentsLuckIsNotEnough) {
  // The new share for 60 ms, the old one again, and the new one for good from 300 ms on.
  Change change;
  for (size_t ms = 100; ms < 300; ++ms) {
    change.mine[ms] = ms < 160 ? 0.2 : 0.5;
    change.other[ms] = 1 - change.mine[ms];
  }
  Reached what;
  what.at_ms = 100;
  what.target = 0.2;
  what.tolerance = 0.01;
  what.span_ms = 50;
  EXPECT_EQ(reached_ms(change.mine, {change.mine, change.other}, what), 0);
  what.spans = 2;
  EXPECT_NEAR(reached_ms(change.mine, {change.mine, change.other}, what), 200, 3);
}

TEST(Reached, IsMinusOneWhenItNeverHolds) {
  const Change change;
  Reached what;
  what.target = 0.9;
  EXPECT_EQ(reached_ms(change.mine, {change.mine, change.other}, what), -1);
  EXPECT_EQ(reached_ms(std::vector<double>(500, 0.0), {std::vector<double>(500, 0.0)}, what), -1)
      << "no work is no share";
}

TEST(Reached, WithoutOthersTheTimeIsTheWhole) {
  const Change change;
  Reached what;
  what.target = 0.2;
  what.tolerance = 0.02;
  EXPECT_NEAR(reached_ms(change.mine, {}, what), 94, 2);
  what.at_least = true;  // half is more than a fifth
  EXPECT_EQ(reached_ms(change.mine, {}, what), 0);
}

}  // namespace
}  // namespace allot::bench
