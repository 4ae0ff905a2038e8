// Strangers on the CPUs of an exclusive slice: reported, and on demand kept off until the end. Only
// processes of these tests are looked at; the machine's others keep their masks.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <atomic>

#include "watch_machine.h"

namespace allot::cpus {
namespace {

class Strangers : public Watch {
 protected:
  // An exclusive slice of the last CPU.
  void SetUp() override {
    Watch::SetUp();
    if (allowed_.count() < 2) GTEST_SKIP() << "one CPU only";
    exclusive_ = true;
    own_ = CpuSet{allowed_.last()};
    options_.strangers_among = [this] { return among_; };
    ASSERT_GT(start(!hierarchy_.base.empty(), to_list(own_) + ",", [] {}), 0);
  }
  pid_t stranger(const CpuSet& mask, bool spins) {
    pid_t child = fork();
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      set_affinity(0, mask);
      if (spins) {
        for (std::atomic<unsigned> turns{0};;) turns.fetch_add(1, std::memory_order_relaxed);
      }
      while (true) pause();
    }
    children_.push_back(child);
    EXPECT_TRUE(wait_until([&] { return mask_of(child) == mask; }));
    among_.push_back(child);
    return child;
  }
  static CpuSet mask_of(pid_t pid) {
    CpuSet mask;
    get_affinity(pid, &mask);
    return mask;
  }
  CpuSet own_;
  std::vector<pid_t> among_;  // nobody else on this machine is touched
};

TEST_F(Strangers, WhoRunsOnAnExclusiveSlicesCpusIsReportedOnce) {
  pid_t busy = stranger(own_, true);
  pid_t idle = stranger(allowed_, false);
  among_.push_back(children_[0]);  // the slice's own program
  Watcher watcher(options_);
  const auto said = [&] { return log().find(std::to_string(busy)) != std::string::npos; };
  EXPECT_TRUE(look_until(&watcher, said)) << log();
  for (int i = 0; i < 30; ++i) {
    for (WatchAction& action : watcher.look(now_s() + 20 * i)) actions_.push_back(action);
  }
  ASSERT_EQ(actions_.size(), 1u) << log();
  EXPECT_EQ(actions_[0].kind, WatchAction::Kind::kReport);
  EXPECT_EQ(log().find(std::to_string(idle)), std::string::npos) << "it did not run: " << log();
  EXPECT_EQ(mask_of(busy), own_) << "reported only";
}

TEST_F(Strangers, OnDemandTheyAreKeptOffUntilTheWatcherEnds) {
  pid_t wide = stranger(allowed_, false), bound = stranger(own_, true);
  options_.move_strangers = true;
  {
    Watcher watcher(options_);
    double now = 100;
    for (WatchAction& action : watcher.look(now)) actions_.push_back(action);
    EXPECT_EQ(mask_of(wide), allowed_ - own_) << log();
    EXPECT_EQ(mask_of(bound), own_) << "there is no other CPU that it may use";
    ASSERT_EQ(actions_.size(), 1u) << log();
    EXPECT_EQ(actions_[0].kind, WatchAction::Kind::kKeepOff);
    EXPECT_TRUE(actions_[0].done);
    for (WatchAction& action : watcher.look(now += 2)) actions_.push_back(action);
    EXPECT_EQ(mask_of(children_[0]), own_) << "the slice's program is no stranger";
  }
  EXPECT_EQ(mask_of(wide), allowed_);
  EXPECT_EQ(mask_of(bound), own_);
}

// Who is born of a stranger has its narrow mask, and gets the wide one back as well.
TEST_F(Strangers, TheirChildrenAreLetBackToo) {
  int order[2], answer[2];
  ASSERT_EQ(pipe(order), 0);
  ASSERT_EQ(pipe(answer), 0);
  pid_t parent = fork();
  if (parent == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    char byte;
    if (read(order[0], &byte, 1) != 1) _exit(1);
    pid_t child = fork();
    if (child > 0 && write(answer[1], &child, sizeof child) != sizeof child) _exit(1);
    while (true) pause();
  }
  children_.push_back(parent);
  among_.push_back(parent);
  options_.move_strangers = true;
  {
    Watcher watcher(options_);
    static_cast<void>(watcher.look(100));
    EXPECT_EQ(mask_of(parent), allowed_ - own_);
    pid_t child = 0;
    ASSERT_EQ(write(order[1], "x", 1), 1);
    ASSERT_EQ(read(answer[0], &child, sizeof child), static_cast<ssize_t>(sizeof child));
    among_.push_back(child);
    EXPECT_EQ(mask_of(child), allowed_ - own_);
    static_cast<void>(watcher.look(102));
  }
  for (pid_t pid : among_) EXPECT_EQ(mask_of(pid), allowed_);
  kill(among_.back(), SIGKILL);
  for (int fd : {order[0], order[1], answer[0], answer[1]}) close(fd);
}

TEST_F(Strangers, TheyAreLetBackWhenTheSliceEnds) {
  pid_t wide = stranger(allowed_, false);
  options_.move_strangers = true;
  Watcher watcher(options_);
  static_cast<void>(watcher.look(100));
  EXPECT_EQ(mask_of(wide), allowed_ - own_);
  kill(children_[0], SIGKILL);
  EXPECT_TRUE(wait_until([&] { return !alive(FsRoot{}, placement_->lease.member); }));
  release(&*placement_);
  double now = 110;
  EXPECT_TRUE(wait_until([&] {
    static_cast<void>(watcher.look(now += 2));
    return mask_of(wide) == allowed_;
  }));
}

TEST_F(Strangers, ADryRunCutsNoMask) {
  pid_t wide = stranger(allowed_, false);
  options_.move_strangers = options_.dry_run = true;
  Watcher watcher(options_);
  for (int i = 0; i < 5; ++i) {
    for (WatchAction& action : watcher.look(100 + 2 * i)) actions_.push_back(action);
  }
  EXPECT_EQ(mask_of(wide), allowed_);
  ASSERT_EQ(actions_.size(), 1u) << log();
  EXPECT_FALSE(actions_[0].done);
}

}  // namespace
}  // namespace allot::cpus
