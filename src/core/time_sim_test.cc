// The policy of GPU time over seconds of a virtual clock: random sets of slices with patterns of
// demand, on the simulated card of time_sim.h. Each test is one promise of the policy.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "core/time_sim.h"

namespace allot::core {
namespace {

constexpr double kPoint = 0.01;

// A random set: some always busy, some in bursts, some that leave gaps, some idle. Shares sum to at
// most `shares` permille.
GpuSim random_gpu(Random& random, uint32_t shares, bool maxima) {
  GpuSim gpu;
  const uint32_t count = 2 + random() % 5;
  uint32_t left = shares;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t share = random() % 4 ? random() % (left / 2 + 1) : 0;
    left -= share;
    const uint32_t max =
        maxima && random() % 2 ? std::max<uint32_t>(share, 20 + random() % 980) : 0;
    switch (i == 0 ? 0 : random() % 5) {
      case 0:
      case 1:
        gpu.add(share, max, kBusy);
        break;
      case 2:  // leaves gaps of the length of its work, about
        gpu.add(share, max, {(1 + random() % 20) * kMs / 4, (1 + random() % 20) * kMs / 4, 0},
                false);
        break;
      case 3:
        gpu.add(share, max,
                {(10 + random() % 500) * kMs, (100 + random() % 500) * kMs, random() % kSecond});
        break;
      default:
        gpu.add(share, max, kIdle);
    }
  }
  return gpu;
}

// What a slice may count on: its share, less where the floors of the others (1 %) do not fit beside
// it.
double promised(const GpuSim& gpu, size_t slice) {
  double sum = 0;
  for (const SimSlice& t : gpu.slices) {
    if (t.demand.work_ns > 0) sum += std::max(10u, t.slice.share_permille);
  }
  const SliceDemand& own = gpu.slices[slice].slice;
  return own.share_permille / std::max(1000.0, sum);
}

bool always_busy(const SimSlice& t) {
  return t.demand.work_ns > 0 && t.demand.pause_ns == 0;
}

TEST(TimeSim, ABusySliceGetsItsShareWhateverTheOthersDo) {
  Random random(11);
  for (int round = 0; round < 400; ++round) {
    GpuSim gpu = random_gpu(random, 1000, round % 2 == 0);
    gpu.run_until(10 * kSecond);
    for (size_t i = 0; i < gpu.slices.size(); ++i) {
      if (!always_busy(gpu.slices[i])) continue;
      EXPECT_GE(gpu.part(i), promised(gpu, i) - kPoint) << "round " << round << " slice " << i;
    }
  }
}

TEST(TimeSim, SharesComeOutWithinAPoint) {
  Random random(12);
  for (int round = 0; round < 200; ++round) {
    GpuSim gpu;
    const uint32_t count = 2 + random() % 6;
    std::vector<double> shares;
    double sum = 0;
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t share = 10 + random() % 300;
      gpu.add(share, 0, kBusy);
      shares.push_back(share);
      sum += share;
    }
    gpu.run_until(10 * kSecond);
    for (uint32_t i = 0; i < count; ++i) EXPECT_NEAR(gpu.part(i), shares[i] / sum, kPoint);
  }
}

TEST(TimeSim, NobodyPassesItsMaxInAnySecond) {
  Random random(13);
  for (int round = 0; round < 200; ++round) {
    GpuSim gpu = random_gpu(random, 1000, true);
    gpu.run_until(4 * kSecond);
    for (const SimSlice& t : gpu.slices) {
      const uint32_t max = t.slice.max_permille;
      if (max == 0) continue;
      EXPECT_LE(t.most_in(kSecond), max / 1000.0 + 1e-6) << "round " << round;
      EXPECT_LE(t.most_in(kCeilingSpanNs), max / 1000.0 + 1e-6) << "round " << round;
    }
  }
}

TEST(TimeSim, AloneOneReachesItsMax) {
  for (uint32_t max : {1u, 10u, 50u, 100u, 250u, 333u, 500u, 750u, 999u}) {
    GpuSim gpu;
    gpu.add(0, max, kBusy);
    gpu.run_until(10 * kSecond);
    EXPECT_GE(gpu.part(0), max / 1000.0 - 0.001) << max;
  }
}

TEST(TimeSim, IdleTimeIsLentInProportionToShare) {
  Random random(14);
  for (int round = 0; round < 100; ++round) {
    GpuSim gpu;
    const uint32_t a = 50 + random() % 250, b = 50 + random() % 250, c = 50 + random() % 250;
    const bool gaps = round % 2;  // as slices that would leave gaps, but at the moment do not
    gpu.add(a, 0, kBusy, !gaps);
    gpu.add(b, 0, kBusy, !gaps);
    gpu.add(c, 0, kIdle);
    gpu.run_until(10 * kSecond);
    const double sum = a + b;
    EXPECT_NEAR(gpu.part(0), a / sum, kPoint);
    EXPECT_NEAR(gpu.part(1), b / sum, kPoint);
  }
}

