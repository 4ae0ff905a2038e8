#include "model/fair_share.h"

#include <gtest/gtest.h>

#include <random>

namespace allot::model {
namespace {

std::vector<double> shares(const std::vector<Mask>& masks, int cpus) {
  std::vector<ShareTask> tasks;
  for (const Mask& mask : masks) tasks.push_back({mask, 1.0, 1.0});
  return fair_shares(tasks, Mask::range(0, cpus - 1));
}

TEST(FairShare, SharesOneCpuEqually) {
  for (double share : shares({Mask{0}, Mask{0}, Mask{0}, Mask{0}}, 2))
    EXPECT_NEAR(share, 0.25, 1e-6);
}

TEST(FairShare, GivesAtMostOneCpu) {
  EXPECT_NEAR(shares({Mask{0, 1, 2, 3}}, 4)[0], 1.0, 1e-6);
}

TEST(FairShare, ConfinedTasksDoNotSlowTheOthers) {
  // Three tasks on CPU 0, one that may also use CPU 1: it takes all of CPU 1.
  std::vector<double> got = shares({Mask{0}, Mask{0}, Mask{0}, Mask{0, 1}}, 2);
  EXPECT_NEAR(got[0], 1.0 / 3, 1e-6);
  EXPECT_NEAR(got[3], 1.0, 1e-6);
}

TEST(FairShare, ThreeTasksOnTwoCpusGetTwoThirds) {
  for (double share : shares({Mask{0, 1}, Mask{0, 1}, Mask{0, 1}}, 2))
    EXPECT_NEAR(share, 2.0 / 3, 1e-6);
}

TEST(FairShare, WeightsAndDemandCount) {
  std::vector<double> got = fair_shares({{Mask{0}, 3.0, 1.0}, {Mask{0}, 1.0, 1.0}}, Mask{0});
  EXPECT_NEAR(got[0], 0.75, 1e-6);
  got = fair_shares({{Mask{0}, 1.0, 0.1}, {Mask{0}, 1.0, 1.0}}, Mask{0});
  EXPECT_NEAR(got[0], 0.1, 1e-6);
  EXPECT_NEAR(got[1], 0.9, 1e-6);
}

TEST(FairShare, NoAllowedCpuGivesNothing) {
  std::vector<double> got = shares({Mask{5}, Mask{0}}, 2);
  EXPECT_EQ(got[0], 0.0);
  EXPECT_NEAR(got[1], 1.0, 1e-6);
}

// What makes it max-min fair: nobody can have more unless one that has less gives. So for every
// task below one CPU, every CPU it may use is full, and so are all CPUs of those it shares them
// with who have more than it. Checked by sums: the tasks at or below its level fill the CPUs they
// can reach.
TEST(FairShare, RandomLoadsAreMaxMinFair) {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    int cpus = 1 + static_cast<int>(random() % 8);
    std::vector<Mask> masks(1 + random() % 12);
    for (Mask& mask : masks) {
      do {
        for (int cpu = 0; cpu < cpus; ++cpu) {
          if (random() % 3 == 0) mask.set(cpu);
        }
      } while (mask.empty());
    }
    std::vector<double> got = shares(masks, cpus);
    double total = 0;
    for (size_t t = 0; t < masks.size(); ++t) {
      total += got[t];
      EXPECT_GT(got[t], 0.0);
      EXPECT_LE(got[t], 1.0 + 1e-6);
    }
    EXPECT_LE(total, cpus + 1e-6);
    // Confined sets: for each task, those with a share no larger fill up the CPUs it may use.
    for (size_t t = 0; t < masks.size(); ++t) {
      if (got[t] > 1.0 - 1e-6) continue;
      Mask reach = masks[t];
      double used = 0;
      for (size_t u = 0; u < masks.size(); ++u) {
        if (got[u] <= got[t] + 1e-6 && masks[u].intersects(reach)) used += got[u];
      }
      EXPECT_GE(used, reach.count() - 1e-5) << "round " << round << " task " << t;
    }
  }
}

}  // namespace
}  // namespace allot::model
