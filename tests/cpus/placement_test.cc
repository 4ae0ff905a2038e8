// Slices on the running kernel: real groups where the cpuset tree is writable, affinity alone
// everywhere. Each test leaves the machine as it found it, also when it fails.
#include "cpus/placement.h"

#include <dirent.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <thread>

#include "cpus/memory_policy.h"
#include "live_machine.h"

namespace allot::cpus {
namespace {

class Slice : public LiveMachine {
 protected:
  void TearDown() override {
    EXPECT_EQ(groups_of(getpid()), std::vector<std::string>{}) << "groups left behind";
    LiveMachine::TearDown();
  }

  bool cpusets() const { return !hierarchy_.base.empty(); }
  PlacementRequest ask(const std::string& cpus, const std::string& name = "test") const {
    PlacementRequest request;
    request.cpus = cpus;
    request.name = name;
    request.folder = folder_;
    return request;
  }
  std::vector<std::string> groups_of(pid_t launcher) const {
    std::vector<std::string> mine;
    for (const std::string& name :
         hierarchy_.base.empty() ? std::vector<std::string>{} : FsRoot{}.list(hierarchy_.base)) {
      std::optional<ProcessId> id = launcher_in_name(name);
      if (id && id->pid == launcher) mine.push_back(name);
    }
    return mine;
  }
  std::string last_cpu() const { return std::to_string(allowed_.last()) + ","; }