TEST(TimeSim, LentTimeIsTakenBackAtOnce) {
  Random random(15);
  for (int round = 0; round < 1000; ++round) {
    GpuSim gpu;
    const bool saturates = random() % 2;
    gpu.add(100 + random() % 233, 0, kBusy);
    gpu.add(100 + random() % 233, 0, kBusy);
    const uint64_t back = kSecond / 2 + random() % kSecond;
    gpu.add(100 + random() % 233, 0, {kSecond, 0, back}, saturates);
    gpu.run_until(back);
    EXPECT_EQ(gpu.slices[2].used_ns, 0);
    gpu.run_until(back + cycle_ns(3));
    // In one cycle after it came back it has had its whole place, wherever in the cycle it came.
    const double share = gpu.slices[2].slice.share_permille / 1000.0;
    EXPECT_GE(gpu.slices[2].used_ns, share * static_cast<double>(cycle_ns(3)) - 2.0 * kMs);
  }
}

TEST(TimeSim, ItsWindowBeginsAgainWithin2MsIfItIsItsPhase) {
  GpuSim gpu;
  gpu.add(500, 0, kBusy);
  gpu.add(500, 0, {kSecond, 0, 1070 * kMs});  // its place is 50 to 100 ms of the cycle
  gpu.run_until(1072 * kMs);
  EXPECT_GE(gpu.slices[1].used_ns, 0.0);
  EXPECT_EQ(gpu.slices[1].longest_wait_ns, 0u);
}

TEST(TimeSim, NobodyWithWorkStarves) {
  Random random(16);
  for (int round = 0; round < 300; ++round) {
    GpuSim gpu = random_gpu(random, 3000, false);  // overcommitted
    for (SimSlice& t : gpu.slices) {
      if (random() % 3 == 0) t.slice.priority = ALLOT_PRIORITY_LOW;
    }
    gpu.run_until(5 * kSecond);
    for (const SimSlice& t : gpu.slices) {
      if (t.demand.work_ns == 0) continue;
      EXPECT_LE(t.longest_wait_ns, cycle_ns(UINT32_MAX)) << "round " << round;
      EXPECT_GE(t.used_ns, always_busy(t) ? 5.0 * kSecond * 0.002 : 0) << "round " << round;
    }
  }
}

TEST(TimeSim, EvenASaturatingHighSliceLeavesTheOthersSomething) {
  GpuSim gpu;
  gpu.add(0, 0, kBusy, true, ALLOT_PRIORITY_HIGH);
  gpu.add(500, 0, kBusy);
  gpu.add(0, 0, kBusy, true, ALLOT_PRIORITY_LOW);
  gpu.run_until(10 * kSecond);
  EXPECT_GE(gpu.part(0), 0.99);
  EXPECT_GT(gpu.part(1), 0.0015);
  EXPECT_GT(gpu.part(2), 0.000015);
}

TEST(TimeSim, AHighSlicesRequestsRunAtOnce) {
  GpuSim gpu;
  gpu.add(500, 0, kBusy);
  gpu.add(500, 0, {kMs, kMs, 0}, false);
  gpu.add(0, 0, {kMs / 5, 10 * kMs, 33 * kMs}, false, ALLOT_PRIORITY_HIGH);
  gpu.run_until(10 * kSecond);
  EXPECT_EQ(gpu.slices[2].longest_wait_ns, 0u);
  // 0.2 ms of work in about 10.2 ms: what it wants, it gets.
  EXPECT_NEAR(gpu.part(2), 0.2 / 10.2, 0.001);
}

TEST(TimeSim, OneThatLeavesGapsLosesNoMoreThanItsNeighboursShare) {
  GpuSim gpu;
  gpu.add(500, 0, kBusy);
  gpu.add(500, 0, {5 * kMs, 2 * kMs, 0}, false);
  gpu.slices[1].slice.footprint_permille = 740;  // as its agent would see it
  gpu.run_until(10 * kSecond);
  EXPECT_GE(gpu.part(0), 0.5 - kPoint);
  EXPECT_GE(gpu.part(0) + gpu.part(1), 0.999);  // no gap goes to waste
  EXPECT_GE(gpu.part(1), 0.4);
}

}  // namespace
}  // namespace allot::core
