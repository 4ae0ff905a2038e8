// For tests: how long an operation took, less what its thread waited for a CPU. On a busy machine a
// wall clock shows the machine; what is left here is work and waiting for others.
#pragma once

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>

namespace allot::core {

// One thread's. The kernel's word (run delay, the second number of /proc/thread-self/schedstat);
// where it keeps none, nothing is taken off. A look costs about a microsecond.
class RunDelay {
 public:
  struct Took {
    uint64_t wall_ns;
    uint64_t own_ns;
  };

  RunDelay() : file_(open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC)) {}
  ~RunDelay() { close(file_); }
  RunDelay(const RunDelay&) = delete;
  RunDelay& operator=(const RunDelay&) = delete;

  template <class Operation>
  Took time(Operation operation) const {
    const uint64_t waited = waited_ns(), begin = now_ns();
    operation();
    const uint64_t wall = now_ns() - begin;
    return {wall, wall - std::min(wall, waited_ns() - waited)};
  }

 private:
  static uint64_t now_ns() {
    timespec now = {};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
  }
  uint64_t waited_ns() const {
    char text[96] = "";
    unsigned long long ran = 0, waited = 0;
    if (pread(file_, text, sizeof(text) - 1, 0) <= 0) return 0;
    return std::sscanf(text, "%llu %llu", &ran, &waited) == 2 ? waited : 0;
  }

  int file_;
};

}  // namespace allot::core
