// A region folder for tests, and children that stand for other processes. Not part of the product.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>

#include "core/ledger.h"
#include "shm/slice_file.h"

namespace allot::shm {

class RegionTest : public testing::Test {
 protected:
  void SetUp() override {
    char text[] = "/dev/shm/allot-test-XXXXXX";
    ASSERT_NE(mkdtemp(text), nullptr);
    folder_ = text;
  }
  void TearDown() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  std::string path(const std::string& name) const { return folder_ + "/" + name + ".slice"; }
  // A slice launched by this process.
  static NewSlice mine(const char* name) { return {name, 0, static_cast<int32_t>(getpid()), 0, 0}; }
  static NewSlice orphan(const char* name) { return {name, 0, 0, 0, 0}; }
  size_t files() const {
    size_t count = 0;
    for ([[maybe_unused]] auto& e : std::filesystem::directory_iterator(folder_)) ++count;
    return count;
  }

  std::string folder_;
};

// Waits up to 10 s for something to become true.
inline bool eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 10000; ++i) {
    if (condition()) return true;
    usleep(1000);
  }
  return condition();
}

// A slice "t" with one GPU of 5,000 bytes and a limit of 1,000.
class OneSliceTest : public RegionTest {
 protected:
  void SetUp() override {
    RegionTest::SetUp();
    auto slice = create_slice(folder_.c_str(), mine("t"));
    ASSERT_TRUE(slice);
    slice_ = *slice;
    const uint8_t uuid[16] = {7};
    ASSERT_TRUE(find_or_add_gpu(slice_, uuid, 1000, 5000));
  }
  void TearDown() override {
    unmap(slice_);
    RegionTest::TearDown();
  }
  uint64_t used() { return core::Ledger(slice_.file).used(0); }

  Slice slice_;
};

// A child process that runs `body` and then waits until it is killed or released.
class Child {
 public:
  explicit Child(const std::function<void()>& body) {
    int ready[2];
    if (pipe(ready) != 0 || pipe(go_) != 0) std::abort();
    pid_ = fork();
    if (pid_ == 0) {
      close(go_[1]);
      body();
      char byte = 'r';
      if (write(ready[1], &byte, 1) != 1) _exit(9);
      if (read(go_[0], &byte, 1) < 0) _exit(8);
      _exit(0);
    }
    close(ready[1]);
    close(go_[0]);
    char byte = 0;
    is_ready_ = read(ready[0], &byte, 1) == 1;
    close(ready[0]);
  }
  ~Child() {
    kill();
    close(go_[1]);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  bool ready() const { return is_ready_; }
  uint32_t pid() const { return static_cast<uint32_t>(pid_); }
  // Ends it without reaping: it stays a zombie until kill().
  void kill_only() { ::kill(pid_, SIGKILL); }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  pid_t pid_ = 0;
  int go_[2];
  bool is_ready_ = false;
};

// Runs `body` in a child (as another user if `uid` is not 0); its result is the exit status.
inline int in_child(uint32_t uid, const std::function<int()>& body) {
  const pid_t pid = fork();
  if (pid == 0) {
    if (uid != 0 && (setgid(uid) != 0 || setuid(uid) != 0)) _exit(99);
    _exit(body());
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace allot::shm
