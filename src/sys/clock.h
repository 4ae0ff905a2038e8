// Clocks, by libc's clock_gettime (GLIBC_2.17) and the vDSO: some 20 ns.
#pragma once

#include <ctime>

#include <cstdint>

namespace allot::sys {

inline uint64_t clock_ns(clockid_t clock) {
  timespec now = {};
  clock_gettime(clock, &now);  // cannot fail for these clocks
  return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

// Nanoseconds since boot, without time asleep; the same in all processes. Any thread, signal-safe.
inline uint64_t monotonic_ns() {
  return clock_ns(CLOCK_MONOTONIC);
}

// CPU time of the calling thread. A system call of some 300 ns. Any thread, signal-safe.
inline uint64_t thread_cpu_ns() {
  return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

// Nanoseconds since 1970, as the administrator set it. Any thread, signal-safe.
inline uint64_t realtime_ns() {
  return clock_ns(CLOCK_REALTIME);
}

}  // namespace allot::sys
