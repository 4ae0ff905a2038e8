// `--swap fast`: the process moves its own memory, on the software GPU: contents, addresses, who
// waits, who is told what, and every step that may fail.
#include <signal.h>

#include <fstream>

#include "tests/e2e/moving_slices.h"

namespace allot::e2e {
namespace {

using nlohmann::json;

class Swap : public MovingSlices {
 protected:
  Swap() : MovingSlices({"--swap", "fast"}, 36 * kMiB - 12) {}

  uint64_t on_gpu(const std::string& name, const char* field) {
    const json one = slice(name);
    return one.contains("gpus") ? one["gpus"][0][field].get<uint64_t>() : 0;
  }

  uint64_t free_bytes(Command& program) { return std::stoull(ask(program, "info")); }

  // A failure that leaves the slice running, with its contents, and able to go the next time.
  void expect_runs_on(Command& program, const Outcome& out, const std::string& why) {
    EXPECT_EQ(out.status, kRefused) << out.out;
    EXPECT_NE(out.err.find(why), std::string::npos) << out.err;
    EXPECT_FALSE(evicted("a"));
    EXPECT_EQ(on_gpu("a", "host_bytes"), 0u);
    EXPECT_EQ(ask(program, "check 3"), "ok");
  }
};

TEST_F(Swap, FreesTheCardAndBringsEveryByteBackToItsAddress) {
  environment["ALLOT_SIM_GPUS"] = "1x1280M";
  auto program = holder("a", 7, {"--gpu-mem", "1G"});
  auto other = start_gpu_program({"--name", "b"});
  EXPECT_EQ(ask(*program, "range"), "ok");
  const uint64_t before = free_bytes(*other);
  const uint64_t used = on_gpu("a", "used_bytes");
  const Outcome out = allot({"evict", "a"});
  ASSERT_EQ(out.status, 0) << out.err;
  EXPECT_NE(out.out.find("100 MiB move"), std::string::npos) << out.out;
  EXPECT_NE(out.out.find("small blocks 2 MiB"), std::string::npos) << out.out;
  EXPECT_TRUE(evicted("a"));
  EXPECT_EQ(on_gpu("a", "host_bytes"), 100 * kMiB);
  EXPECT_EQ(on_gpu("a", "used_bytes"), used);
  EXPECT_EQ(slice("a")["swap"], "fast");
  EXPECT_EQ(slice("a")["gpus"][0]["state"], "evicted");
  EXPECT_NE(allot({"ps"}).out.find("100 MiB of it on the host"), std::string::npos);
  EXPECT_EQ(free_bytes(*other), before + 100 * kMiB);
  EXPECT_NE(allot({"evict", "a"}).out.find("already"), std::string::npos);
  // Questions are answered meanwhile, and others use the freed space.
  EXPECT_NE(ask(*program, "info"), "");
  EXPECT_EQ(ask(*other, "alloc " + std::to_string(before + 64 * kMiB)), "ok");
  EXPECT_EQ(ask(*other, "fill 1"), "ok");
  EXPECT_EQ(ask(*other, "free"), "ok");
  program->write("check 7\n");
  const Outcome back = allot({"restore", "a", "--json"});
  ASSERT_EQ(back.status, 0) << back.err;
  EXPECT_EQ(json::parse(back.out)["way"], "fast");
  EXPECT_EQ(json::parse(back.out)["bytes"], 100 * kMiB);
  EXPECT_EQ(program->line(), "ok");
  EXPECT_EQ(ask(*program, "range"), "ok");
  EXPECT_FALSE(evicted("a"));
  EXPECT_EQ(on_gpu("a", "host_bytes"), 0u);
  EXPECT_EQ(on_gpu("a", "used_bytes"), used);
  EXPECT_EQ(free_bytes(*other), before);
  EXPECT_EQ(ask(*program, "free"), "ok");
  EXPECT_EQ(on_gpu("a", "used_bytes"), used - 36 * kMiB);
  EXPECT_EQ(free_bytes(*other), before + 36 * kMiB);
}

TEST_F(Swap, TheEnvironmentAsksForItToo) {
  environment["ALLOT_SWAP"] = "fast";
  auto program = start_gpu_program({"--name", "a"});
  EXPECT_EQ(slice("a")["swap"], "fast");
  environment["ALLOT_SWAP"] = "quick";
  const Outcome out = allot({"run", "--sim", "--", "true"});
  EXPECT_EQ(out.status, 2);
  EXPECT_NE(out.err.find("neither driver nor fast"), std::string::npos) << out.err;
}

TEST_F(Swap, MovesAllProcessesOfASlice) {
  auto program = pair("a", "");
  const Outcome out = allot({"evict", "a", "--json"});
  ASSERT_EQ(out.status, 0) << out.err;
  EXPECT_EQ(json::parse(out.out)["processes"].size(), 2u);
  EXPECT_EQ(json::parse(out.out)["bytes"], 96 * kMiB);
  program->write("check 5\n");
  ASSERT_EQ(allot({"restore", "a"}).status, 0);
  EXPECT_EQ(program->line(), "ok");
  expect_second_kept();
}

TEST_F(Swap, GoesBackWhenOneProcessFailsHalfWay) {
  for (const char* call : {"cuMemcpyDtoHAsync_v2", "cuMemUnmap"}) {
    auto program = pair("a", std::string(call) + ":nth=1:result=999");
    const Outcome out = allot({"evict", "a"});
    EXPECT_EQ(out.status, kRefused);
    EXPECT_NE(out.err.find("'a' keeps running"), std::string::npos) << call << out.err;
    EXPECT_FALSE(evicted("a"));
    EXPECT_EQ(on_gpu("a", "host_bytes"), 0u);
    EXPECT_EQ(ask(*program, "check 5"), "ok");
    ASSERT_EQ(allot({"evict", "a"}).status, 0) << call;  // the next time it works
    program->write("check 5\n");
    ASSERT_EQ(allot({"restore", "a"}).status, 0);
    EXPECT_EQ(program->line(), "ok");
    expect_second_kept();
    program->write("exit 0\n");
    EXPECT_EQ(program->wait(), 0);
    unlink((folder() + "/second.in").c_str());
  }
}

TEST_F(Swap, MapsAgainWhatWasUnmappedWhenTheNextBlockFails) {
  environment["ALLOT_SIM_FAULTS"] = "cuMemUnmap:nth=2:result=999";
  auto program = holder("a", 3);
  environment["ALLOT_SIM_FAULTS"] = "";
  expect_runs_on(*program, allot({"evict", "a"}), "could not move to the host");
  ASSERT_EQ(allot({"evict", "a"}).status, 0);
  ASSERT_EQ(allot({"restore", "a"}).status, 0);
  EXPECT_EQ(ask(*program, "check 3"), "ok");
}

TEST_F(Swap, StaysEvictedWhenOneProcessCannotComeBack) {
  // The second create is the first restore's.
  auto program = pair("a", "cuMemCreate:nth=2:result=999");
  ASSERT_EQ(allot({"evict", "a"}).status, 0);
  const Outcome back = allot({"restore", "a"});
  EXPECT_EQ(back.status, kRefused);
  EXPECT_NE(back.err.find("stays evicted"), std::string::npos) << back.err;
  EXPECT_TRUE(evicted("a"));
  EXPECT_EQ(on_gpu("a", "host_bytes"), 96 * kMiB);
  program->write("check 5\n");
  ASSERT_EQ(allot({"restore", "a"}).status, 0);
  EXPECT_EQ(program->line(), "ok");
  expect_second_kept();
}

TEST_F(Swap, SaysWhatIsMissingOnTheCard) {
  environment["ALLOT_SIM_GPUS"] = "1x2G";
  auto program = holder("a", 3);
  auto other = start_gpu_program({"--name", "b"});
  ASSERT_EQ(allot({"evict", "a"}).status, 0);
  const uint64_t most = free_bytes(*other) - 64 * kMiB;
  ASSERT_EQ(ask(*other, "alloc " + std::to_string(most)), "ok");
  const Outcome back = allot({"restore", "a"});
  EXPECT_EQ(back.status, kRefused);
  EXPECT_NE(back.err.find("is free; it stays evicted"), std::string::npos) << back.err;
  EXPECT_TRUE(evicted("a"));
  ASSERT_EQ(ask(*other, "free"), "ok");
  program->write("check 3\n");
  EXPECT_EQ(allot({"restore", "a"}).status, 0);
  EXPECT_EQ(program->line(), "ok");
}

TEST_F(Swap, AProgramInTheMiddleOfItsWorkGoesOn) {
  auto program = start_gpu_program({"--name", "a", "--swap", "fast", "--gpu-mem", "1G"});
  program->write("churn\n");
  ASSERT_TRUE(wait_until([&] { return on_gpu("a", "used_bytes") > 512 * kMiB; }));
  int moves = 0;
  for (int i = 0; i < 5; ++i) {
    const Outcome out = allot({"evict", "a"});
    ASSERT_EQ(out.status, 0) << out.err;
    if (on_gpu("a", "host_bytes") > 0) ++moves;
    ASSERT_EQ(allot({"restore", "a"}).status, 0);
  }
  const std::string answer = ask(*program, "stop");
  EXPECT_EQ(answer.substr(0, 3), "ok ") << answer;
  EXPECT_GT(moves, 0);
}

TEST_F(Swap, GivesUpOnWorkThatDoesNotEnd) {
  // The first wait for the context is the filling's, the second the eviction's.
  environment["ALLOT_SIM_FAULTS"] = "cuCtxSynchronize:nth=2:delay_us=1500000";
  auto program = holder("a", 3);
  environment["ALLOT_SIM_FAULTS"] = "";
  const Outcome out = allot({"evict", "a", "--timeout", "0.5"});
  expect_runs_on(*program, out, "did not end within 0.5 s");
  EXPECT_NE(out.err.find("--swap driver"), std::string::npos) << out.err;
  ASSERT_EQ(allot({"evict", "a"}).status, 0);
  ASSERT_EQ(allot({"restore", "a"}).status, 0);
  EXPECT_EQ(ask(*program, "check 3"), "ok");
}

TEST_F(Swap, DoesNotBreakACapture) {
  auto program = holder("a", 3);
  ASSERT_EQ(ask(*program, "capture"), "0");
  expect_runs_on(*program, allot({"evict", "a", "--timeout", "0.3"}),
                 "never stops capturing graphs");
  // An eviction that waits long enough goes when the capture has ended.
  auto command = start({"evict", "a"});
  ASSERT_TRUE(wait_until([&] { return evicted("a"); }));
  program->write("launch 77\n");
  EXPECT_EQ(command->wait(), 0);
  ASSERT_EQ(allot({"restore", "a"}).status, 0);
  EXPECT_EQ(program->line(), "0");
}

TEST_F(Swap, RefusesWhatAnotherDeviceReachesInto) {
  auto program = holder("a", 3);
  ASSERT_EQ(ask(*program, "pin"), "0");
  const Outcome out = allot({"evict", "a"});
  expect_runs_on(*program, out, "SYNC_MEMOPS");
  EXPECT_NE(out.err.find("nothing was changed"), std::string::npos) << out.err;
}

TEST_F(Swap, RefusesWhereNothingCanMove) {
  auto program = start_gpu_program({"--name", "a", "--swap", "fast"});
  ASSERT_EQ(ask(*program, "alloc 4096"), "ok");
  const Outcome out = allot({"evict", "a"});
  EXPECT_EQ(out.status, kRefused);
  EXPECT_NE(out.err.find("can be moved fast"), std::string::npos) << out.err;
  auto plain = start_gpu_program({"--name", "b"});
  const Outcome other = allot({"evict", "--swap", "fast", "b"});
  EXPECT_EQ(other.status, kRefused);
  EXPECT_NE(other.err.find("was not started with"), std::string::npos) << other.err;
}

TEST_F(Swap, TellsThatItsBlocksCannotBeShared) {
  environment["ALLOT_LOG"] = folder() + "/log";
  auto program = holder("a", 3);
  EXPECT_NE(ask(*program, "ipc"), "0");
  std::ifstream log(folder() + "/log");
  const std::string text{std::istreambuf_iterator<char>(log), std::istreambuf_iterator<char>()};
  EXPECT_NE(text.find("no IPC handle"), std::string::npos) << text;
  EXPECT_EQ(allot({"evict", "a"}).status, 0);
}

TEST_F(Swap, AKilledProgramLeavesNothing) {
  environment["ALLOT_SIM_GPUS"] = "1x4G";
  auto program = holder("a", 3);
  const int pid = std::stoi(ask(*program, "pid"));
  auto other = start_gpu_program({"--name", "b"});
  const uint64_t before = free_bytes(*other);
  ASSERT_EQ(allot({"evict", "a"}).status, 0);
  ASSERT_EQ(kill(pid, SIGKILL), 0);
  EXPECT_EQ(program->wait(), 128 + SIGKILL);
  EXPECT_TRUE(slice("a").empty());
  EXPECT_TRUE(wait_until([&] { return free_bytes(*other) >= before + 612 * kMiB; }));
}

TEST_F(Swap, AnEvictedProgramMayEnd) {
  auto program = holder("a", 3);
  ASSERT_EQ(allot({"evict", "a"}).status, 0);
  program->write("exit 7\n");
  EXPECT_EQ(program->wait(), 7);
}

TEST_F(Swap, RestoreMendsWhatAKilledCommandLeft) {
  environment["ALLOT_SIM_FAULTS"] = "cuMemcpyDtoHAsync_v2:nth=1:delay_us=2000000";
  auto program = holder("a", 3);
  environment["ALLOT_SIM_FAULTS"] = "";
  auto command = start({"evict", "a"});
  ASSERT_TRUE(wait_until([&] { return evicted("a"); }));
  command->signal(SIGKILL);
  EXPECT_EQ(command->wait(), 128 + SIGKILL);
  EXPECT_EQ(allot({"restore", "a"}).status, 0);
  EXPECT_FALSE(evicted("a"));
  EXPECT_EQ(ask(*program, "check 3"), "ok");
}

TEST_F(Swap, TheDriversWayIsOpenToo) {
  auto program = holder("a", 3);
  const Outcome out = allot({"evict", "--swap", "driver", "a"});
  ASSERT_EQ(out.status, 0) << out.err;
  EXPECT_EQ(slice("a")["swap"], "driver");
  EXPECT_GE(on_gpu("a", "host_bytes"), 612 * kMiB);
  program->write("check 3\n");
  ASSERT_EQ(allot({"restore", "a"}).status, 0);
  EXPECT_EQ(program->line(), "ok");
  ASSERT_EQ(allot({"evict", "a"}).status, 0);
  EXPECT_EQ(slice("a")["swap"], "fast");
  ASSERT_EQ(allot({"restore", "a"}).status, 0);
  EXPECT_EQ(ask(*program, "check 3"), "ok");
}

TEST_F(Swap, AFrozenSliceIsFrozenAgainWhenItComesBack) {
  auto program = holder("a", 3, {"--gpu-max", "50"});
  ASSERT_EQ(allot({"freeze", "a"}).status, 0);
  ASSERT_EQ(allot({"evict", "a"}).status, 0);
  ASSERT_EQ(allot({"restore", "a"}).status, 0);
  ASSERT_TRUE(wait_until([&] { return slice("a")["gpus"][0]["state"] == "frozen"; }));
  ASSERT_EQ(allot({"thaw", "a"}).status, 0);
  EXPECT_EQ(ask(*program, "check 3"), "ok");
}

TEST_F(Swap, ComesBackByItselfWhenItWorksAgain) {
  environment["ALLOT_SIM_GPUS"] = "1x4G";
  auto idle = holder("a", 3, {"--gpu-mem", "3G", "--priority", "low"});
  auto second = start({"run", "--sim", "--name", "b", "--gpu-mem", "3G", "--wait", "--evict-idle",
                       "0.1", "--", GPU_PROGRAM});
  ASSERT_EQ(second->line(), "ready");
  EXPECT_TRUE(evicted("a"));
  EXPECT_EQ(ask(*idle, "alloc 4194304"), "ok");  // an allocation is work, too
  EXPECT_EQ(ask(*idle, "free"), "ok");
  EXPECT_EQ(ask(*idle, "check 3"), "ok");
  EXPECT_FALSE(evicted("a"));
}

}  // namespace
}  // namespace allot::e2e
