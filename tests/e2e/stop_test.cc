// A slice lives as long as anything that was started in it, and `allot stop` ends all of that.
#include <signal.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "tests/e2e/machine.h"

namespace allot::e2e {
namespace {

using Words = std::vector<std::string>;

// Not a zombie either, which nobody may have reaped yet.
bool goes_on(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const size_t name_end = text.rfind(')');
  return name_end != std::string::npos && text.compare(name_end, 3, ") Z") != 0;
}

class Stop : public Machine {
 protected:
  // A shell script in a slice; it must print "here PID" for a process that is watched.
  pid_t begin(const std::string& script) {
    command_ = start({"run", "--sim", "--gpu-mem", "1G", "--name", "a", "--", "sh", "-c", script});
    const std::string line = command_->line();
    EXPECT_TRUE(line.starts_with("here ")) << line;
    return line.starts_with("here ") ? std::stoi(line.substr(5)) : 0;
  }
  nlohmann::json slices() { return json_of({"ps", "--json"})["slices"]; }
  std::unique_ptr<Command> command_;
};

// None of these programs uses a GPU.
TEST_F(Stop, AKilledLauncherLeavesTheSliceToWhatItStarted) {
  const Words scripts = {"echo here $$; exec sleep 300", "echo here $$; exec env -i sleep 300",
                         "setsid sleep 300 >/dev/null 2>&1 & echo here $!; wait",
                         "perl -e 'use POSIX; POSIX::close($_) for 3..1100; exec \"sleep\", 300' & "
                         "echo here $!; wait"};
  for (const std::string& script : scripts) {
    SCOPED_TRACE(script);
    const pid_t sleeper = begin(script);
    ASSERT_GT(sleeper, 1);
    command_->signal(SIGKILL);
    EXPECT_EQ(command_->wait(), 128 + SIGKILL);
    const nlohmann::json left = slices();
    ASSERT_EQ(left.size(), 1u);
    EXPECT_EQ(left[0]["launcher_alive"], false);
    const Outcome text = allot({"ps"});
    EXPECT_NE(text.out.find("its launcher, "), std::string::npos) << text.out;
    EXPECT_NE(text.out.find("allot stop a"), std::string::npos) << text.out;
    const Outcome stopped = allot({"stop", "a"});
    EXPECT_EQ(stopped.status, 0) << stopped.err;
    EXPECT_FALSE(goes_on(sleeper));
    EXPECT_TRUE(region_files().empty());
  }
}

TEST_F(Stop, AProgramInTheBackgroundHoldsTheSliceOfALauncherThatHasEnded) {
  const pid_t sleeper = begin("sleep 300 >/dev/null 2>&1 & echo here $!");
  ASSERT_GT(sleeper, 1);
  EXPECT_EQ(command_->wait(), 0);
  EXPECT_EQ(slices().size(), 1u);
  EXPECT_EQ(allot({"run", "--sim", "--name", "a", "--", "true"}).status, 125);
  kill(sleeper, SIGKILL);
  EXPECT_TRUE(wait_until([&] { return slices().empty() && region_files().empty(); }));
}

TEST_F(Stop, EndsTheProgramAndItsLauncherSaysHow) {
  begin("echo here $$; exec sleep 300");
  const Outcome stopped = allot({"stop", "a"});
  EXPECT_EQ(stopped.status, 0) << stopped.err;
  EXPECT_NE(stopped.out.find("a: stopped (1 process)"), std::string::npos) << stopped.out;
  EXPECT_EQ(command_->wait(), 128 + SIGTERM);
  EXPECT_TRUE(region_files().empty());
}

TEST_F(Stop, EndsAProgramThatTookTheLaunchersPlace) {
  const auto command = start(
      {"run", "--sim", "--exec", "--name", "a", "--", "sh", "-c", "echo here; exec sleep 300"});
  ASSERT_EQ(command->line(), "here");
  EXPECT_EQ(allot({"stop", "a"}).status, 0);
  EXPECT_EQ(command->wait(), 128 + SIGTERM);
  EXPECT_TRUE(region_files().empty());
}

TEST_F(Stop, WhatDoesNotObeyIsKilledAfterTheTimeout) {
  const pid_t shell = begin("trap '' TERM; sleep 300 & echo here $$; while :; do wait; done");
  const double before = now();
  const Outcome stopped = allot({"stop", "a", "--timeout", "0.3"});
  EXPECT_EQ(stopped.status, 0) << stopped.err;
  EXPECT_NE(stopped.out.find("killed after 0.3 s"), std::string::npos) << stopped.out;
  EXPECT_NE(stopped.out.find(std::to_string(shell)), std::string::npos) << stopped.out;
  EXPECT_LT(now() - before, 8);
  EXPECT_FALSE(goes_on(shell));
  EXPECT_EQ(command_->wait(), 128 + SIGKILL);
}

TEST_F(Stop, ASliceOfCpusAloneIsEndedAndOtherCommandsSayWhatItIs) {
  const auto program =
      start({"run", "--cpus", "1", "--name", "c", "--", "sh", "-c", "sleep 300 & echo here; wait"});
  ASSERT_EQ(program->line(), "here");
  for (const Words& words : {Words{"freeze", "c"}, Words{"thaw", "c"}, Words{"evict", "c"},
                             Words{"restore", "c"}, Words{"set", "c", "--gpu-mem", "1G"}}) {
    const Outcome got = allot(words);
    EXPECT_EQ(got.status, 125);
    EXPECT_NE(got.err.find(words[0] + ": 'c' is a slice of CPUs alone"), std::string::npos)
        << got.err;
  }
  const double before = now();
  const Outcome stopped = allot({"stop", "c"});
  EXPECT_EQ(stopped.status, 0) << stopped.err;
  EXPECT_TRUE(stopped.out.starts_with("c: stopped (2 processes)")) << stopped.out;
  EXPECT_LT(now() - before, 5);
  EXPECT_EQ(program->wait(), 128 + SIGTERM);
  EXPECT_TRUE(slices().empty());
}

TEST_F(Stop, AStoppedLauncherOrProgramIsContinuedAndEnds) {
  for (const bool launcher : {true, false}) {
    SCOPED_TRACE(launcher ? "launcher" : "program");
    const pid_t program = begin("echo here $$; exec sleep 300");
    ASSERT_GT(program, 1);
    kill(launcher ? command_->pid() : program, SIGSTOP);
    const double before = now();
    const Outcome stopped = allot({"stop", "a"});
    EXPECT_EQ(stopped.status, 0) << stopped.err;
    EXPECT_LT(now() - before, 5);
    EXPECT_EQ(stopped.out, "a: stopped (1 process)\n");
    EXPECT_EQ(command_->wait(), 128 + SIGTERM);
  }
}

TEST_F(Stop, FromInsideTheSliceItEndsEverythingElse) {
  const std::string log = folder() + "/log";
  environment["ALLOT"] = ALLOT_BINARY;
  environment["LOG"] = log;
  // As the program itself, from a shell that does not obey, and from one that it ends.
  for (const char* form :
       {"exec $ALLOT stop a >$LOG 2>&1", "trap '' TERM; $ALLOT stop a --timeout 0.2 >$LOG 2>&1",
        "setsid sh -c '$ALLOT stop a >$LOG 2>&1' & wait"}) {
    SCOPED_TRACE(form);
    std::filesystem::remove(log);
    const double before = now();
    const auto command = start({"run", "--sim", "--name", "a", "--", "sh", "-c", form});
    command->wait();
    EXPECT_LT(now() - before, 5);
    std::string said;
    EXPECT_TRUE(wait_until([&] {
      std::ifstream file(log);
      said.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
      return said.find("a: stopped (") != std::string::npos;
    })) << said;
    EXPECT_TRUE(wait_until([&] { return slices().empty() && region_files().empty(); }));
  }
}

TEST_F(Stop, FromAUserNamespaceTheLauncherIsToldAndWhatIsHiddenIsSaid) {
  const auto inside = [&](const Words& more) {
    Words words = {"unshare", "-Ur", ALLOT_BINARY, "stop", "a"};
    words.insert(words.end(), more.begin(), more.end());
    Command command(words, environment);
    command.close_input();
    const int status = command.wait();
    return Outcome{status, command.out(), command.err()};
  };
  Command probe({"unshare", "-Ur", "true"}, {});
  if (probe.wait() != 0) GTEST_SKIP() << "no user namespaces here";
  double before = now();
  begin("echo here $$; exec sleep 300");
  const Outcome stopped = inside({});
  EXPECT_EQ(stopped.status, 0) << stopped.err;
  EXPECT_LT(now() - before, 5);
  EXPECT_EQ(command_->wait(), 128 + SIGTERM);

  const pid_t sleeper = begin("setsid sleep 300 >/dev/null 2>&1 & echo here $!; wait");
  before = now();
  const Outcome hidden = inside({"--timeout", "5"});
  EXPECT_EQ(hidden.status, 125) << hidden.out;
  EXPECT_NE(hidden.err.find("cannot be seen from here"), std::string::npos) << hidden.err;
  EXPECT_LT(now() - before, 10);
  EXPECT_TRUE(goes_on(sleeper));
  EXPECT_EQ(allot({"stop", "a"}).status, 0);
  EXPECT_FALSE(goes_on(sleeper));
}

TEST_F(Stop, ASliceThatIsNotThereIsAnError) {
  const Outcome none = allot({"stop", "nobody"});
  EXPECT_EQ(none.status, 125);
  EXPECT_NE(none.err.find("no slice 'nobody'"), std::string::npos) << none.err;
}

}  // namespace
}  // namespace allot::e2e