  // Runs `body` in a child that has entered the slice; its return value is the child's exit status.
  static int in_slice(Placement* p, const std::function<int(const Entered&)>& body) {
    pid_t child = fork_into(*p);
    if (child == 0) _exit(body(enter(*p)));
    set_member(p, child);
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  }
};

TEST_F(Slice, AFencedProcessCannotWidenItsMask) {
  if (!cpusets()) GTEST_SKIP() << hierarchy_.why_not;
  Expected<Placement> p = place(ask(last_cpu()));
  ASSERT_TRUE(p) << p.error().text;
  ASSERT_EQ(p->planned, Level::kEnforced) << p->reason;
  CpuSet want = p->cpus;
  EXPECT_EQ(in_slice(&*p,
                     [&](const Entered& e) {
                       if (e.level != Level::kEnforced || e.granted != want) return 1;
                       reset_user_mask(0);  // asks for every CPU there is
                       CpuSet now;
                       get_affinity(0, &now);
                       return now == want ? 0 : 2;
                     }),
            0);
  release(&*p);
}

TEST_F(Slice, AChildOfAPinnedShellIsNotPinnedInsideItsSlice) {
  if (!cpusets()) GTEST_SKIP() << hierarchy_.why_not;
  if (allowed_.count() < 2) GTEST_SKIP() << "one CPU only";
  pid_t shell = fork();
  if (shell == 0) {
    set_affinity(0, CpuSet{allowed_.first()});
    PlacementRequest request = ask(to_list(allowed_));
    request.any_cpu = true;
    Expected<Placement> p = place(request);
    int result =
        p ? in_slice(&*p, [&](const Entered& e) { return e.granted == allowed_ ? 0 : 1; }) : 2;
    if (p) release(&*p);
    _exit(result);
  }
  int status = 0;
  waitpid(shell, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(Slice, WithoutCpusetsTheLevelIsAdvisedAndSaysWhy) {
  PlacementRequest request = ask(last_cpu());
  request.use_cpuset = false;
  Expected<Placement> p = place(request);
  ASSERT_TRUE(p) << p.error().text;
  EXPECT_EQ(p->planned, Level::kAdvised);
  EXPECT_EQ(p->reason, "cpusets were not to be used");
  CpuSet want = p->cpus;
  EXPECT_EQ(in_slice(&*p,
                     [&](const Entered& e) {
                       return e.level == Level::kAdvised && e.granted == want ? 0 : 1;
                     }),
            0);
  release(&*p);
}

TEST_F(Slice, MemoryIsBoundToTheNodesAskedFor) {
  Expected<Topology> t = read_topology(FsRoot{});
  if (!t || t->nodes.empty()) GTEST_SKIP() << "no memory nodes";
  PlacementRequest request = ask(last_cpu());
  request.mems = "auto";
  Expected<Placement> p = place(request);
  ASSERT_TRUE(p) << p.error().text;
  CpuSet nodes = p->mems;
  ASSERT_FALSE(nodes.empty());
  int result = in_slice(&*p, [&](const Entered& e) {
    if (e.memory_errno == EPERM || e.memory_errno == ENOSYS) return 77;
    return e.memory_errno == 0 && bound_memory() == nodes ? 0 : 1;
  });
  release(&*p);
  if (result == 77) GTEST_SKIP() << "set_mempolicy is forbidden here";
  EXPECT_EQ(result, 0);
}

TEST_F(Slice, BadRequestsLeaveNothingChanged) {
  for (const char* bad : {"0-999", "", ",", "x", "0", "999999999", "3-1"}) {
    Expected<Placement> p = place(ask(bad));
    ASSERT_FALSE(p) << bad;
    EXPECT_FALSE(p.error().text.empty());
    EXPECT_EQ(p.error().text.find('\n'), std::string::npos) << "one line";
  }
  PlacementRequest request = ask(last_cpu());
  request.mems = "77";
  Expected<Placement> p = place(request);
  ASSERT_FALSE(p);
  EXPECT_EQ(p.error().text, "--mems 77: there is no memory node 77");
  EXPECT_EQ(FsRoot{}.list(folder_), std::vector<std::string>{"cpus.lock"});
}

TEST_F(Slice, ExclusiveCpusAreHandedOutOnce) {
  if (allowed_.count() < 2) GTEST_SKIP() << "one CPU only";
  PlacementRequest request = ask(last_cpu(), "first");
  request.exclusive = true;
  Expected<Placement> first = place(request);
  ASSERT_TRUE(first) << first.error().text;
  request.name = "second";
  Expected<Placement> second = place(request);
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().text.find("is leased to first"), std::string::npos)
      << second.error().text;
  release(&*first);
  second = place(request);
  ASSERT_TRUE(second) << second.error().text;
  release(&*second);
}

// Many runs at once: each CPU goes to one of them at most, whatever the order.
TEST_F(Slice, ConcurrentRunsNeverGetTheSameExclusiveCpu) {
  if (allowed_.count() < 2) GTEST_SKIP() << "one CPU only";
  constexpr int kRuns = 12;
  int results[2];
  ASSERT_EQ(pipe(results), 0);
  int go[2];
  ASSERT_EQ(pipe(go), 0);
  std::vector<pid_t> children;
  for (int i = 0; i < kRuns; ++i) {
    pid_t child = fork();
    if (child == 0) {
      close(go[1]);
      char byte;
      if (read(go[0], &byte, 1) < 0) _exit(3);  // returns at end of file: all start together
      PlacementRequest request = ask("1", "run" + std::to_string(i));
      request.exclusive = true;
      request.unit = Unit::kThreads;
      Expected<Placement> p = place(request);
      int cpu = p ? p->cpus.first() : -1;
      if (write(results[1], &cpu, sizeof cpu) != sizeof cpu) _exit(3);
      pause();  // hold it until killed
    }
    children.push_back(child);
  }
  close(go[0]);
  close(go[1]);
  CpuSet given;
  int refused = 0;
  for (int i = 0; i < kRuns; ++i) {
    int cpu = -1;
    ASSERT_EQ(read(results[0], &cpu, sizeof cpu), static_cast<ssize_t>(sizeof cpu));
    if (cpu < 0) ++refused;
    EXPECT_FALSE(cpu >= 0 && given.has(cpu)) << "CPU " << cpu << " given twice";
    given.add(cpu);
  }
  EXPECT_GT(given.count(), 0);
  EXPECT_EQ(given.count() + refused, kRuns);
  for (pid_t child : children) kill(child, SIGKILL);
  for (pid_t child : children) waitpid(child, nullptr, 0);
  close(results[0]);
  close(results[1]);
  // They were killed with everything in place; the next run finds and removes all of it.
  PlacementRequest request = ask(std::to_string(given.first()) + ",", "after");
  request.exclusive = true;
  Expected<Placement> after = place(request);
  ASSERT_TRUE(after) << after.error().text;
  for (pid_t child : children) EXPECT_TRUE(groups_of(child).empty());
  release(&*after);
  EXPECT_EQ(FsRoot{}.list(folder_), std::vector<std::string>{"cpus.lock"});
}

// The launcher is killed while its program runs on: the lease stays until the program ends.
TEST_F(Slice, ALeaseOutlivesItsKilledLauncherAndEndsWithTheProgram) {
  if (allowed_.count() < 2) GTEST_SKIP() << "one CPU only";
  for (bool use_cpuset : {false, true}) {
    int tell[2];
    ASSERT_EQ(pipe(tell), 0);
    pid_t launcher = fork();
    if (launcher == 0) {
      PlacementRequest request = ask(last_cpu(), "victim");
      request.exclusive = true;
      request.use_cpuset = use_cpuset;
      Expected<Placement> p = place(request);
      if (!p) _exit(1);
      pid_t program = fork_into(*p);
      if (program == 0) {
        enter(*p);
        close(p->lease_fd);  // as exec does
        pause();
        _exit(0);
      }
      set_member(&*p, program);
      if (write(tell[1], &program, sizeof program) < 0) _exit(1);
      pause();
    }
    pid_t program = 0;
    ASSERT_EQ(read(tell[0], &program, sizeof program), static_cast<ssize_t>(sizeof program));
    kill(launcher, SIGKILL);
    waitpid(launcher, nullptr, 0);
    PlacementRequest request = ask(last_cpu(), "next");
    request.exclusive = true;
    Expected<Placement> p = place(request);
    EXPECT_FALSE(p) << "the program still runs there";
    if (p) release(&*p);
    kill(program, SIGKILL);
    EXPECT_TRUE(wait_until([&] {
      p = place(request);
      return p.has_value();
    })) << "the CPU never came back";
    if (p) release(&*p);
    // The kernel lets a group go a moment after its last task; the next run's sweep takes it then.
    EXPECT_TRUE(wait_until([&] {
      sweep(FsRoot{}, hierarchy_);
      return groups_of(launcher).empty();
    }));
    close(tell[0]);
    close(tell[1]);
  }
}

TEST_F(Slice, AGroupNameTellsItsLauncher) {
  EXPECT_EQ(group_name("a b/../c", {12, 345}), "allot-a_b____c.12.345");
  EXPECT_EQ(*launcher_in_name("allot-x.y.12.345"), (ProcessId{12, 345}));
  for (const char* other :
       {"allot-", "allot-x", "allot-x.12", "docker", "allot-x.a.b", "allot-x.1.2x"}) {
    EXPECT_FALSE(launcher_in_name(other)) << other;
  }
}

TEST_F(Slice, AFailedGroupLeavesNoFolder) {
  if (!cpusets()) GTEST_SKIP() << hierarchy_.why_not;
  GroupSpec spec;
  spec.path = hierarchy_.base + "/" + group_name("broken", *identify(FsRoot{}, getpid()));
  spec.cpus = CpuSet{1000};
  Expected<GroupState> made = make_group(FsRoot{}, hierarchy_, spec, nullptr);
  ASSERT_FALSE(made);
  EXPECT_FALSE(FsRoot{}.exists(spec.path));
}

}  // namespace
}  // namespace allot::cpus
