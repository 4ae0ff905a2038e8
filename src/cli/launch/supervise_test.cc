// Exit statuses, signals and masks of a supervised child, with the shell as the child.
#include "cli/launch/supervise.h"

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "cli/failure.h"

namespace allot::cli {
namespace {

Program shell(const std::string& script) {
  return {"/bin/sh", {"sh", "-c", script}, {"PATH=/bin:/usr/bin"}};
}

int run(const Program& program) {
  const SignalGuard guard;
  return supervise(program, guard);
}

TEST(Supervise, PassesTheExitStatusThrough) {
  EXPECT_EQ(run(shell("exit 0")), 0);
  EXPECT_EQ(run(shell("exit 3")), 3);
  EXPECT_EQ(run(shell("exit 255")), 255);
}

TEST(Supervise, ASignalIs128AndItsNumber) {
  EXPECT_EQ(run(shell("kill -TERM $$")), 128 + SIGTERM);
  EXPECT_EQ(run(shell("kill -KILL $$")), 128 + SIGKILL);
}

TEST(Supervise, WhatCannotStartIs127Or126) {
  const auto status = [](const std::string& file) {
    try {
      run({file, {file}, {}});
      return 0;
    } catch (const Failure& failure) {
      return failure.exit_status();
    }
  };
  EXPECT_EQ(status("/nonexistent/program"), kExitNotFound);
  EXPECT_EQ(status("/etc/passwd"), kExitNotExecutable);
}

TEST(Supervise, AScriptWithoutInterpreterIsGivenToTheShell) {
  const std::string path = testing::TempDir() + "/allot-plain-" + std::to_string(getpid());
  std::ofstream(path) << "exit $1\n";
  std::filesystem::permissions(path, std::filesystem::perms::all);
  EXPECT_EQ(run({path, {path, "9"}, {}}), 9);
  std::filesystem::remove(path);
}

TEST(Supervise, PassesSignalsThatAreSentToUsAlone) {
  for (const char* name : {"INT", "TERM", "HUP", "USR1", "USR2", "WINCH", "QUIT", "ALRM", "VTALRM",
                           "PROF", "IO", "PWR", "ABRT", "URG", "34", "64"}) {
    const std::string text(name);
    EXPECT_EQ(
        run(shell("trap 'exit 7' " + text + "; kill -" + text + " $PPID; while :; do :; done")), 7)
        << name;
  }
}

// A Ctrl-C reaches the program and us; when the program ends of itself, its status is what counts.
TEST(Supervise, ASignalThatStillWaitsAtTheEndIsDropped) {
  EXPECT_EXIT(
      {
        {
          const SignalGuard guard;
          for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGUSR1}) raise(number);
        }
        sigset_t waiting;
        sigpending(&waiting);
        _exit(sigismember(&waiting, SIGINT) == 0 ? 5 : 6);
      },
      testing::ExitedWithCode(5), "");
}

// A container's process 1, and whoever else is left with orphans: they do not stay as zombies.
TEST(Supervise, ReapsWhatIsLeftToIt) {
  ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  EXPECT_EQ(run(shell("p=$(sh -c 'sh -c \"exit 3\" >/dev/null & echo $!'); n=0; "
                      "while [ -e /proc/$p ]; do n=$((n+1)); [ $n -gt 300000 ] && exit 5; done; exit 4")),
            4);
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}

TEST(Supervise, TheChildStartsWithOurFormerMask) {
  EXPECT_EQ(run(shell("grep -q '^SigBlk:.0000000000000000$' /proc/self/status")), 0);
}

TEST(Supervise, AnIgnoredSigchldDoesNotLoseTheStatus) {
  struct sigaction ignore = {};
  struct sigaction before = {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGCHLD, &ignore, &before);
  EXPECT_EQ(run(shell("exit 5")), 5);
  struct sigaction after = {};
  sigaction(SIGCHLD, &before, &after);
  EXPECT_EQ(after.sa_handler, SIG_IGN) << "put back as it was";
}

TEST(Supervise, AStoppedChildThatIsContinuedByOthersEndsAsUsual) {
  // Without a terminal we stay awake; with one we would stop too, as a shell expects.
  if (const int terminal = access("/dev/tty", R_OK | W_OK); terminal == 0) {
    FILE* tty = std::fopen("/dev/tty", "r+");
    if (tty != nullptr) {
      std::fclose(tty);
      GTEST_SKIP() << "this test stops its child, and there is a terminal";
    }
  }
  EXPECT_EQ(run(shell("p=$$; (while ! grep -q '^State:.T' /proc/$p/status; do :; done; kill -CONT "
                      "$p) & kill -STOP $$; exit 6")),
            6);
}

}  // namespace
}  // namespace allot::cli
