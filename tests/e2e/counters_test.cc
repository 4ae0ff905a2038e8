// What a slice and its processes have had so far: counters in the region that only grow and outlive
// the processes that made them.
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>
#include <csignal>

#include <cstddef>

#include "abi/region.h"
#include "tests/e2e/machine.h"

namespace allot::e2e {
namespace {

using nlohmann::json;

class CountersOf : public Machine {
 protected:
  json slice(const std::string& name = "a") {
    const json all = json_of({"ps", "--json"});
    for (const json& one : all["slices"]) {
      if (one["name"] == name) return one;
    }
    ADD_FAILURE() << "no slice " << name;
    return {};
  }
  uint64_t of_slice(const char* field) { return slice()[field]; }
  uint64_t of_gpu(const char* field) { return slice()["gpus"][0][field]; }
  json of_process() {
    const json processes = slice()["processes"];
    return processes.empty() ? json() : processes[0]["counters"];
  }
  // A slice whose shell starts the program again and again.
  std::unique_ptr<Command> start_again_and_again() {
    auto command = start({"run", "--sim", "--gpu-mem", "1G", "--name", "a", "--", "sh", "-c",
                          "while :; do " GPU_PROGRAM "; done"});
    EXPECT_EQ(command->line(), "ready");
    return command;
  }
  static std::string gib(int n) { return "alloc " + std::to_string(uint64_t(n) * kGiB); }
};

TEST_F(CountersOf, ASliceOutliveTheProcessesThatEndOrAreKilled) {
  const auto command = start_again_and_again();
  EXPECT_EQ(ask(*command, gib(8)), "2");
  EXPECT_EQ(ask(*command, gib(1)), "2") << "the context is there";
  EXPECT_EQ(of_gpu("refused"), 2u) << "once for each request";
  EXPECT_EQ(of_process()["refused"], 2);
  command->write("exit 0\n");
  EXPECT_EQ(command->line(), "ready");
  EXPECT_EQ(of_gpu("refused"), 2u);
  EXPECT_EQ(of_process()["refused"], 0) << "another process";
  EXPECT_EQ(ask(*command, gib(8)), "2");
  const pid_t pid = std::stoi(ask(*command, "pid"));
  kill(pid, SIGKILL);
  EXPECT_EQ(command->line(), "ready");
  EXPECT_EQ(of_gpu("refused"), 3u);
}

TEST_F(CountersOf, AProcessThatCallsExecContinue) {
  const auto command = start({"run", "--sim", "--gpu-mem", "1G", "--name", "a", "--", GPU_PROGRAM});
  ASSERT_EQ(command->line(), "ready");
  const std::string pid = ask(*command, "pid");
  EXPECT_EQ(ask(*command, gib(8)), "2");
  ASSERT_EQ(ask(*command, "exec"), "there");
  EXPECT_TRUE(slice()["processes"].empty()) << "a shell now; and its slot is cleared";
  EXPECT_EQ(of_gpu("refused"), 1u);
  ASSERT_EQ(ask(*command, ""), "ready");
  EXPECT_EQ(ask(*command, "pid"), pid);
  EXPECT_EQ(of_process()["refused"], 1);
  EXPECT_EQ(ask(*command, gib(8)), "2");
  EXPECT_EQ(of_process()["refused"], 2);
  EXPECT_EQ(of_gpu("refused"), 2u);
}

TEST_F(CountersOf, FrozenTimeGrowsWhileFrozenAndStandsStillAfter) {
  const auto program = start_gpu_program({"--name", "a"});
  EXPECT_EQ(of_slice("frozen_ns"), 0u);
  EXPECT_EQ(allot({"freeze", "a"}).status, 0);
  EXPECT_EQ(allot({"freeze", "a"}).status, 0);
  EXPECT_TRUE(wait_until([&] { return of_slice("frozen_ns") > 300'000'000; }));
  EXPECT_TRUE(wait_until([&] { return of_process()["frozen_ns"] > 200'000'000; }));
  EXPECT_EQ(allot({"thaw", "a"}).status, 0);
  const uint64_t once = of_slice("frozen_ns");
  poll(nullptr, 0, 50);  // not a wait for anything: the span in which it must not grow
  EXPECT_EQ(of_slice("frozen_ns"), once);
  EXPECT_LE(of_process()["frozen_ns"], once + 1'000'000'000);
  EXPECT_EQ(allot({"freeze", "a"}).status, 0);
  EXPECT_TRUE(wait_until([&] { return of_slice("frozen_ns") > once; }));
  // It also outlives a program that is killed while it is frozen.
  kill(std::stoi(ask(*program, "pid")), SIGCONT);
  EXPECT_EQ(allot({"thaw", "a"}).status, 0);
}

TEST_F(CountersOf, EvictionsAndRestoresAreCountedOnce) {
  for (const char* way : {"driver", "fast"}) {
    SCOPED_TRACE(way);
    const auto program = start_gpu_program({"--name", "a", "--swap", way});
    ASSERT_EQ(ask(*program, "alloc 4194304"), "ok");
    for (uint32_t round = 1; round <= 2; ++round) {
      EXPECT_EQ(allot({"evict", "a"}).status, 0);
      EXPECT_EQ(allot({"evict", "a"}).status, 0) << "already";
      EXPECT_EQ(of_slice("evictions"), round);
      EXPECT_EQ(of_process()["evictions"], round);
      EXPECT_EQ(allot({"restore", "a"}).status, 0);
      EXPECT_EQ(allot({"restore", "a"}).status, 0) << "already";
      EXPECT_EQ(of_slice("restores"), round);
      EXPECT_EQ(of_process()["restores"], round);
    }
    program->write("exit 0\n");
    EXPECT_EQ(program->wait(), 0);
  }
}

TEST_F(CountersOf, TimeIsThatOfItsProcessesAndNeverGoesBack) {
  const auto load = start({"run", "--sim", "--name", "a", "--gpu-max", "50", "--", "sh", "-c",
                           "while :; do " ALLOT_BINARY " bench load --seconds 0.4; done"});
  uint64_t used = 0;
  uint64_t throttled = 0;
  uint64_t one_before = 0;
  uint64_t seen_of_one = 0;
  const bool grew = wait_until([&] {
    const json all = json_of({"ps", "--json"})["slices"];
    if (all.empty()) return false;
    const json gpu = all[0]["gpus"][0];
    EXPECT_GE(gpu["time_used_ns"], used);
    EXPECT_GE(gpu["time_throttled_ns"], throttled);
    used = gpu["time_used_ns"];
    throttled = gpu["time_throttled_ns"];
    if (!all[0]["processes"].empty()) {
      const json one = all[0]["processes"][0]["counters"];
      EXPECT_LE(one_before, used);  // of the read before: two numbers of one may differ in time
      one_before = one["time_used_ns"];
      seen_of_one = std::max(seen_of_one, one["time_used_ns"].get<uint64_t>());
    }
    return used > 700'000'000 && throttled > 300'000'000;
  });
  EXPECT_TRUE(grew) << used << " " << throttled;
  EXPECT_GT(seen_of_one, 0u);
  EXPECT_LT(seen_of_one, used) << "several processes have had it";
}

TEST_F(CountersOf, AFileThatKeepsNoneSaysNull) {
  const auto program = start_gpu_program({"--name", "a"});
  const int file = open((region() + "/a.slice").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_GE(file, 0);
  const uint32_t minor = 4;
  ASSERT_EQ(pwrite(file, &minor, sizeof minor, offsetof(AllotHeader, minor)), 4);
  const uint32_t nobody = 0;
  ASSERT_EQ(pwrite(file, &nobody, sizeof nobody,
                   offsetof(AllotSliceFile, swaps) + offsetof(AllotSwap, counters)),
            4);
  close(file);
  const json one = slice();
  for (const char* field : {"frozen_ns", "evictions", "restores"})
    EXPECT_TRUE(one.at(field).is_null()) << field;
  EXPECT_TRUE(one["processes"][0]["counters"].is_null());
  EXPECT_NE(allot({"ps", "--counters"}).out.find(" - "), std::string::npos);
}

TEST_F(CountersOf, PsShowsThemAsText) {
  const auto command = start_again_and_again();
  EXPECT_EQ(ask(*command, gib(8)), "2");
  EXPECT_EQ(allot({"evict", "a"}).status, 0);
  const Outcome got = allot({"ps", "--counters"});
  EXPECT_EQ(got.status, 0) << got.err;
  for (const char* text :
       {"HELD-BACK", "REFUSED", "FROZEN", "EVICTED", "1 refused", "evicted 1 time"}) {
    EXPECT_NE(got.out.find(text), std::string::npos) << text << "\n" << got.out;
  }
  EXPECT_EQ(allot({"restore", "a"}).status, 0);
}

}  // namespace
}  // namespace allot::e2e
