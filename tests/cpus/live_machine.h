// What the tests share that make groups and slices on the running machine.
//
// Groups of one test are siblings of another's, and an exclusive one keeps the others from its
// CPUs. So these tests take turns, also across processes and checkouts: one lock for the machine.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>

#include "cpus/cpuset_fs.h"
#include "cpus/topology.h"

namespace allot::cpus {

inline bool wait_until(const std::function<bool()>& condition, int seconds = 10) {
  auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    poll(nullptr, 0, 1);
  }
  return true;
}

class LiveMachine : public testing::Test {
 protected:
  void SetUp() override {
    turn_ = open("/tmp/allot-cpus-test.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    ASSERT_GE(turn_, 0);
    ASSERT_EQ(lock(F_WRLCK), 0);
    char name[] = "/tmp/allot-cpus-XXXXXX";
    folder_ = mkdtemp(name);
    hierarchy_ = find_hierarchy(FsRoot{});
    allowed_ = cpus_within_cpuset().value_or(CpuSet{});
  }
  void TearDown() override {
    std::filesystem::remove_all(folder_);
    // Children that a test has left share the open file, so it is unlocked, not only closed.
    lock(F_UNLCK);
    close(turn_);
  }
  int lock(short how) const {
    struct flock whole {};
    whole.l_type = how;
    whole.l_whence = SEEK_SET;
    return fcntl(turn_, F_OFD_SETLKW, &whole);
  }

  int turn_ = -1;
  std::string folder_;  // of leases
  Hierarchy hierarchy_;
  CpuSet allowed_;
};

}  // namespace allot::cpus
