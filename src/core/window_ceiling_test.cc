#include "core/window_ceiling.h"

#include <gtest/gtest.h>

namespace allot::core {
namespace {

constexpr uint64_t kMs = 1'000'000;
using Kind = WindowCeiling::Kind;

TimeGrant open_grant() {
  TimeGrant grant = {};
  grant.open = true;
  grant.until_ns = UINT64_MAX;
  return grant;
}

// Runs without a pause for two seconds under `max`, as the agent would; returns the time then.
uint64_t run_two_seconds(WindowCeiling& ceiling, uint32_t max_permille) {
  ceiling.set(max_permille, Kind::kNet, 10 * kMs);
  ceiling.run(10 * kMs, true);
  return 2010 * kMs;
}

TEST(WindowCeiling, ALowerMaxCountsFromTheChangeOn) {
  WindowCeiling ceiling;
  uint64_t now = run_two_seconds(ceiling, kWhole);
  ceiling.set(100, Kind::kNet, now);
  TimeGrant grant = open_grant();
  uint64_t next = ceiling.hold(now, true, &grant);
  if (!grant.open) ceiling.run(now, false);
  const uint64_t changed = now;
  while (!grant.open && now < changed + 2000 * kMs) {
    now = next;
    grant = open_grant();
    next = ceiling.hold(now, false, &grant);
  }
  EXPECT_TRUE(grant.open);
  EXPECT_LE(now, changed + 100 * kMs);
}

TEST(WindowCeiling, TheSameMaxAgainForgetsNothing) {
  WindowCeiling ceiling;
  ceiling.set(500, Kind::kNet, 0);
  uint64_t used = 0, now = 0;
  // Asks all the time, and says its max each time, for three seconds.
  for (bool running = false; now < 3000 * kMs; now += kMs) {
    ceiling.set(500, Kind::kNet, now);
    TimeGrant grant = open_grant();
    ceiling.hold(now, running, &grant);
    if (grant.open != running) ceiling.run(now, running = grant.open);
    if (running && now >= 1000 * kMs) used += kMs;
  }
  EXPECT_LE(used, 2000 * kMs * 505 / 1000);
  EXPECT_GE(used, 2000 * kMs * 480 / 1000);
}

}  // namespace
}  // namespace allot::core
