// Evict and restore as users type them, on the software GPU: contents, several processes, every way
// to fail.
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/e2e/moving_slices.h"

namespace allot::e2e {
namespace {

using nlohmann::json;

class Evict : public MovingSlices {
 protected:
  Evict() : MovingSlices({}, 36 * kMiB) {}

  uint64_t host_bytes(const std::string& name) {
    uint64_t sum = 0;
    const json one = slice(name);
    if (!one.contains("gpus")) return 0;
    for (const json& gpu : one["gpus"]) sum += gpu["host_bytes"].get<uint64_t>();
    return sum;
  }

  void expect_both_kept(Command& first) {
    EXPECT_EQ(first.line(), "ok");
    expect_second_kept();
  }

  // Ends one of a slice's two processes while `command` waits for it. Stopped, it cannot answer;
  // killed, it stays a zombie, as its parent is a program that knows of no child.
  void end_one_during(const std::string& command, const std::string& mark) {
    auto program = pair("a", "");
    const int first = std::stoi(ask(*program, "pid"));
    int second = 0;
    const json found = slice("a");
    for (const json& process : found["processes"]) {
      if (process["pid"] != first) second = process["pid"];
    }
    ASSERT_GT(second, 0);
    ASSERT_EQ(kill(second, SIGSTOP), 0);
    auto waiting = start({command, "a", "--timeout", "3600"});
    ASSERT_TRUE(wait_until([&] { return slice("a").value(mark, false); }));
    kill(second, SIGKILL);
    EXPECT_EQ(waiting->wait(), 0) << waiting->err();
  }
};

TEST_F(Evict, FreesTheCardAndBringsEveryByteBack) {
  environment["ALLOT_SIM_GPUS"] = "1x4G";
  auto program = holder("a", 7);
  auto other = start_gpu_program({"--name", "b"});
  const std::string before = ask(*other, "info");
  const Outcome out = allot({"evict", "a"});
  ASSERT_EQ(out.status, 0) << out.err;
  EXPECT_NE(out.out.find("to the host"), std::string::npos) << out.out;
  EXPECT_NE(out.out.find("a: evicted"), std::string::npos) << out.out;
  EXPECT_TRUE(evicted("a"));
  EXPECT_GE(host_bytes("a"), 612 * kMiB);
  EXPECT_NE(allot({"ps"}).out.find("evicted"), std::string::npos);
  EXPECT_GE(std::stoull(ask(*other, "info")), std::stoull(before) + 612 * kMiB);
  // It may stay so; asked twice it says so.
  EXPECT_NE(allot({"evict", "a"}).out.find("already"), std::string::npos);
  program->write("check 7\n");
  const Outcome back = allot({"restore", "a"});
  ASSERT_EQ(back.status, 0) << back.err;
  EXPECT_EQ(program->line(), "ok");
  EXPECT_FALSE(evicted("a"));
  EXPECT_EQ(host_bytes("a"), 0u);
  EXPECT_EQ(ask(*other, "info"), before);
  EXPECT_EQ(ask(*program, "alloc 1048576"), "ok");
}

// The driver's restore makes other channels, and sets no timeslice on them.
TEST_F(Evict, ARestoredOneIsHeldByItsChannelsAgain) {
  auto program = holder("a", 3, {"--gpu-max", "50"});
  const auto level = [&] {
    EXPECT_EQ(ask(*program, "fill 3"), "ok");
    return slice("a")["processes"][0].value("level", "");
  };
  ASSERT_TRUE(wait_until([&] { return level() == "channel"; })) << level();
  for (int round = 0; round < 2; ++round) {
    ASSERT_EQ(allot({"evict", "a"}).status, 0);
    ASSERT_EQ(allot({"restore", "a"}).status, 0);
    EXPECT_TRUE(wait_until([&] { return level() == "channel"; })) << level();
  }
}

TEST_F(Evict, MovesAllProcessesOfASlice) {
  auto program = pair("a", "");
  const Outcome out = allot({"evict", "a", "--json"});
  ASSERT_EQ(out.status, 0) << out.err;
  EXPECT_EQ(json::parse(out.out)["processes"].size(), 2u);
  program->write("check 5\n");
  ASSERT_EQ(allot({"restore", "a"}).status, 0);
  expect_both_kept(*program);
}

TEST_F(Evict, GoesBackWhenOneProcessFailsHalfWay) {
  // Whichever is moved first, one of the two has been moved, or nothing has.
  auto program = pair("a", "checkpoint:checkpoint:nth=1:result=999");
  const Outcome out = allot({"evict", "a"});
  EXPECT_EQ(out.status, kRefused);
  EXPECT_NE(out.err.find("'a' keeps running"), std::string::npos) << out.err;
  EXPECT_FALSE(evicted("a"));
  EXPECT_EQ(host_bytes("a"), 0u);
  program->write("check 5\n");
  expect_both_kept(*program);
  // The next time it works.
  ASSERT_EQ(allot({"evict", "a"}).status, 0);
  program->write("check 5\n");
  ASSERT_EQ(allot({"restore", "a"}).status, 0);
  EXPECT_EQ(program->line(), "ok");
}

TEST_F(Evict, DoesNotWaitForAProcessThatEndsMeanwhile) {
  end_one_during("evict", "evicted");
}

TEST_F(Evict, NorDoesAFreeze) {
  end_one_during("freeze", "frozen");
}

TEST_F(Evict, StaysEvictedWhenOneProcessCannotComeBack) {
  auto program = pair("a", "checkpoint:restore:nth=1:result=999");
  ASSERT_EQ(allot({"evict", "a"}).status, 0);
  const Outcome back = allot({"restore", "a"});
  EXPECT_EQ(back.status, kRefused);
  EXPECT_NE(back.err.find("stays evicted"), std::string::npos) << back.err;
  EXPECT_TRUE(evicted("a"));
  EXPECT_EQ(slice("a")["gpus"][0]["host_bytes"], slice("a")["gpus"][0]["used_bytes"]);
  program->write("check 5\n");
  ASSERT_EQ(allot({"restore", "a"}).status, 0);
  expect_both_kept(*program);
}

TEST_F(Evict, GivesUpOnWorkThatDoesNotEnd) {
  environment["ALLOT_SIM_FAULTS"] = "checkpoint:lock:nth=1:result=600";
  auto program = holder("a", 3);
  environment["ALLOT_SIM_FAULTS"] = "";
  const Outcome out = allot({"evict", "a", "--timeout", "1"});
  EXPECT_EQ(out.status, kRefused);
  EXPECT_NE(out.err.find("did not end within 1 s"), std::string::npos) << out.err;
  EXPECT_FALSE(evicted("a"));
  EXPECT_EQ(ask(*program, "check 3"), "ok");
}

TEST_F(Evict, SaysWhatIsMissingOnTheCard) {
  environment["ALLOT_SIM_GPUS"] = "1x2G";
  auto program = holder("a", 3);
  ASSERT_EQ(allot({"evict", "a"}).status, 0);
  auto other = start_gpu_program({"--name", "b"});
  ASSERT_EQ(ask(*other, "alloc 1400000000"), "ok");
  const Outcome back = allot({"restore", "a"});
  EXPECT_EQ(back.status, kRefused);
  EXPECT_NE(back.err.find("is free; it stays evicted"), std::string::npos) << back.err;
  EXPECT_TRUE(evicted("a"));
  ASSERT_EQ(ask(*other, "free"), "ok");
  program->write("check 3\n");
  EXPECT_EQ(allot({"restore", "a"}).status, 0);
  EXPECT_EQ(program->line(), "ok");
}

TEST_F(Evict, RefusesManagedMemoryBeforeItTouchesAnything) {
  auto program = holder("a", 3);
  ASSERT_EQ(ask(*program, "managed 2097152"), "ok");
  const Outcome out = allot({"evict", "a"});
  EXPECT_EQ(out.status, kRefused);
  EXPECT_NE(out.err.find("managed memory"), std::string::npos) << out.err;
  EXPECT_NE(out.err.find("nothing was changed"), std::string::npos) << out.err;
  EXPECT_FALSE(evicted("a"));
  EXPECT_EQ(ask(*program, "check 3"), "ok");
}

TEST_F(Evict, AKilledProgramLeavesNothing) {
  auto program = holder("a", 3);
  const int pid = std::stoi(ask(*program, "pid"));
  ASSERT_EQ(allot({"evict", "a"}).status, 0);
  ASSERT_EQ(kill(pid, SIGKILL), 0);
  EXPECT_EQ(program->wait(), 128 + SIGKILL);
  EXPECT_TRUE(region_files().empty());
  auto other = start_gpu_program({"--name", "a"});
  EXPECT_EQ(ask(*other, "alloc 1048576"), "ok");
}

TEST_F(Evict, WhoStartsMeanwhileWaits) {
  auto program =
      start({"run", "--sim", "--name", "a", "--", "sh", "-c", "read go; exec " GPU_PROGRAM});
  ASSERT_TRUE(wait_until([&] { return !slice("a").empty(); }));
  ASSERT_EQ(allot({"evict", "a"}).status, 0);
  program->write("go\n");
  ASSERT_TRUE(wait_until([&] { return slice("a")["processes"].size() == 1; }));
  EXPECT_EQ(slice("a")["gpus"][0]["used_bytes"], 0);
  ASSERT_EQ(allot({"restore", "a"}).status, 0);
  EXPECT_EQ(program->line(), "ready");
}

TEST_F(Evict, RestoreMendsWhatAKilledCommandLeft) {
  auto program = holder("a", 3, {"--gpu-mem", "1G"});
  environment["ALLOT_SIM_FAULTS"] = "cuCheckpointProcessCheckpoint:nth=1:delay_us=5000000";
  {
    auto command = start({"evict", "a"});
    ASSERT_TRUE(wait_until([&] { return evicted("a"); }));
    command->signal(SIGKILL);
    EXPECT_EQ(command->wait(), 128 + SIGKILL);
  }
  environment["ALLOT_SIM_FAULTS"] = "";
  program->write("check 3\n");
  EXPECT_TRUE(wait_until([&] { return allot({"restore", "a"}).status == 0; }));
  EXPECT_EQ(program->line(), "ok");
  EXPECT_FALSE(evicted("a"));
}

TEST_F(Evict, SignalsDoItOnlyWhereAskedFor) {
  environment["ALLOT_SIGNALS"] = "1";
  auto program = holder("a", 3);
  program->signal(SIGUSR2);
  ASSERT_TRUE(wait_until([&] { return host_bytes("a") > 0; }));
  program->write("check 3\n");
  program->signal(SIGUSR1);
  EXPECT_EQ(program->line(), "ok");
  environment["ALLOT_SIGNALS"] = "";
  auto plain = start_gpu_program({"--name", "b"});
  plain->signal(SIGUSR2);  // is the program's, which ends by it
  EXPECT_EQ(plain->wait(), 128 + SIGUSR2);
}

TEST_F(Evict, ARunWaitsForMemory) {
  environment["ALLOT_SIM_GPUS"] = "1x4G";
  auto first = start_gpu_program({"--name", "a", "--gpu-mem", "3G"});
  const Outcome out =
      allot({"run", "--sim", "--gpu-mem", "3G", "--wait", "--wait-timeout", "0.2", "--", "true"});
  EXPECT_EQ(out.status, 124);
  EXPECT_NE(out.err.find("is not free on GPU 0"), std::string::npos) << out.err;
  auto second =
      start({"run", "--sim", "--name", "b", "--gpu-mem", "3G", "--wait", "--", GPU_PROGRAM});
  ASSERT_EQ(ask(*first, "alloc 1048576"), "ok");
  EXPECT_TRUE(slice("b").empty());
  first->write("exit 0\n");
  EXPECT_EQ(second->line(), "ready") << second->err();
}

// Each in its turn, after an eviction for somebody who has ended since: there is room to come back.
TEST_F(Evict, AnIdleOneComesBackWhateverItCallsFirst) {
  environment["ALLOT_SIM_GPUS"] = "1x4G";
  auto idle = holder("a", 3, {"--gpu-mem", "3G", "--priority", "low"});
  for (const std::string call : {"alloc 1048576", "free", "info", "wait", "poll"}) {
    const Outcome other =
        allot({"run", "--sim", "--gpu-mem", "3G", "--wait", "--evict-idle", "0.1", "--", "true"});
    ASSERT_EQ(other.status, 0) << other.err;
    ASSERT_TRUE(evicted("a")) << call;
    const std::string answer = ask(*idle, call);
    EXPECT_NE(answer, "(nothing)") << call;
    EXPECT_EQ(answer, call == "info" ? answer : call == "wait" || call == "poll" ? "0" : "ok");
    EXPECT_TRUE(wait_until([&] { return !evicted("a"); })) << call;
  }
  EXPECT_EQ(ask(*idle, "check 3"), "ok");
}

// Seen as a wait without end: the idle one was just coming back from an eviction for somebody
// before.
TEST_F(Evict, AnIdleOneThatIsBeingMovedIsTriedAgain) {
  environment["ALLOT_SIM_GPUS"] = "1x4G";
  auto idle = holder("a", 3, {"--gpu-mem", "3G", "--priority", "low"});
  for (const std::string flag : {"--wait", "--overcommit"}) {  // the second without waiting
    const int file = open(slice("a")["path"].get<std::string>().c_str(), O_RDONLY | O_CLOEXEC);
    ASSERT_EQ(syscall(SYS_flock, file, 2), 0);  // LOCK_EX; <sys/file.h> is ours by that name
    // Its notes go to standard output, where they can be read while it waits.
    Command other({"sh", "-c", "exec \"$@\" 2>&1", "sh", ALLOT_BINARY, "run", "--sim", "--gpu-mem",
                   "3G", flag, "--evict-idle=0", "--", "true"},
                  environment);
    EXPECT_NE(other.line().find("waiting:"), std::string::npos);
    close(file);
    EXPECT_EQ(other.wait(), 0) << other.out();
    EXPECT_TRUE(evicted("a"));
    EXPECT_EQ(ask(*idle, "check 3"), "ok");
    EXPECT_TRUE(wait_until([&] { return !evicted("a"); }));
  }
}

TEST_F(Evict, AnIdleOneThatCallsNothingStaysAway) {
  environment["ALLOT_SIM_GPUS"] = "1x4G";
  auto idle = holder("a", 3, {"--gpu-mem", "3G", "--priority", "low"});
  const Outcome other = allot(
      {"run", "--sim", "--gpu-mem", "3G", "--wait", "--evict-idle", "0.1", "--", "sleep", "1"});
  ASSERT_EQ(other.status, 0) << other.err;
  EXPECT_TRUE(evicted("a"));
}

TEST_F(Evict, MakesRoomByAnIdleOneThatComesBackWhenItWorks) {
  environment["ALLOT_SIM_GPUS"] = "1x4G";
  auto idle = holder("a", 3, {"--gpu-mem", "3G", "--priority", "low"});
  // Not idle for long enough, and without --wait: refused.
  EXPECT_EQ(allot({"run", "--sim", "--gpu-mem", "3G", "--evict-idle", "1000", "--", "true"}).status,
            kRefused);
  auto second = start({"run", "--sim", "--name", "b", "--gpu-mem", "3G", "--wait", "--evict-idle",
                       "0.1", "--", GPU_PROGRAM});
  ASSERT_EQ(second->line(), "ready");
  EXPECT_TRUE(evicted("a"));
  ASSERT_EQ(ask(*second, "alloc 1048576"), "ok");
  // Its next call waits while there is room for both (1 GiB is left), then it is there.
  EXPECT_EQ(ask(*idle, "check 3"), "ok");
  EXPECT_FALSE(evicted("a"));
}

}  // namespace
}  // namespace allot::e2e
