// Percentiles, pair medians and the split of work over seconds.
#include "bench/statistics.h"

#include <gtest/gtest.h>

#include <numeric>

namespace allot::bench {
namespace {

std::vector<double> one_to(int last) {
  std::vector<double> values(static_cast<size_t>(last));
  std::iota(values.rbegin(), values.rend(), 1.0);  // falling, so that order must not matter
  return values;
}

TEST(Percentile, TakesTheNearestRank) {
  EXPECT_EQ(percentile(one_to(1000), 500), 500);
  EXPECT_EQ(percentile(one_to(1000), 900), 900);
  EXPECT_EQ(percentile(one_to(1000), 990), 990);
  EXPECT_EQ(percentile(one_to(1000), 999), 999);
  EXPECT_EQ(percentile(one_to(1000), 1000), 1000);
  EXPECT_EQ(percentile(one_to(3), 500), 2);
  EXPECT_EQ(percentile(one_to(10), 999), 10);
}

TEST(Percentile, HoldsAtTheEdges) {
  EXPECT_EQ(percentile({}, 500), 0);
  EXPECT_EQ(percentile({7}, 0), 7);
  EXPECT_EQ(percentile({7}, 999), 7);
  EXPECT_EQ(percentile({1, 2}, 2000), 2);
}

TEST(MedianDifference, CancelsADriftThatBothShare) {
  std::vector<double> without, with;
  for (int i = 0; i < 101; ++i) {
    without.push_back(1000 + 10.0 * i);
    with.push_back(1000 + 10.0 * i + 7);
  }
  with[50] += 1e9;  // one preemption
  EXPECT_EQ(median_difference(without, with), 7);
}

TEST(MedianDifference, CanBeNegativeAndEmpty) {
  EXPECT_EQ(median_difference({10, 10, 10}, {8, 9, 7}), -2);
  EXPECT_EQ(median_difference({}, {1}), 0);
}

TEST(PerSecond, SplitsWorkAtTheSecond) {
  PerSecond work;
  work.add(0.5, 1.5, 10);
  work.add(1.5, 3.5, 40);
  const std::vector<double> seconds = work.full_seconds(3.9);
  ASSERT_EQ(seconds.size(), 3u);
  EXPECT_DOUBLE_EQ(seconds[0], 5);
  EXPECT_DOUBLE_EQ(seconds[1], 15);
  EXPECT_DOUBLE_EQ(seconds[2], 20);
}

TEST(PerSecond, KeepsIdleSecondsAndLeavesOutTheRest) {
  PerSecond work;
  work.add(0.0, 1.0, 3);
  work.add(3.0, 3.25, 1);
  const std::vector<double> seconds = work.full_seconds(5.99);
  ASSERT_EQ(seconds.size(), 5u);
  EXPECT_DOUBLE_EQ(seconds[0], 3);
  EXPECT_DOUBLE_EQ(seconds[1], 0);
  EXPECT_DOUBLE_EQ(seconds[3], 1);
  EXPECT_DOUBLE_EQ(seconds[4], 0);
  EXPECT_TRUE(work.full_seconds(0.5).empty());
}

TEST(PerSecond, TakesAnInstantAsAPoint) {
  PerSecond work;
  work.add(1.5, 1.5, 2);
  work.add(-1, 1.2, 4);
  EXPECT_DOUBLE_EQ(work.full_seconds(2)[1], 6);
}

}  // namespace
}  // namespace allot::bench
