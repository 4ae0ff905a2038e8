// A lock between threads of this process, held for a few instructions. It is never held across a
// call into the driver or the kernel, never in shared memory, and never taken in a forked child.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstdint>

namespace allot::shim {

class SpinLock {
 public:
  void lock() {
    for (uint32_t spins = 0; taken_.exchange(1, std::memory_order_acquire) != 0; ++spins) {
      // A holder that runs has finished well before; a holder that does not run needs our core.
      if (spins >= kSpins) {
        sched_yield();
        spins = 0;
      }
    }
  }
  void unlock() { taken_.store(0, std::memory_order_release); }
  // For a forked child, where the parent's threads do not exist to unlock.
  void abandon() { taken_.store(0, std::memory_order_relaxed); }

 private:
  static constexpr uint32_t kSpins = 200;
  std::atomic<uint32_t> taken_{0};
};

}  // namespace allot::shim
