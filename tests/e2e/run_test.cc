// allot run: what passes through it, and what it leaves behind (nothing).
#include <poll.h>
#include <unistd.h>

#include <csignal>

#include "tests/e2e/machine.h"

namespace allot::e2e {
namespace {

using Words = std::vector<std::string>;

class Run : public Machine {
 protected:
  Outcome run(Words flags, Words program) {
    Words words = {"run", "--sim"};
    words.insert(words.end(), flags.begin(), flags.end());
    words.push_back("--");
    words.insert(words.end(), program.begin(), program.end());
    return allot(words);
  }
};

TEST_F(Run, PassesTheExitStatusThrough) {
  EXPECT_EQ(run({}, {"true"}).status, 0);
  EXPECT_EQ(run({"--gpu-mem", "1G"}, {"sh", "-c", "exit 3"}).status, 3);
  EXPECT_EQ(run({}, {"sh", "-c", "kill -TERM $$"}).status, 128 + SIGTERM);
  EXPECT_TRUE(region_files().empty());
}

TEST_F(Run, InputAndOutputAreThePrograms) {
  const auto command = start({"run", "--sim", "--", "sh", "-c", "cat; echo to-err >&2"});
  command->write("one\ntwo\n");
  command->close_input();
  EXPECT_EQ(command->wait(), 0);
  EXPECT_EQ(command->out(), "one\ntwo\n");
  EXPECT_EQ(command->err(), "to-err\n");
}

TEST_F(Run, ArgumentsArriveAsWritten) {
  const Outcome got = run({}, {"printf", "%s|", "a b", "", "--name", "--", "*"});
  EXPECT_EQ(got.out, "a b||--name|--|*|");
}

TEST_F(Run, PassesSignalsOn) {
  // A busy loop: a shell that is just about to wait in read would not see the signal before the
  // read ends.
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH}) {
    const auto command =
        start({"run", "--sim", "--", "sh", "-c",
               "trap 'echo got; exit 7' INT TERM HUP QUIT USR1 USR2 WINCH; echo ready; "
               "while :; do :; done"});
    ASSERT_EQ(command->line(), "ready");
    command->signal(number);
    EXPECT_EQ(command->line(), "got") << "signal " << number;
    EXPECT_EQ(command->wait(), 7) << "signal " << number;
  }
  EXPECT_TRUE(region_files().empty());
}

TEST_F(Run, ASignalThatKillsTheProgramIsTheExitStatus) {
  const auto command = start_gpu_program({"--name", "a"});
  command->signal(SIGTERM);
  EXPECT_EQ(command->wait(), 128 + SIGTERM);
  EXPECT_TRUE(region_files().empty());
}

TEST_F(Run, TheProgramSeesItsSliceAndIsHeldToIt) {
  const auto command = start_gpu_program({"--gpu-mem", "2G", "--name", "a"});
  EXPECT_TRUE(ask(*command, "info").ends_with(" " + std::to_string(2 * kGiB)));
  EXPECT_EQ(ask(*command, "alloc " + std::to_string(kGiB)), "ok");
  EXPECT_EQ(ask(*command, "alloc " + std::to_string(kGiB)), "2") << "CUDA_ERROR_OUT_OF_MEMORY";
  EXPECT_EQ(ask(*command, "free"), "ok");
  EXPECT_EQ(ask(*command, "alloc " + std::to_string(kGiB)), "ok");
  command->write("exit 5\n");
  EXPECT_EQ(command->wait(), 5);
}

TEST_F(Run, ExecBecomesTheProgram) {
  const auto command = start({"run", "--sim", "--exec", "--name", "a", "--", GPU_PROGRAM});
  ASSERT_EQ(command->line(), "ready");
  EXPECT_EQ(ask(*command, "pid"), std::to_string(command->pid()));
  EXPECT_EQ(region_files(), Words{"a.slice"});
  const auto slices = json_of({"ps", "--json"})["slices"];
  ASSERT_EQ(slices.size(), 1u);
  EXPECT_EQ(slices[0]["launcher_pid"], command->pid());
  command->write("exit 4\n");
  EXPECT_EQ(command->wait(), 4);
  EXPECT_EQ(json_of({"ps", "--json"})["cleared"], nlohmann::json({"a"}));
  EXPECT_TRUE(region_files().empty());
}

