// What allot promises of GPU time, for every kind of program beside every other, on the software
// GPU.
//
// `allot bench share` runs the loads, measures each alone first, and says of each promise what came
// out (bench/README.md, promises). Kernels are four times as long as on a card, because the host's
// own delays on a busy machine would be most of a short one (sim/README.md); stops and windows are
// as long as on a card. A machine of two busy CPUs is allowed kPoints and kHostMs on top.
//
// A case that missed is run twice again, longer and with what the loads do alone measured anew. It
// fails only if each time the machine was free for it (load_watch.h); else it is skipped.
//
// Holds are the cases that the policy keeps, NotYet those that it does not keep yet, which CI
// leaves out (tests/e2e/CMakeLists.txt). A case moves from one to the other by its name in
// held_today().
#include <filesystem>
#include <ostream>
#include <set>

#include "tests/e2e/load_watch.h"
#include "tests/e2e/machine.h"

namespace allot::e2e {
namespace {

using nlohmann::json;

constexpr int kAttempts = 3;
constexpr double kPoints = 4;  // of progress and GPU time
constexpr double kHostMs = 4;  // at p99; a quarter of it at the median

struct Kind {
  const char* name;
  const char* load;
};

constexpr Kind kKinds[] = {
    {"full", "full"},
    {"wait", "wait,kernel-us=800,host-us=1600"},
    {"request", "request,kernel-us=800,period-us=8800"},
    {"step", "step,kernel-us=66"},
    {"launch", "launch-bound,kernel-us=80,inflight=20"},
};

struct Case {
  std::string name;
  std::vector<std::string> slices;
};

void PrintTo(const Case& one, std::ostream* out) {
  for (const std::string& text : one.slices) *out << " --slice " << text;
}

std::string slice(const Kind& kind, int share, int max = 0) {
  std::string text = kind.load;
  if (share > 0) text += ",share=" + std::to_string(share);
  if (max > 0) text += ",max=" + std::to_string(max);
  return text;
}

Case pair(const Kind& a, int share_a, const Kind& b, int share_b) {
  return {std::string(a.name) + std::to_string(share_a) + "_" + b.name + std::to_string(share_b),
          {slice(a, share_a), slice(b, share_b)}};
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const Kind& a : kKinds) {
    for (const Kind& b : kKinds) cases.push_back(pair(a, 30, b, 70));
    for (const Kind& b : kKinds) {
      if (&b >= &a) cases.push_back(pair(a, 50, b, 50));
    }
    for (const int max : {20, 30, 50, 75})
      cases.push_back({std::string(a.name) + "_max" + std::to_string(max), {slice(a, 0, max)}});
    cases.push_back(
        {std::string(a.name) + "30_max50_beside_full70", {slice(a, 30, 50), slice(kKinds[0], 70)}});
  }
  const auto& [full, wait, request, step, launch] = kKinds;
  cases.push_back({"mix_step30_wait20_full10_full40",
                   {slice(step, 30), slice(wait, 20), slice(full, 10), slice(full, 40)}});
  cases.push_back({"mix_step18_launch40_full11_full31",
                   {slice(step, 18), slice(launch, 40), slice(full, 11), slice(full, 31)}});
  cases.push_back({"mix_request10_step20_wait30_full40",
                   {slice(request, 10), slice(step, 20), slice(wait, 30), slice(full, 40)}});
  cases.push_back({"mix_wait25_wait25_launch25_request25",
                   {slice(wait, 25), slice(wait, 25), slice(launch, 25), slice(request, 25)}});
  return cases;
}

// The cases that the policy keeps. When every case holds, remove the list and NotYet.
const std::set<std::string>& held_today() {
  static const std::set<std::string> names = {
      "full30_wait70",
      "full30_request70",
      "full50_wait50",
      "full50_request50",
      "wait30_full70",
      "wait_max30",
      "wait_max50",
      "wait_max75",
      "wait30_max50_beside_full70",
      "request30_full70",
      "request30_step70",
      "request_max20",
      "request_max30",
      "request_max50",
      "request30_max50_beside_full70",
      "step30_request70",
      "step30_step70",
      "step50_step50",
      "step_max75",
      "full30_full70",
      "full50_full50",
      "full_max20",
      "full_max30",
      "full_max50",
      "full_max75",
      "full30_max50_beside_full70",
      "wait30_wait70",
      "wait30_request70",
      "wait30_step70",
      "wait30_launch70",
      "wait50_wait50",
      "wait50_request50",
      "wait50_step50",
      "wait50_launch50",
      "request30_wait70",
      "request30_request70",
      "request30_launch70",
      "request50_request50",
      "request50_launch50",
      "request_max75",
      "step30_wait70",
      "launch30_wait70",
      "launch50_launch50",
  };
  return names;
}

std::vector<Case> cases(bool held) {
  std::vector<Case> chosen = all_cases();
  std::erase_if(chosen,
                [&](const Case& one) { return (held_today().count(one.name) != 0) != held; });
  return chosen;
}

// Nothing, or the first promise that was missed by more than a busy machine explains.
std::string missed(const json& slice) {
  for (const json& promise : slice["promises"]) {
    const std::string what = promise["what"];
    const double slack = what == "wait p99 ms" ? kHostMs : what == "wait p50 ms" ? kHostMs / 4 : 0;
    const double value = promise["value"], limit = promise["limit"];
    if (promise["kind"] == "at_least" ? value >= limit - slack : value <= limit + slack) continue;
    return slice["load"].get<std::string>() + ": " + promise.dump() + "; ";
  }
  return "";
}

class Guarantee : public Machine, public testing::WithParamInterface<Case> {
 protected:
  // What loads do alone is measured once for all cases, and again for a case that missed.
  static void SetUpTestSuite() {
    std::string pattern = testing::TempDir() + "/allot-guarantee-XXXXXX";
    shared_ = mkdtemp(pattern.data());
  }
  static void TearDownTestSuite() { std::filesystem::remove_all(shared_); }
  void SetUp() override { environment["ALLOT_SIM_DIR"] = shared_; }

