// The arithmetic of shares, on runs written by hand.
#include "bench/share_report.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace allot::bench {
namespace {

// A slice that does `rate[second]` of what its load does alone, evenly within each second. The load
// alone does 2e6 microseconds of work a second, each 0.5 us of device time: it fills the GPU.
SliceRun slice(const std::string& text, const std::vector<double>& rates) {
  SliceRun run{
      parse_slice(text), {}, {Progress(static_cast<double>(rates.size()) * 1e3), 0, {}, {}}};
  run.calibration.work_rate = 2e6;
  run.calibration.gpu_per_work = 0.5;
  for (size_t second = 0; second < rates.size(); ++second) {
    const double at = static_cast<double>(second) * 1e3;
    run.log.progress.add(at, at + 1000, rates[second] * 2e6);
  }
  return run;
}

Phase phase_of(const std::vector<SliceRun>& runs, double begin_ms, double end_ms) {
  Phase phase{-1, begin_ms, end_ms, {}};
  for (const SliceRun& run : runs) phase.grants.push_back(run.spec.grant);
  return phase;
}

TEST(ShareReport, ErrorsAreAgainstTheGrantedPartOfTheTotal) {
  // 29 + 67 of 96: the lost 4 % are nobody's error, 30.2 : 69.8 is 0.2 points off.
  const std::vector<SliceRun> runs = {slice("share=30", {0, 0.29, 0.29}),
                                      slice("share=70", {1, 0.67, 0.67})};
  const auto result = phase_json(runs, phase_of(runs, 1000, 3000));
  EXPECT_NEAR(result["slices"][0]["achieved"].get<double>(), 0.29, 1e-6);
  EXPECT_NEAR(result["slices"][0]["share_of_total"].get<double>(), 0.29 / 0.96, 1e-6);
  EXPECT_NEAR(result["slices"][0]["share_error_points"].get<double>(), 0.21, 1e-9);
  EXPECT_NEAR(result["slices"][1]["share_error_points"].get<double>(), -0.21, 1e-9);
  EXPECT_NEAR(result["share_error_mean_points"].get<double>(), 0.21, 1e-9);
  EXPECT_NEAR(result["total_achieved"].get<double>(), 0.96, 1e-6);
  EXPECT_EQ(result["slices"][0]["per_second"].size(), 2u);
}

TEST(ShareReport, SharesAreOfTheirSum) {
  const std::vector<SliceRun> runs = {slice("share=10", {0.5}), slice("share=10", {0.5})};
  const auto result = phase_json(runs, phase_of(runs, 0, 1000));
  EXPECT_NEAR(result["slices"][0]["due"].get<double>(), 0.5, 1e-9);
  EXPECT_NEAR(result["share_error_mean_points"].get<double>(), 0, 1e-9);
}

TEST(ShareReport, TheWorstSecondIsNotTheMean) {
  const std::vector<SliceRun> runs = {slice("share=50", {0.5, 0.4, 0.6}),
                                      slice("share=50", {0.5, 0.6, 0.4})};
  const auto result = phase_json(runs, phase_of(runs, 0, 3000));
  EXPECT_NEAR(result["share_error_mean_points"].get<double>(), 0, 1e-9);
  EXPECT_NEAR(result["share_worst_second_points"].get<double>(), 10, 1e-9);
}

TEST(ShareReport, ACeilingIsAFractionOfTheTime) {
  const std::vector<SliceRun> runs = {slice("max=25", {0.24, 0.27})};
  const auto result = phase_json(runs, phase_of(runs, 0, 2000))["slices"][0];
  EXPECT_NEAR(result["max_error_points"].get<double>(), 0.5, 1e-9);
  EXPECT_NEAR(result["max_worst_second_points"].get<double>(), 2, 1e-9);
  EXPECT_NEAR(result["max_passed_points"].get<double>(), 2, 1e-9);
  EXPECT_FALSE(result.contains("share_error_points"));
}

TEST(ShareReport, ALoadWithGapsIsJudgedByDeviceTime) {
  std::vector<SliceRun> runs = {slice("max=50,load=launch-bound", {0.9})};
  runs[0].calibration.gpu_per_work = 0.275;  // busy 55 % alone
  const PhaseShare got = phase_shares(runs, phase_of(runs, 0, 1000))[0];
  EXPECT_NEAR(got.achieved, 0.9, 1e-6);
  EXPECT_NEAR(got.gpu_time, 0.495, 1e-6);
  EXPECT_NEAR(got.judged, got.gpu_time, 1e-9);
}

TEST(ShareReport, NoErrorIsStatedWhereNothingIsDue) {
  // One slice without a share takes what is left, so nobody's part is known beforehand.
  std::vector<SliceRun> runs = {slice("share=30", {0.3}), slice("load=eager", {0.6})};
  EXPECT_FALSE(phase_json(runs, phase_of(runs, 0, 1000)).contains("share_error_mean_points"));
  // An idle one does not count: the other is due all.
  runs[1] = slice("share=70,load=idle", {0});
  const auto result = phase_json(runs, phase_of(runs, 0, 1000));
  EXPECT_NEAR(result["slices"][0]["due"].get<double>(), 1, 1e-9);
}

TEST(ShareReport, AChangeIsTimedFromItsBeginning) {
  std::vector<SliceRun> runs = {slice("share=20", {0.5, 0.2, 0.2}),
                                slice("share=80", {0.5, 0.8, 0.8})};
  Phase phase = phase_of(runs, 1500, 3000);
  phase.changed_ms = 950;
  const auto result = phase_json(runs, phase);
  // A span of 200 ms may hold 5 of 30 points' worth of the old share.
  EXPECT_NEAR(result["slices"][0]["settled_ms"].get<double>(), 50 - 200 * 5 / 30.0, 2);
  phase.changed_ms = 1200;
  EXPECT_EQ(phase_json(runs, phase)["slices"][0]["settled_ms"], 0.0);
  phase.grants[0].share_permille = 900;
  EXPECT_TRUE(phase_json(runs, phase)["slices"][0]["settled_ms"].is_null());
}

TEST(ShareReport, WaitsAreThoseOfThePhase) {
  std::vector<SliceRun> runs = {slice("load=request", {0.1, 0.1})};
  for (int ms = 0; ms < 2000; ms += 2)
    runs[0].log.operations.push_back({double(ms), ms < 1000 ? 9.0 : 0.25});
  const auto result = phase_json(runs, phase_of(runs, 1000, 2000))["slices"][0];
  EXPECT_EQ(result["waits"]["count"], 500);
  EXPECT_EQ(result["waits"]["max"], 0.25);
}

TEST(ShareReport, AReturnFromIdlingIsTimedFromTheMomentItBegan) {
  SliceRun back = slice("share=50,load=bursty", {0, 0});
  SliceRun other = slice("share=50", {1, 0});
  // Back at 1000 ms; the neighbour gives way 30 ms later.
  other.log.progress.add(1000, 1030, 30 * 2e3);
  back.log.progress.add(1030, 2000, 970 * 1e3);
  other.log.progress.add(1030, 2000, 970 * 1e3);
  back.log.resumed_ms = {1000};
  const std::vector<SliceRun> runs = {other, back};
  const auto result = phase_json(runs, phase_of(runs, 500, 2000))["slices"][1]["back_from_idle"];
  ASSERT_EQ(result["each"].size(), 1u);
  EXPECT_NEAR(result["max_ms"].get<double>(), 26, 3);
}

TEST(ShareReport, TheTextFitsATerminal) {
  std::vector<SliceRun> runs;
  for (const char* load : {"full", "graph", "long", "step", "wait", "request", "mixed", "bursty"})
    runs.push_back(slice(std::string("share=10,max=100,load=") + load, {0.1}));
  nlohmann::ordered_json result;
  result["phases"].push_back(phase_json(runs, phase_of(runs, 0, 1000)));
  nlohmann::ordered_json& slices = result["phases"][0]["slices"];
  for (nlohmann::ordered_json& one : slices) {
    one["native"]["achieved"] = 1.0;
    one["waits"] = {
        {"p50", 12345.678}, {"p99", 12345.678}, {"p999", 12345.678}, {"max", 12345.678}};
    one["promises"] = nlohmann::ordered_json::array();
    for (int i = 0; i < 3; ++i) {
      one["promises"].push_back({{"what", "stalls: p99 of its operations, ms"},
                                 {"value", 12345.67},
                                 {"kind", "at_most"},
                                 {"limit", 12345.67},
                                 {"kept", false}});
    }
  }
  std::istringstream lines(phases_text(result));
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 80u) << line;
}

TEST(ShareReport, TheTextHasALineASlice) {
  const std::vector<SliceRun> runs = {slice("share=30", {0.3}), slice("share=70", {0.7})};
  nlohmann::ordered_json result;
  result["phases"].push_back(phase_json(runs, phase_of(runs, 0, 1000)));
  const std::string text = phases_text(result);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 8) << text;
  EXPECT_NE(text.find("100.0 % of alone"), std::string::npos) << text;
}

}  // namespace
}  // namespace allot::bench
