#include "model/scenario.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace allot::model {
namespace {

Scenario parsed(const std::string& text) {
  std::string error;
  std::optional<Scenario> scenario = parse_scenario(text, &error);
  EXPECT_TRUE(scenario) << error;
  return scenario.value_or(Scenario());
}

std::string error_of(const std::string& text) {
  std::string error;
  EXPECT_FALSE(parse_scenario(text, &error));
  return error;
}

Scenario example(const std::string& name) {
  std::ifstream file(std::string(ALLOT_EXAMPLES) + "/" + name);
  EXPECT_TRUE(file) << name;
  return parsed(std::string(std::istreambuf_iterator<char>(file), {}));
}

size_t longest(const ScenarioResult& result, uint64_t tick) {
  size_t most = 0;
  for (const auto& queue : result.queues[tick]) most = std::max(most, queue.size());
  return most;
}

bool logged(const ScenarioResult& result, const std::string& text) {
  return std::any_of(result.log.begin(), result.log.end(), [&](const ScenarioLog& entry) {
    return entry.text.find(text) != std::string::npos;
  });
}

TEST(Scenario, NamesTheLineThatIsWrong) {
  EXPECT_EQ(error_of("task w\nfrob x\n"), "line 2: 'frob' is not known here");
  EXPECT_EQ(error_of("kernel 3.0\n"), "line 1: kernel is one of 2.6.23, 2.6.25, 6.1, 6.12");
  EXPECT_EQ(error_of("# nothing\n"), "no task: a line such as 'task worker count=4' is needed");
  EXPECT_EQ(error_of("task w\ntask w\n"), "line 2: there is a task w already");
  EXPECT_EQ(error_of("task w\nat 5ms pin w\n"), "line 2: pin takes 2 arguments");
  EXPECT_EQ(error_of("task w\nat 9ms sleep w\nat 5ms wake w\n"),
            "line 3: events must be in order of time");
  EXPECT_EQ(error_of("task w\nrun 3h\n"), "line 2: '3h' is not a duration");
  EXPECT_NE(error_of("machine cpus=0\n"), "");
  EXPECT_NE(error_of("task w load=0%\n"), "");
}

TEST(Scenario, AffinityStoryOf2623PilesUpAndIsBalanced) {
  ScenarioResult result = run_scenario(example("affinity.sim"));
  EXPECT_EQ(longest(result, 50), 2u);
  EXPECT_EQ(longest(result, 120), 8u) << "all on the lowest allowed CPU";
  EXPECT_LE(longest(result, 320), 3u) << "balanced";
  EXPECT_GT(result.idle_ticks, 400u);
  EXPECT_GT(result.mean_imbalance, 2.0);
}

TEST(Scenario, AffinityTodayDoesNotPileUp) {
  ScenarioResult result = run_scenario(example("affinity-today.sim"));
  EXPECT_LE(longest(result, 120), 2u);
  EXPECT_EQ(result.idle_ticks, 0u);
}

TEST(Scenario, CpusetStory) {
  ScenarioResult result = run_scenario(example("cpuset.sim"));
  EXPECT_FALSE(logged(result, "out of range")) << "what is not there is dropped";
  EXPECT_TRUE(
      logged(result, "scan of /jobs/a, round 1: heap of 512 slots by start time: a1 a2 a3"));
  EXPECT_TRUE(logged(result, "move b1 to /jobs/a: guarantee_online_cpus gives 1"));
  EXPECT_TRUE(logged(result, "child /jobs/b uses CPU 3"));
  EXPECT_TRUE(logged(result, "sibling /jobs/a shares CPU 1"));
  for (const ScenarioShare& share : result.shares) {
    if (share.name == "child" || share.name == "a1" || share.name == "b1") {
      EXPECT_EQ(share.mask, "1") << share.name;
    }
    if (share.name == "b2") {
      EXPECT_EQ(share.mask, "2");
    }
    if (share.name == "top1") {
      EXPECT_EQ(share.mask, "0-2") << "what hotplug took is not given back";
    }
  }
}

TEST(Scenario, ForkRaceAndHotplugExamples) {
  EXPECT_TRUE(
      logged(run_scenario(example("fork-race.sim")), "child ESCAPED with the old mask 0-1"));
  ScenarioResult result = run_scenario(example("hotplug-v2.sim"));
  for (const ScenarioShare& share : result.shares) {
    if (share.name != "other1") {
      EXPECT_EQ(share.mask, "2-3");
    }
  }
}

TEST(Scenario, EveryExampleRunsAndDraws) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(ALLOT_EXAMPLES)) {
    if (entry.path().extension() != ".sim") continue;
    ScenarioResult result = run_scenario(example(entry.path().filename()));
    EXPECT_NE(scenario_text(result).find("migrations:"), std::string::npos);
    std::string svg = scenario_svg(result);
    EXPECT_TRUE(svg.starts_with("<svg ")) << entry.path();
    EXPECT_TRUE(svg.ends_with("</svg>\n")) << entry.path();
    ++count;
  }
  EXPECT_GE(count, 5);
}

