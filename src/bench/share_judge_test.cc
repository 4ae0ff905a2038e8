// What is promised to whom, on figures written by hand.
#include "bench/share_judge.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace allot::bench {
namespace {

nlohmann::json waits(double p50, double p99) {
  return {{"count", 1000}, {"p50", p50}, {"p90", p99}, {"p99", p99}, {"p999", p99}, {"max", p99}};
}

// A slice whose load keeps the GPU busy for `busy` of the time alone, and got `progress` of that.
Had had(const std::string& text, double busy, double progress) {
  const SliceSpec spec = parse_slice(text);
  Had out;
  out.load = spec.load;
  out.grant = spec.grant;
  out.priority = spec.priority;
  out.latency_ms = spec.latency_ms;
  out.alone.work_rate = 1e6;
  out.alone.gpu_per_work = busy;
  out.alone.waits = waits(0.5, 0.6);
  out.progress = progress;
  out.gpu_time = busy * progress;
  return out;
}

const Promise* find(const std::vector<Promise>& all, const std::string& what) {
  const auto at = std::find_if(all.begin(), all.end(),
                               [&](const Promise& promise) { return promise.what == what; });
  return at == all.end() ? nullptr : &*at;
}

bool kept(const std::vector<Had>& all, size_t which, const std::string& what) {
  const std::vector<Promise> promised = promises(all, which, 1);
  const Promise* promise = find(promised, what);
  EXPECT_NE(promise, nullptr) << what;
  return promise != nullptr && promise->kept();
}

TEST(ShareJudge, AShareIsProgressAgainstAloneLessAPoint) {
  EXPECT_TRUE(kept({had("wait:50", 0.33, 0.491), had("full:50", 1, 0.6)}, 0, "progress %"));
  EXPECT_FALSE(kept({had("wait:50", 0.33, 0.489), had("full:50", 1, 0.6)}, 0, "progress %"));
  EXPECT_TRUE(kept({had("wait:50", 0.33, 0.9), had("full:50", 1, 0.5)}, 1, "progress %"));
}

TEST(ShareJudge, WhoIsAloneIsLentAllOfIt) {
  EXPECT_FALSE(kept({had("wait:50", 0.33, 0.9), had("idle:50", 0, 0)}, 0, "progress %"));
  EXPECT_TRUE(kept({had("wait:50", 0.33, 0.975), had("idle:50", 0, 0)}, 0, "progress %"));
}

TEST(ShareJudge, ALoadBelowItsCeilingIsNotTouched) {
  std::vector<Had> all = {had("wait,max=50", 0.33, 0.5)};
  EXPECT_FALSE(kept(all, 0, "progress %"));
  all[0].waits = waits(0.5, 25);
  EXPECT_FALSE(kept(all, 0, "wait p99 ms"));
  all[0].progress = 0.98;
  all[0].waits = waits(0.5, 0.7);
  EXPECT_TRUE(kept(all, 0, "progress %"));
  EXPECT_TRUE(kept(all, 0, "wait p99 ms"));
}

TEST(ShareJudge, ALoadAboveItsCeilingIsHeldAtIt) {
  const std::string at_least = "GPU time at least %";
  EXPECT_TRUE(kept({had("wait,max=20", 0.33, 0.6)}, 0, "GPU time %"));
  EXPECT_TRUE(kept({had("wait,max=20", 0.33, 0.6)}, 0, at_least));
  EXPECT_FALSE(kept({had("wait,max=20", 0.33, 0.5)}, 0, at_least));
  EXPECT_FALSE(kept({had("full,max=20", 1, 0.22)}, 0, "GPU time %"));
  EXPECT_FALSE(kept({had("full,max=20", 1, 0.22), had("full:50", 1, 0.7)}, 0, "GPU time %"));
}

TEST(ShareJudge, AShareEndsAtTheCeiling) {
  EXPECT_TRUE(kept({had("full:50,max=30", 1, 0.295), had("full:50", 1, 0.7)}, 0, "progress %"));
}

TEST(ShareJudge, AStopIsBoundedByThePeriodWithoutTheShare) {
  std::vector<Had> all = {had("step:30", 1, 0.3), had("step:70", 1, 0.7)};
  const auto limit = [&](size_t which) {
    all[which].waits = waits(0.5, 1);
    const std::vector<Promise> promised = promises(all, which, 1);
    return find(promised, "wait p99 ms")->limit;
  };
  EXPECT_NEAR(limit(0), 16, 1e-6);
  EXPECT_NEAR(limit(1), 8, 1e-6);
  all[0].latency_ms = 5;
  EXPECT_NEAR(limit(0), 7, 1e-6);
  // Four milliseconds of work in windows of two are two stops.
  all[0].grant.share_permille = 100;
  all[0].latency_ms = 0;
  all[0].alone.waits = waits(4, 5);
  EXPECT_NEAR(limit(0), 2 * 18 + 5, 1e-6);
  // Nobody waits for a batch of 16 ms.
  all[0].alone.waits = waits(16, 17);
  EXPECT_EQ(find(promises(all, 0, 1), "wait p99 ms"), nullptr);
}

TEST(ShareJudge, RequestsThatFitTheirShareGoFirst) {
  std::vector<Had> all = {had("request:30", 0.09, 1), had("full:70", 1, 0.8)};
  all[0].alone.waits = waits(0.218, 0.247);
  all[0].waits = waits(0.44, 0.59);
  EXPECT_TRUE(kept(all, 0, "wait p50 ms"));
  EXPECT_TRUE(kept(all, 0, "wait p99 ms"));
  all[0].waits = waits(5.6, 70);
  EXPECT_FALSE(kept(all, 0, "wait p50 ms"));
  EXPECT_FALSE(kept(all, 0, "wait p99 ms"));
  // With a share of 10 % its switches no longer fit: stops as for anybody.
  all[0].grant.share_permille = 100;
  EXPECT_EQ(find(promises(all, 0, 1), "wait p50 ms"), nullptr);
}

TEST(ShareJudge, NothingIsPromisedWithoutAGrantOrBeforeTheWorkBegins) {
  EXPECT_TRUE(promises({had("full", 1, 0.1), had("full:70", 1, 0.7)}, 0, 1).empty());
  std::vector<Had> late = {had("full:50", 1, 0.1), had("full:50", 1, 0.9)};
  late[0].works = false;
  EXPECT_TRUE(promises(late, 0, 1).empty());
}

}  // namespace
}  // namespace allot::bench
