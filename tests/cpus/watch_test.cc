// The watcher against strangers that change what was given, and against threads that pile up.
#include "cpus/watch.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>

#include "cpus/placement.h"
#include "live_machine.h"

namespace allot::cpus {
namespace {

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Watch : public LiveMachine {
 protected:
  void SetUp() override {
    LiveMachine::SetUp();
    options_.folder = folder_;
  }
  void TearDown() override {
    for (pid_t pid : children_) {
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
    if (placement_) release(&*placement_);
    LiveMachine::TearDown();
  }
  // A program in a slice of all CPUs (or the last one); it runs `body` once it has entered.
  pid_t start(bool use_cpuset, const std::string& cpus, const std::function<void()>& body) {
    PlacementRequest request;
    request.name = "watched";
    request.cpus = cpus;
    request.folder = folder_;
    request.use_cpuset = use_cpuset;
    Expected<Placement> p = place(request);
    EXPECT_TRUE(p) << p.error().text;
    if (!p) return 0;
    placement_ = *p;
    int entered[2];
    EXPECT_EQ(pipe(entered), 0);
    pid_t child = fork_into(*p);
    if (child == 0) {
      enter(*p);
      body();
      if (write(entered[1], "x", 1) != 1) _exit(1);
      while (true) pause();
    }
    char byte;
    EXPECT_EQ(read(entered[0], &byte, 1), 1);
    close(entered[0]);
    close(entered[1]);
    set_member(&*placement_, child);
    children_.push_back(child);
    return child;
  }
  // Looks as the command does until `done`, collecting actions; false after 10 s.
  bool look_until(Watcher* watcher, const std::function<bool()>& done) {
    double end = now_s() + 10;
    while (now_s() < end) {
      for (WatchAction& action : watcher->look(now_s())) actions_.push_back(action);
      if (done()) return true;
      watcher->wait(100);
    }
    return false;
  }
  std::string log() const {
    std::string text;
    for (const WatchAction& a : actions_) {
      text += std::string(action_name(a.kind)) + ": " + a.what + " (" + a.why + ")" +
              (a.done ? "" : " not done") + "\n";
    }
    return text;
  }
  CpuSet group_cpus() const {
    return *FsRoot{}.read_list(hierarchy_.file(placement_->group, "cpus"));
  }

  WatchOptions options_;
  std::optional<Placement> placement_;
  std::vector<pid_t> children_;
  std::vector<WatchAction> actions_;
};

TEST_F(Watch, AGroupThatAStrangerRewroteIsPutBackWithinASecond) {
  if (hierarchy_.base.empty()) GTEST_SKIP() << hierarchy_.why_not;
  if (allowed_.count() < 2) GTEST_SKIP() << "one CPU only";
  ASSERT_GT(start(true, to_list(allowed_), [] {}), 0);
  Watcher watcher(options_);
  EXPECT_TRUE(watcher.look(now_s()).empty());
  EXPECT_EQ(watcher.slices(), 1);
  ASSERT_EQ(perform({Step::Op::kWrite, hierarchy_.file(placement_->group, "cpus"),
                     std::to_string(allowed_.first())}),
            0);
  double from = now_s();
  EXPECT_TRUE(watcher.wait(5000)) << "the write was not noticed by itself";
  EXPECT_TRUE(look_until(&watcher, [&] { return group_cpus() == allowed_; })) << log();
  EXPECT_LT(now_s() - from, 5);  // 1 s is the goal; builders are slow (bench/results/cpus)
  ASSERT_EQ(actions_.size(), 1u) << log();
  EXPECT_EQ(actions_[0].kind, WatchAction::Kind::kRestore);
  EXPECT_TRUE(actions_[0].done);
  EXPECT_NE(actions_[0].why.find("it had become"), std::string::npos);
}

TEST_F(Watch, AQuarrelIsReportedAndNotFought) {
  if (hierarchy_.base.empty()) GTEST_SKIP() << hierarchy_.why_not;
  if (allowed_.count() < 2) GTEST_SKIP() << "one CPU only";
  ASSERT_GT(start(true, to_list(allowed_), [] {}), 0);
  Watcher watcher(options_);
  for (int i = 0; i < 6; ++i) {
    perform({Step::Op::kWrite, hierarchy_.file(placement_->group, "cpus"),
             std::to_string(allowed_.first())});
    for (WatchAction& action : watcher.look(100 + i)) actions_.push_back(action);
  }
  ASSERT_EQ(actions_.size(), 4u) << log();
  EXPECT_EQ(actions_[3].kind, WatchAction::Kind::kReport);
  // After a quiet minute it tries again.
  for (WatchAction& action : watcher.look(300)) actions_.push_back(action);
  ASSERT_EQ(actions_.size(), 5u) << log();
  EXPECT_EQ(group_cpus(), allowed_);
}

TEST_F(Watch, AProcessThatWasMovedOutComesBack) {
  if (hierarchy_.base.empty()) GTEST_SKIP() << hierarchy_.why_not;
  pid_t child = start(true, to_list(allowed_), [] {});
  ASSERT_GT(child, 0);
  Watcher watcher(options_);
  ASSERT_EQ(enter_group(procs_file(hierarchy_.base).c_str(), child), 0);
  EXPECT_TRUE(look_until(&watcher, [&] {
    return group_of(FsRoot{}, hierarchy_, child) == placement_->group;
  })) << log();
  ASSERT_EQ(actions_.size(), 1u) << log();
  EXPECT_EQ(actions_[0].kind, WatchAction::Kind::kMoveBack);
}

TEST_F(Watch, AThreadThatWidensItsMaskIsPutBack) {
  if (allowed_.count() < 2) GTEST_SKIP() << "one CPU only";
  pid_t child =
      start(false, std::to_string(allowed_.last()) + ",", [this] { set_affinity(0, allowed_); });
  ASSERT_GT(child, 0);
  Watcher watcher(options_);
  CpuSet mask;
  EXPECT_TRUE(look_until(&watcher, [&] {
    return get_affinity(child, &mask) == 0 && mask == CpuSet{allowed_.last()};
  }));
  ASSERT_EQ(actions_.size(), 1u) << log();
  EXPECT_EQ(actions_[0].kind, WatchAction::Kind::kRepin);
}

TEST_F(Watch, ADryRunOnlySays) {
  if (allowed_.count() < 2) GTEST_SKIP() << "one CPU only";
  pid_t child =
      start(false, std::to_string(allowed_.last()) + ",", [this] { set_affinity(0, allowed_); });
  ASSERT_GT(child, 0);
  options_.dry_run = true;
  Watcher watcher(options_);
  std::vector<WatchAction> said = watcher.look(now_s());
  ASSERT_EQ(said.size(), 1u);
  EXPECT_FALSE(said[0].done);
  EXPECT_NE(said[0].what.find("set the mask of 1 threads"), std::string::npos) << said[0].what;
  CpuSet mask;
  get_affinity(child, &mask);
  EXPECT_EQ(mask, allowed_);
}

// Spinners as processes of the slice; each pins itself and ends with the test.
void spin_on(const std::vector<int>& cpus) {
  for (int cpu : cpus) {
    if (fork() == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      set_affinity(0, CpuSet{cpu});
      for (std::atomic<unsigned> turns{0};;) turns.fetch_add(1, std::memory_order_relaxed);
    }
  }
}

TEST_F(Watch, PinnedThreadsThatPileUpAreSpread) {
  if (allowed_.count() < 2) GTEST_SKIP() << "one CPU only";
  if (!FsRoot{}.exists("/proc/self/schedstat")) GTEST_SKIP() << "this kernel has no schedstat";
  int a = allowed_.first(), b = allowed_.next(a);
  std::string slice = to_list(CpuSet{a, b}) + ",";
  pid_t parent = start(!hierarchy_.base.empty(), slice, [a] { spin_on({a, a, a, a}); });
  ASSERT_GT(parent, 0);
  std::vector<pid_t> spinners;
  FsRoot fs;
  auto count_on = [&](int cpu) {
    int n = 0;
    for (pid_t pid : spinners) {
      CpuSet mask;
      n += get_affinity(pid, &mask) == 0 && mask == CpuSet{cpu} ? 1 : 0;
    }
    return n;
  };
  options_.rest_s = 1;
  Watcher watcher(options_);
  bool spread = look_until(&watcher, [&] {
    if (spinners.size() < 4) {
      std::string text = fs.read("/proc/" + std::to_string(parent) + "/task/" +
                                 std::to_string(parent) + "/children")
                             .value_or("");
      spinners.clear();
      for (size_t at = 0; at < text.size();) {
        size_t end = std::min(text.find(' ', at), text.size());
        if (end > at) spinners.push_back(std::atoi(text.substr(at, end - at).c_str()));
        at = end + 1;
      }
    }
    return spinners.size() == 4 && count_on(a) == 2 && count_on(b) == 2;
  });
  std::string seen = log();
  for (pid_t pid : spinners) kill(pid, SIGKILL);
  EXPECT_TRUE(spread) << "on the first CPU " << count_on(a) << ", on the second " << count_on(b)
                      << "\n"
                      << seen;
  // That the spinners have set masks of their own is reported, and nothing else is done to them.
  for (const WatchAction& action : actions_) {
    if (action.kind == WatchAction::Kind::kReport) continue;
    EXPECT_NE(action.why.find("it waited"), std::string::npos);
  }
}

TEST_F(Watch, ABalancedSliceIsLeftAlone) {
  if (allowed_.count() < 2) GTEST_SKIP() << "one CPU only";
  int a = allowed_.first(), b = allowed_.next(a);
  pid_t parent = start(!hierarchy_.base.empty(), to_list(CpuSet{a, b}) + ",", [a, b] {
    spin_on({a, b, a, b});
  });
  ASSERT_GT(parent, 0);
  Watcher watcher(options_);
  double end = now_s() + 3;
  while (now_s() < end) {
    for (WatchAction& action : watcher.look(now_s())) actions_.push_back(action);
    watcher.wait(200);
  }
  for (const WatchAction& action : actions_) {
    EXPECT_EQ(action.kind, WatchAction::Kind::kReport) << log();
  }
}

}  // namespace
}  // namespace allot::cpus