TEST_F(Run, AKilledProgramLeavesNothing) {
  const auto command = start_gpu_program({"--gpu-mem", "2G", "--name", "a"});
  ASSERT_EQ(ask(*command, "alloc " + std::to_string(kGiB)), "ok");
  kill(std::stoi(ask(*command, "pid")), SIGKILL);
  EXPECT_EQ(command->wait(), 128 + SIGKILL);
  EXPECT_TRUE(region_files().empty());
  EXPECT_EQ(json_of({"gpus", "--sim", "--json"})["gpus"][0]["slices_used_bytes"], 0);
}

TEST_F(Run, AKilledLauncherLeavesASliceOnlyAsLongAsItsProgramRuns) {
  const auto command = start_gpu_program({"--gpu-mem", "2G", "--name", "a"});
  ASSERT_EQ(ask(*command, "alloc " + std::to_string(kGiB)), "ok");
  const pid_t program = std::stoi(ask(*command, "pid"));
  command->signal(SIGKILL);
  // The pipe to the program is still ours: it keeps running under its limit.
  EXPECT_EQ(ask(*command, "alloc " + std::to_string(kGiB)), "2");
  const auto slices = json_of({"ps", "--json"})["slices"];
  ASSERT_EQ(slices.size(), 1u);
  EXPECT_GE(slices[0]["gpus"][0]["used_bytes"].get<uint64_t>(), kGiB);
  const Outcome refused = run({"--name", "a"}, {"true"});
  EXPECT_EQ(refused.status, 125);
  kill(program, SIGKILL);
  ASSERT_TRUE(wait_until([&] {
    return kill(program, 0) != 0 || json_of({"ps", "--json"})["slices"].empty();
  }));
  EXPECT_EQ(run({"--name", "a"}, {"true"}).status, 0);
  EXPECT_TRUE(region_files().empty());
}

TEST_F(Run, TheNextCommandClearsWhatIsStale) {
  const auto command =
      start({"run", "--sim", "--name", "old", "--", "sh", "-c", "echo ready; read x"});
  ASSERT_EQ(command->line(), "ready");
  command->signal(SIGKILL);
  command->wait();
  ASSERT_EQ(region_files(), Words{"old.slice"});
  command->close_input();  // its program ends
  EXPECT_TRUE(wait_until([&] {
    EXPECT_EQ(run({"--name", "new"}, {"true"}).status, 0);
    return region_files().empty();
  }));
}

TEST_F(Run, ALimitOfTheFileSizeIsNamedWithWhatIsNeeded) {
  const auto under_limit = [&](const std::string& words) {
    const auto command = std::make_unique<Command>(
        Words{"sh", "-c", "ulimit -f 1; exec " ALLOT_BINARY " " + words}, environment);
    const int status = command->wait();
    return Outcome{status, command->out(), command->err()};
  };
  const auto holder = start_gpu_program({"--name", "a"});  // has made the software machine's files
  const Outcome refused = under_limit("run --sim --gpu-mem 1G -- true");
  EXPECT_EQ(refused.status, 125);
  EXPECT_NE(refused.err.find("ulimit -f"), std::string::npos) << refused.err;
  EXPECT_EQ(under_limit("ps").status, 0);
}

TEST_F(Run, SetsTheEnvironmentOfTheProgram) {
  const Outcome got =
      run({"--name", "a"}, {"sh", "-c", "echo $ALLOT_TENANT; echo $ALLOT_FAIL; echo $LD_PRELOAD"});
  EXPECT_NE(got.out.find(region() + "/a.slice\nclosed\n"), std::string::npos) << got.out;
  EXPECT_NE(got.out.find("/lib/allot/libcuda.so.1"), std::string::npos) << got.out;
}

TEST_F(Run, AChildWithAnEmptiedEnvironmentIsHeldToo) {
  if (environment["LD_PRELOAD"] != "")
    GTEST_SKIP() << "a sanitizer's runtime needs its environment";
  const Outcome got = run({"--gpu-mem", "2G"},
                          {"env", "-i", "sh", "-c", std::string("echo info | ") + GPU_PROGRAM});
  EXPECT_EQ(got.status, 0) << got.err;
  EXPECT_NE(got.out.find(" " + std::to_string(2 * kGiB)), std::string::npos) << got.out;
}

