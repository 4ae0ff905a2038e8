// A charge that follows a figure of the driver: what a pool has reserved, what NVML measured.
//
// The driver reports the whole amount, several threads ask for it at once, and the ledger must
// never be below the truth meanwhile. The word holds the last settled amount (in 4 KiB) and a
// version, so that a thread discards an answer that another thread's settling has overtaken, and
// asks again. Growth is charged before the word changes; shrinkage is released after it.
#pragma once

#include <atomic>
#include <cstdint>

#include "abi/region.h"

namespace allot::shim {

// The ledger calls of shim/memory/charge.h, without the slow path before a refusal.
void charge_now(uint32_t gpu, AllotKind kind, uint64_t bytes);
void release_now(uint32_t gpu, AllotKind kind, uint64_t bytes);

class SettledCharge {
 public:
  uint64_t bytes() const { return amount(word_.load(std::memory_order_acquire)); }

  // Asks measure(before, &now) for the driver's figure and makes the ledger agree. The caller has
  // charged `prepaid` bytes of the same kind for growth that may have happened; this call uses them
  // or gives them back. False when measure() has no answer; then the prepaid bytes are still the
  // caller's.
  template <class Measure>
  bool settle(uint32_t gpu, AllotKind kind, uint64_t prepaid, Measure measure) {
    for (int tries = 0; tries < kTries; ++tries) {
      uint64_t word = word_.load(std::memory_order_acquire);
      uint64_t now = 0;
      if (!measure(amount(word), &now)) break;
      now = (now + 4095) & ~uint64_t{4095};
      const uint64_t before = amount(word);
      const uint64_t missing = now > before + prepaid ? now - before - prepaid : 0;
      if (missing > 0) charge_now(gpu, kind, missing);
      if (word_.compare_exchange_strong(word, pack(now, word), std::memory_order_acq_rel)) {
        const uint64_t surplus = before + prepaid + missing - now;
        if (surplus > 0) release_now(gpu, kind, surplus);
        return true;
      }
      if (missing > 0) release_now(gpu, kind, missing);
    }
    return false;
  }

  // Adds bytes that are charged already to the amount, where the driver has no answer.
  void accept(uint64_t bytes) {
    uint64_t word = word_.load(std::memory_order_acquire);
    while (!word_.compare_exchange_weak(word, pack(amount(word) + bytes, word))) {
    }
  }

  // Forgets the amount without touching the ledger: for a forked child.
  void abandon() { word_.store(0, std::memory_order_relaxed); }

 private:
  static constexpr int kTries = 16;  // each lost race means that another thread settled meanwhile
  static constexpr uint64_t kVersions = 1u << 20;

  static uint64_t amount(uint64_t word) { return (word >> 20) << 12; }
  static uint64_t pack(uint64_t bytes, uint64_t old) {
    return (bytes >> 12) << 20 | ((old + 1) & (kVersions - 1));
  }

  std::atomic<uint64_t> word_{0};
};

}  // namespace allot::shim
