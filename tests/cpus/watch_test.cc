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
#include <fstream>
#include <functional>

#include "watch_machine.h"

namespace allot::cpus {
namespace {

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

// The law of a dry run: what it would do is said once, however often it looks, and is no quarrel.
TEST_F(Watch, ADryRunSaysEachThingOnce) {
  if (allowed_.count() < 2) GTEST_SKIP() << "one CPU only";
  options_.dry_run = true;
  if (!hierarchy_.base.empty()) {
    pid_t child = start(true, to_list(allowed_), [] {});
    ASSERT_GT(child, 0);
    ASSERT_EQ(perform({Step::Op::kWrite, hierarchy_.file(placement_->group, "cpus"),
                       std::to_string(allowed_.first())}),
              0);
    ASSERT_EQ(enter_group(procs_file(hierarchy_.base).c_str(), child), 0);
    Watcher watcher(options_);
    for (int i = 0; i < 8; ++i) {
      for (WatchAction& action : watcher.look(100 + i)) actions_.push_back(action);
    }
    EXPECT_EQ(actions_.size(), 2u) << log();
    EXPECT_EQ(group_cpus(), CpuSet{allowed_.first()});
    EXPECT_EQ(group_of(FsRoot{}, hierarchy_, child), hierarchy_.base);
    release(&*placement_);
    actions_.clear();
  }
  ASSERT_GT(
      start(false, std::to_string(allowed_.last()) + ",", [this] { set_affinity(0, allowed_); }),
      0);
  Watcher watcher(options_);
  for (int i = 0; i < 8; ++i) {
    for (WatchAction& action : watcher.look(100 + i)) actions_.push_back(action);
  }
  EXPECT_EQ(actions_.size(), 1u) << log();
}

// Version 1: a CPU that goes off line is taken out of the group, and who was left without one falls
// to the group above. The same is done here by writes, and a file tells the watcher what is online.
TEST_F(Watch, ASliceThatLostAllItsCpusIsWholeWithinASecondOfTheirReturn) {
  if (hierarchy_.kind != CpusetKind::kV1 || hierarchy_.base.empty())
    GTEST_SKIP() << "not version 1";
  options_.online_file = folder_ + "/online";
  const auto say_online = [this](const CpuSet& set) {
    std::ofstream(options_.online_file) << to_list(set) << "\n";
  };
  say_online(allowed_);
  CpuSet own{allowed_.last()};
  pid_t child = start(true, to_list(own) + ",", [] {});
  ASSERT_GT(child, 0);
  Watcher watcher(options_);
  EXPECT_TRUE(watcher.look(100).empty());
  say_online(allowed_ - own);
  ASSERT_EQ(enter_group(procs_file(hierarchy_.base).c_str(), child), 0);
  ASSERT_EQ(perform({Step::Op::kWrite, hierarchy_.file(placement_->group, "cpus"), ""}), 0);
  // Looks while there is nothing to put back do not count as tries.
  double now = 100;
  for (int i = 0; i < 20; ++i) {
    for (WatchAction& action : watcher.look(now += 0.2)) actions_.push_back(action);
  }
  ASSERT_EQ(actions_.size(), 1u) << log();
  EXPECT_NE(actions_[0].what.find("offline"), std::string::npos) << log();
  say_online(allowed_);
  double back = now;
  while (now < back + 1 && group_of(FsRoot{}, hierarchy_, child) != placement_->group) {
    for (WatchAction& action : watcher.look(now += 0.2)) actions_.push_back(action);
  }
  EXPECT_EQ(group_of(FsRoot{}, hierarchy_, child), placement_->group) << log();
  EXPECT_EQ(group_cpus(), own) << log();
  EXPECT_NE(log().find("had been offline"), std::string::npos) << log();
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