TEST_F(Run, GpusAreChosenByIndexAndUuid) {
  environment["ALLOT_SIM_GPUS"] = "3x16G";
  const auto gpus = json_of({"gpus", "--sim", "--json"})["gpus"];
  ASSERT_EQ(gpus.size(), 3u);
  const std::string third = gpus[2]["uuid"];
  const auto bytes_of = [](std::string uuid) {
    uuid.erase(0, 4);
    std::erase(uuid, '-');
    return uuid;
  };
  const auto command = start_gpu_program(
      {"--gpu", third + ",0", "--gpu-mem", "4G", "--gpu-mem", "0:2G", "--name", "a"});
  EXPECT_EQ(ask(*command, "devices"), "2 " + bytes_of(third) + " " + bytes_of(gpus[0]["uuid"]));
  EXPECT_TRUE(ask(*command, "info").ends_with(" " + std::to_string(4 * kGiB)))
      << "device 0 is GPU 2";
  const auto slice = json_of({"ps", "--json"})["slices"][0]["gpus"];
  ASSERT_EQ(slice.size(), 2u);
  EXPECT_EQ(slice[0]["index"], 2);
  EXPECT_EQ(slice[0]["limit_bytes"], 4 * kGiB);
  EXPECT_EQ(slice[1]["index"], 0);
  EXPECT_EQ(slice[1]["limit_bytes"], 2 * kGiB);
}

TEST_F(Run, TimeLimitsStandInTheSlice) {
  environment["ALLOT_SIM_GPUS"] = "2x16G";
  const auto command = start_gpu_program({"--gpu-share", "30%", "--gpu-max", "50.5", "--priority",
                                          "low", "--level", "launch", "--name", "a"});
  const auto slice = json_of({"ps", "--json"})["slices"][0];
  for (int gpu : {0, 1}) {
    EXPECT_EQ(slice["gpus"][gpu]["share_percent"], 30.0);
    EXPECT_EQ(slice["gpus"][gpu]["max_percent"], 50.5);
  }
  EXPECT_EQ(slice["priority"], "low");
  EXPECT_EQ(slice["level"], "launch");
  EXPECT_EQ(slice["frozen"], false);
  command->write("exit 0\n");
  EXPECT_EQ(command->wait(), 0);
  EXPECT_EQ(command->err(), "");
}

TEST_F(Run, LimitsThatAreOnlyObservedAreSaidToBe) {
  const Outcome got = run({"--gpu-share", "30", "--level", "observe"}, {"true"});
  EXPECT_EQ(got.status, 0);
  EXPECT_NE(got.err.find("measured, not held"), std::string::npos) << got.err;
  EXPECT_EQ(run({"--level", "observe"}, {"true"}).err, "");
}

TEST_F(Run, OfManyWhoAskForTheLastShareOneGetsIt) {
  std::vector<std::unique_ptr<Command>> all;
  for (int i = 0; i < 6; ++i) {
    all.push_back(start({"run", "--sim", "--gpu-share", "60", "--name", "r" + std::to_string(i),
                         "--", "sh", "-c", "echo ready; read x"}));
  }
  int started = 0;
  for (const auto& command : all) {
    // Who was refused has ended; who started waits.
    if (command->line() == "ready") ++started;
  }
  EXPECT_EQ(started, 1);
}

TEST_F(Run, ASliceInsideASliceIsRefused) {
  const Outcome got = run({"--name", "a"}, {ALLOT_BINARY, "run", "--sim", "--", "true"});
  EXPECT_EQ(got.status, 125);
  EXPECT_NE(got.err.find("inside a slice"), std::string::npos) << got.err;
}

TEST_F(Run, ATerminationDuringTheStartLeavesNothing) {
  // TERM at any moment of a start: either the program was never started or it got the signal.
  for (int i = 0; i < 30; ++i) {
    const auto command =
        start({"run", "--sim", "--name", "a", "--", "sh", "-c", "echo ready; read x"});
    poll(nullptr, 0, i);  // not a wait for anything: it moves the blow along the start
    command->signal(SIGTERM);
    command->close_input();
    const int status = command->wait();
    EXPECT_TRUE(status == 128 + SIGTERM || status == 1 || status == 0) << status << command->err();
    EXPECT_TRUE(region_files().empty()) << "round " << i;
  }
}

}  // namespace
}  // namespace allot::e2e
