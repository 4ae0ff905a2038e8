// The policy of GPU time when the clock jumps ahead: a guest that was paused, a machine that slept
// by a clock that counts it. (The clock in use, CLOCK_MONOTONIC, stands still in sleep, never goes
// back, and nobody can set it.)
#include <gtest/gtest.h>

#include <array>

#include "core/time_sim.h"

namespace allot::core {
namespace {

constexpr uint64_t kJumps[] = {kSecond / 2, 3600 * kSecond, 86400 * 400 * kSecond};

TEST(TimeJump, WindowsGoOnAsBefore) {
  std::array<SliceDemand, 3> slices = {};
  for (uint32_t i = 0; i < 3; ++i) {
    slices[i] = {i + 1u, 100 + 200 * i, 0, 1, ALLOT_PRIORITY_NORMAL, true, true, false};
  }
  for (const uint64_t jump : kJumps) {
    for (const uint64_t start : {500 * kSecond + jump, 2 * 86400 * 400 * kSecond - jump}) {
      std::array<TimeGrant, 3> grants = {};
      std::array<uint64_t, 3> ran = {};
      for (uint64_t now = start; now < start + kSecond;) {
        plan_gpu(slices, now, grants);
        uint64_t next = start + kSecond;
        for (const TimeGrant& grant : grants) next = std::min(next, grant.until_ns);
        ASSERT_GT(next, now);
        for (size_t i = 0; i < 3; ++i) ran[i] += grants[i].open ? next - now : 0;
        now = next;
      }
      for (size_t i = 0; i < 3; ++i) {
        EXPECT_NEAR(static_cast<double>(ran[i]) / kSecond,
                    (100.0 + 200.0 * static_cast<double>(i)) / 900.0, 0.05);
      }
    }
  }
}

// Runs for a second as far as the ceiling lets it; returns what it used from then on.
uint64_t use_a_second(Ceiling& ceiling, uint64_t now) {
  uint64_t used = 0;
  const uint64_t end = now + kSecond;
  while (now < end) {
    const uint64_t begin = ceiling.next_start(now);
    if (begin >= end) break;
    const uint64_t until = std::min(ceiling.may_run_until(begin), end);
    EXPECT_GT(until, begin);
    ceiling.start(begin);
    ceiling.stop(until);
    used += until - begin;
    now = until;
  }
  return used;
}

TEST(TimeJump, ACeilingIsNeitherLostNorHeldAgainstItsSlice) {
  for (const uint64_t jump : kJumps) {
    Ceiling ceiling;
    ceiling.set_max(300);
    uint64_t now = 1000 * kSecond;
    use_a_second(ceiling, now);
    now += kSecond + jump;  // stopped meanwhile
    EXPECT_EQ(ceiling.next_start(now), now);
    EXPECT_NEAR(static_cast<double>(use_a_second(ceiling, now)) / kSecond, 0.3, 0.031) << jump;
    now += kSecond;
    ceiling.start(now);  // and while it ran: one span to wait, not the whole jump
    now += jump;
    ceiling.stop(now);
    EXPECT_LE(ceiling.next_start(now), now + kCeilingSpanNs);
    EXPECT_NEAR(static_cast<double>(use_a_second(ceiling, now)) / kSecond, 0.3, 0.04) << jump;
  }
}

}  // namespace
}  // namespace allot::core
