// A watcher beside a slice on the running machine, for its tests.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cpus/placement.h"
#include "cpus/watch.h"
#include "live_machine.h"

namespace allot::cpus {

inline double now_s() {
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
    request.exclusive = exclusive_;
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
  bool exclusive_ = false;
  std::optional<Placement> placement_;
  std::vector<pid_t> children_;
  std::vector<WatchAction> actions_;
};

}  // namespace allot::cpus
