// Moving running processes: no thread escapes, whatever they are doing; nothing is left when it
// fails. The counts over many runs are attach_storm's (bench/results/cpus/attach.txt); this is the
// short form.
#include "cpus/attach.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>

#include "live_machine.h"
#include "storm.h"

namespace allot::cpus {
namespace {

class Attach : public LiveMachine {
 protected:
  void TearDown() override {
    // What was attached is dead by now; its groups go with the next sweep.
    wait_until([&] {
      sweep(FsRoot{}, hierarchy_);
      return ours().empty();
    });
    EXPECT_EQ(ours(), std::vector<std::string>{});
    LiveMachine::TearDown();
  }
  std::vector<std::string> ours() const {
    std::vector<std::string> names;
    for (const std::string& name :
         hierarchy_.base.empty() ? std::vector<std::string>{} : FsRoot{}.list(hierarchy_.base)) {
      if (name.starts_with("allot-attachtest")) names.push_back(name);
    }
    return names;
  }
  AttachRequest ask(pid_t pid, bool use_cpuset) const {
    AttachRequest request;
    request.pid = pid;
    request.placement.name = "attachtest";
    request.placement.cpus = std::to_string(allowed_.last()) + ",";
    request.placement.folder = folder_;
    request.placement.use_cpuset = use_cpuset;
    return request;
  }
  // Threads outside the set after a move while `chains` chains run; the storm is stopped to count.
  void expect_no_escape(int chains, bool use_cpuset) {
    Storm storm = Storm::start(200, chains, 200);
    ASSERT_GT(storm.pid, 0);
    Expected<AttachReport> report = attach(ask(storm.pid, use_cpuset));
    EXPECT_TRUE(report) << report.error().text;
    EXPECT_TRUE(storm.freeze());
    EXPECT_EQ(threads_outside(storm.pid, CpuSet{allowed_.last()}), 0);
    if (report) {
      EXPECT_EQ(report->level, use_cpuset ? Level::kEnforced : Level::kAdvised) << report->reason;
      EXPECT_GE(report->threads, 200);
    }
    storm.end();
  }
};

TEST_F(Attach, NoThreadEscapesTheCpuset) {
  if (hierarchy_.base.empty()) GTEST_SKIP() << hierarchy_.why_not;
  for (int chains : {4, 16}) expect_no_escape(chains, true);
}

TEST_F(Attach, NoThreadEscapesTheStopProtocol) {
  for (int chains : {4, 16}) expect_no_escape(chains, false);
}

TEST_F(Attach, TheProcessGoesOnAfterwards) {
  Storm storm = Storm::start(3, 2, 200);
  ASSERT_GT(storm.pid, 0);
  Expected<BindReport> report = bind_stopped(storm.pid, CpuSet{allowed_.first()});
  ASSERT_TRUE(report) << report.error().text;
  EXPECT_TRUE(wait_until([&] {
    std::optional<ThreadStat> stat = thread_stat(FsRoot{}, storm.pid, storm.pid);
    return stat && stat->state != 'T';
  }));
  storm.end();
}

TEST_F(Attach, AStoppedProcessStaysStopped) {
  Storm storm = Storm::start(3, 0, 200);
  ASSERT_GT(storm.pid, 0);
  ASSERT_TRUE(storm.freeze());
  Expected<BindReport> report = bind_stopped(storm.pid, CpuSet{allowed_.first()});
  ASSERT_TRUE(report) << report.error().text;
  EXPECT_EQ(thread_stat(FsRoot{}, storm.pid, storm.pid)->state, 'T');
  storm.end();
}

// Killed between SIGSTOP and SIGCONT, we must not leave the program stopped.
TEST_F(Attach, AProcessIsContinuedWhenTheToolIsKilledHalfway) {
  Storm storm = Storm::start(1500, 8, 200);
  ASSERT_GT(storm.pid, 0);
  auto state = [&] {
    return thread_stat(FsRoot{}, storm.pid, storm.pid).value_or(ThreadStat{}).state;
  };
  for (int round = 0; round < 5; ++round) {
    pid_t tool = fork();
    if (tool == 0) {
      while (true) static_cast<void>(bind_stopped(storm.pid, allowed_));
    }
    EXPECT_TRUE(wait_until([&] { return state() == 'T'; }));
    kill(tool, SIGKILL);
    waitpid(tool, nullptr, 0);
    EXPECT_TRUE(wait_until([&] { return state() != 'T'; })) << "left stopped";
  }
  storm.end();
}

TEST_F(Attach, DescendantsComeAlongWithFollow) {
  int tell[2];
  ASSERT_EQ(pipe(tell), 0);
  pid_t parent = fork();
  if (parent == 0) {
    pid_t child = fork();
    if (child == 0) {
      pid_t grandchild = fork();
      if (grandchild == 0) {
        if (write(tell[1], "x", 1) != 1) _exit(1);
      }
      while (true) pause();
    }
    while (true) pause();
  }
  char byte;
  ASSERT_EQ(read(tell[0], &byte, 1), 1);
  close(tell[0]);
  close(tell[1]);
  std::vector<pid_t> family = descendants_of(FsRoot{}, parent);
  ASSERT_EQ(family.size(), 2u);
  for (bool use_cpuset : {false, true}) {
    AttachRequest request = ask(parent, use_cpuset && !hierarchy_.base.empty());
    request.follow = true;
    Expected<AttachReport> report = attach(request);
    EXPECT_TRUE(report) << report.error().text;
    for (pid_t pid : family) EXPECT_EQ(threads_outside(pid, CpuSet{allowed_.last()}), 0);
  }
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  for (pid_t pid : family) kill(pid, SIGKILL);
  EXPECT_TRUE(wait_until([&] {
    return !identify(FsRoot{}, family[0]) || !alive(FsRoot{}, *identify(FsRoot{}, family[0]));
  }));
}

// Another program's exclusive cpuset keeps the process out; the reason says whose it is.
TEST_F(Attach, AnExclusiveSiblingThatIsInTheWayIsNamed) {
  if (hierarchy_.kind != CpusetKind::kV1 || hierarchy_.base.empty())
    GTEST_SKIP() << "not version 1";
  GroupSpec stranger{hierarchy_.base + "/stranger-" + std::to_string(getpid()),
                     CpuSet{allowed_.last()}, CpuSet{0}};
  stranger.exclusive = true;
  std::string note;
  Expected<GroupState> made = make_group(FsRoot{}, hierarchy_, stranger, &note);
  ASSERT_TRUE(made) << made.error().text;
  pid_t process = fork();
  if (process == 0) {
    while (true) pause();
  }
  if (note.empty()) {
    Expected<AttachReport> report = attach(ask(process, true));
    EXPECT_TRUE(report) << report.error().text;
    if (report) {
      EXPECT_EQ(report->level, Level::kAdvised);
      EXPECT_NE(report->reason.find("CPU " + std::to_string(allowed_.last()) +
                                    " belongs to the exclusive cpuset " + stranger.path),
                std::string::npos)
          << report->reason;
    }
  }
  kill(process, SIGKILL);
  waitpid(process, nullptr, 0);
  EXPECT_EQ(remove_group(hierarchy_, stranger.path, 200), 0);
}

TEST_F(Attach, FailuresAreOneLineAndChangeNothing) {
  pid_t victim = fork();
  if (victim == 0) {
    while (true) pause();
  }
  CpuSet before, after;
  get_affinity(victim, &before);
  AttachRequest request = ask(victim, true);
  request.placement.cpus = "0-999";
  Expected<AttachReport> report = attach(request);
  ASSERT_FALSE(report);
  EXPECT_NE(report.error().text.find("there is no CPU"), std::string::npos) << report.error().text;
  get_affinity(victim, &after);
  EXPECT_EQ(before, after);
  kill(victim, SIGKILL);
  waitpid(victim, nullptr, 0);
  report = attach(ask(victim, true));
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().text, "there is no process " + std::to_string(victim));
  report = attach(ask(2, false));  // kthreadd, or nothing in a container
  ASSERT_FALSE(report);
  EXPECT_EQ(ours(), std::vector<std::string>{});
  EXPECT_EQ(FsRoot{}.list(folder_), std::vector<std::string>{"cpus.lock"});
}

// The process is killed again and again at whatever point the move has reached.
TEST_F(Attach, AProcessThatDiesMeanwhileIsReportedAsGone) {
  int gone = 0;
  for (int round = 0; round < 60; ++round) {
    bool use_cpuset = round % 2 == 0 && !hierarchy_.base.empty();
    Storm storm = Storm::start(20, 2, 200);
    ASSERT_GT(storm.pid, 0);
    pid_t killer = fork();
    if (killer == 0) {
      timespec nap{0, round * 50'000L};
      nanosleep(&nap, nullptr);
      kill(storm.pid, SIGKILL);
      _exit(0);
    }
    Expected<AttachReport> report = attach(ask(storm.pid, use_cpuset));
    if (!report) {
      ++gone;
      EXPECT_EQ(report.error().code, Errc::kNotFound) << report.error().text;
    }
    waitpid(killer, nullptr, 0);
    waitpid(storm.pid, nullptr, 0);
  }
  std::printf("%d of 60 died in time\n", gone);
}

}  // namespace
}  // namespace allot::cpus
