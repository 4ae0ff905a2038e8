// Slices and phases as they are written.
#include "bench/share_spec.h"

#include <gtest/gtest.h>

#include "bench/driver_api.h"

namespace allot::bench {
namespace {

TEST(ShareSpec, ReadsFieldsInAnyOrder) {
  const SliceSpec slice =
      parse_slice("kernel-us=50,share=30,load=graph,max=50.5%,priority=high,level=launch,from=2");
  EXPECT_EQ(slice.load.kind, LoadKind::kGraph);
  EXPECT_EQ(slice.load.kernel_us, 50)
      << "a default of the load must not undo what was written before it";
  EXPECT_EQ(slice.load.kernels, 20u);
  EXPECT_EQ(slice.load.from_s, 2);
  EXPECT_EQ(slice.grant.share_permille, 300u);
  EXPECT_EQ(slice.grant.max_permille, 505u);
  EXPECT_EQ(slice.priority, "high");
  EXPECT_EQ(slice.level, "launch");
}

TEST(ShareSpec, ALoadAndItsShareMayComeFirst) {
  const SliceSpec slice = parse_slice("wait:20,max=50,host-us=0,latency-ms=5");
  EXPECT_EQ(slice.load.kind, LoadKind::kWait);
  EXPECT_EQ(slice.load.host_us, 0);
  EXPECT_EQ(slice.grant.share_permille, 200u);
  EXPECT_EQ(slice.grant.max_permille, 500u);
  EXPECT_EQ(slice.latency_ms, 5);
  EXPECT_EQ(parse_slice("request").grant.share_permille, 0u);
  EXPECT_EQ(parse_slice("eager:12.5%").load.kind, LoadKind::kFull) << "the name it had before";
  EXPECT_STREQ(kind_name(LoadKind::kFull), "full");
}

TEST(ShareSpec, TheLoadsHaveTheShapesThatTheGuaranteeIsJudgedBy) {
  EXPECT_NEAR(parse_slice("step").load.kernel_us * parse_slice("step").load.kernels, 530, 5);
  EXPECT_EQ(parse_slice("wait").load.kernel_us, 200);
  EXPECT_EQ(parse_slice("wait").load.host_us, 400);
  EXPECT_EQ(parse_slice("request").load.kernel_us, 200);
  EXPECT_EQ(parse_slice("request").load.period_us, 2200);
  EXPECT_EQ(parse_slice("full").load.kernel_us * parse_slice("full").load.inflight, 16000);
}

TEST(ShareSpec, NothingGrantedIsNothing) {
  const SliceSpec slice = parse_slice("load=step");
  EXPECT_EQ(slice.grant.share_permille, 0u);
  EXPECT_EQ(slice.grant.max_permille, 0u);
  EXPECT_EQ(slice.load.kernels, 32u);
  EXPECT_EQ(slice.load.inflight, 1u);
}

TEST(ShareSpec, RefusesWhatItDoesNotKnow) {
  for (const char* text : {"load=paper", "share=101", "share=-1", "sahre=3", "share", "=3",
                           "load=", "load=eager,kernel-us=0", "load=eager,kernel-us=1x", "from=-1",
                           "load=eager,inflight=nan", "step:", "step:0x", ":30", "step:30,full:20",
                           "share=30,step", "wait:20,host-us=-1"}) {
    try {
      parse_slice(text);
      ADD_FAILURE() << text << " was taken";
    } catch (const Failure& failure) {
      EXPECT_EQ(failure.exit_status(), 2) << text;
    }
  }
}

TEST(ShareSpec, APhaseChangesOnlyWhatItNames) {
  const std::vector<Grant> before = {{500, 0}, {500, 700}};
  const std::vector<Grant> after = parse_phase("share=20 / max=none", before);
  EXPECT_EQ(after[0].share_permille, 200u);
  EXPECT_EQ(after[1].share_permille, 500u);
  EXPECT_EQ(after[1].max_permille, 0u);
  EXPECT_EQ(parse_phase("/", before)[0].share_permille, 500u);
  EXPECT_THROW(parse_phase("share=20", before), Failure);
  EXPECT_THROW(parse_phase("load=eager/", before), Failure);
}

TEST(ShareSpec, ALoadSurvivesTheWayToItsProcess) {
  const LoadSpec load =
      parse_slice("load=bursty,kernel-us=120,busy-ms=70,idle-ms=30,from=1.5").load;
  const LoadSpec same = load_from_json(nlohmann::json::parse(load_json(load).dump()));
  EXPECT_EQ(load_json(same), load_json(load));
  EXPECT_EQ(same.kind, LoadKind::kBursty);
  EXPECT_EQ(same.from_s, 1.5);
}

TEST(ShareSpec, WhenALoadBeginsDoesNotMatterForItsCalibration) {
  EXPECT_EQ(parse_slice("load=eager,from=3").load.calibration_key(),
            parse_slice("load=eager,share=10").load.calibration_key());
  EXPECT_NE(parse_slice("load=eager,kernel-us=20").load.calibration_key(),
            parse_slice("load=eager").load.calibration_key());
}

}  // namespace
}  // namespace allot::bench