// Between two events only tasks that sleep and wake change a queue: one row has the range.
TEST(Scenario, ATableHasARowForEachEventAndMove) {
  ScenarioResult result = run_scenario(example("hotplug-v2.sim"));
  const std::string text = scenario_text(result);
  const std::string rows = text.substr(text.find("queues ("));
  EXPECT_NE(rows.find("  0-1"), std::string::npos) << rows;
  EXPECT_EQ(std::count(rows.begin(), rows.begin() + static_cast<long>(rows.find("\n\n")), '\n'), 6)
      << rows;
}

// However long a list is, what is not shown is counted, and no line is cut.
TEST(Scenario, WhatAReportLeavesOutIsCounted) {
  const std::string script =
      "kernel 2.6.25\nmachine cpus=4\ngroup /a cpus=0-3\ntask t in=/a count=";
  for (int tasks : {1, 19, 39, 40, 41, 300}) {
    ScenarioResult result =
        run_scenario(parsed(script + std::to_string(tasks) +
                            "\nat 10ms write /a cpuset.cpus 0\nat 20ms show /a\n"
                            "run 30ms\n"));
    const std::string text = scenario_text(result);
    const auto said = [&](size_t count, size_t shown, const std::string& what) {
      const std::string line = "... " + std::to_string(count - shown) + " more " + what;
      EXPECT_EQ(text.find(line) != std::string::npos, count > shown) << tasks << ": " << line;
    };
    said(std::max<size_t>(result.shares.size(), 40), 40, "tasks");
    said(std::max<size_t>(result.migrations.size(), 20), 20, "moves");
    for (const ScenarioLog& entry : result.log)
      EXPECT_NE(text.find(entry.text), std::string::npos) << entry.text;
  }
}

// The pictures of the pages are what the program draws today.
TEST(Scenario, ThePicturesOfThePagesAreThoseOfTheExamples) {
  int count = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(ALLOT_EXAMPLES) + "/../pictures")) {
    const std::string script = entry.path().stem().string() + ".sim";
    if (!std::filesystem::exists(std::string(ALLOT_EXAMPLES) + "/" + script)) continue;
    std::ifstream file(entry.path());
    const std::string kept(std::istreambuf_iterator<char>(file), {});
    EXPECT_TRUE(kept == scenario_svg(run_scenario(example(script))))
        << entry.path() << ": draw it anew with allot cpus sim docs/examples/" << script
        << " --svg";
    ++count;
  }
  EXPECT_GE(count, 3);
}

TEST(Scenario, EqualInputsGiveEqualOutputs) {
  Scenario scenario = example("affinity.sim");
  EXPECT_EQ(scenario_text(run_scenario(scenario)), scenario_text(run_scenario(scenario)));
}

// Three spinners of a two-CPU slice: the predicted two thirds each come out, by migrating.
TEST(Scenario, SharesComeNearThePrediction) {
  ScenarioResult result =
      run_scenario(parsed("machine cpus=2\ntask w pin=0\ntask v count=3\nrun 4s\n"));
  for (const ScenarioShare& share : result.shares)
    EXPECT_NEAR(share.measured, share.predicted, 0.2) << share.name;
}

// The two cases of migrate_task are told apart, and a scan's rounds are those of the scenario's own
// tasks.
TEST(Scenario, ShowsBothCasesOfMigrateTask) {
  ScenarioResult result = run_scenario(example("affinity.sim"));
  EXPECT_TRUE(logged(result, "sleeper: case 1, asleep: its CPU is set to 2"));
  EXPECT_TRUE(logged(result, "case 2, on queue 4: request 1 to migration/4 (-> CPU 0)"));
}

TEST(Scenario, AScanWithMoreTasksThanSlotsTakesTwoRounds) {
  ScenarioResult result = run_scenario(example("heap-scan.sim"));
  EXPECT_TRUE(logged(result, "(512 tasks); 88 later ones did not fit"));
  EXPECT_TRUE(logged(result, "round 2"));
}

TEST(Scenario, MakesShowsAndRemovesGroups) {
  ScenarioResult result = run_scenario(
      parsed("kernel 6.1\ntask w\nat 1ms mkdir /a\nat 1ms write /a cpuset.mems 0\n"
             "at 1ms write /a cpuset.cpus 1\nat 1ms show /a\nat 2ms write /a cpuset.cpus\n"
             "at 2ms rmdir /a\nat 2ms show /a\nrun 5ms\n"));
  EXPECT_TRUE(logged(result, "/a/cpuset.cpus: 1"));
  EXPECT_TRUE(logged(result, "there is no group /a"));
  EXPECT_FALSE(result.unknown);
}

TEST(Scenario, PartitionsAreModelled) {
  ScenarioResult result =
      run_scenario(parsed("kernel 6.12\nhierarchy v2\ngroup /p cpus=2-3\ntask w\n"
                          "at 1ms write /p cpuset.cpus.partition root\nat 2ms show /\nrun 5ms\n"));
  EXPECT_TRUE(logged(result, "/cpuset.cpus.effective: 0-1"));
  EXPECT_FALSE(result.unknown);
}

}  // namespace
}  // namespace allot::model