  json run(double seconds, double warm, const std::string& calibration) {
    std::vector<std::string> words = {"bench",         "share",
                                      "--sim",         "--json",
                                      "--seconds",     std::to_string(seconds),
                                      "--warm",        std::to_string(warm),
                                      "--points",      std::to_string(kPoints),
                                      "--calibration", calibration};
    for (const std::string& slice : GetParam().slices)
      words.insert(words.end(), {"--slice", slice});
    return json_of(words);
  }

  static std::string problem(const json& result) {
    std::string found;
    for (const json& slice : result["phases"][0]["slices"]) {
      EXPECT_FALSE(slice["promises"].empty()) << slice.dump();
      found += missed(slice);
    }
    return found;
  }

  static std::string shared_;
};

std::string Guarantee::shared_;

TEST_P(Guarantee, IsKept) {
  std::string last = problem(run(1, 0.8, shared_ + "/calibrations"));
  std::string busy;
  for (int attempt = 1; attempt < kAttempts && !last.empty(); ++attempt) {
    LoadWatch watch;
    const std::string found =
        problem(run(1.6, 1.2, folder() + "/calibrations-" + std::to_string(attempt)));
    const std::string why = watch.why_busy();
    if (found.empty()) return;
    if (why.empty()) {
      last = found;
    } else {
      busy = why;
    }
  }
  if (!last.empty() && !busy.empty()) GTEST_SKIP() << "machine busy (" << busy << "): " << last;
  EXPECT_EQ(last, "");
}

const auto kNameOf = [](const testing::TestParamInfo<Case>& info) { return info.param.name; };
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Guarantee);
INSTANTIATE_TEST_SUITE_P(Holds, Guarantee, testing::ValuesIn(cases(true)), kNameOf);
INSTANTIATE_TEST_SUITE_P(NotYet, Guarantee, testing::ValuesIn(cases(false)), kNameOf);

}  // namespace
}  // namespace allot::e2e
