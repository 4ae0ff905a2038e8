// See gate.h.
#include "shim/gate.h"

#include "sys/clock.h"
#include "sys/futex.h"

namespace allot::shim {
namespace {

constexpr uint64_t kCloserLostNs = 3'000'000'000;
constexpr uint64_t kLookAgainNs = 100'000'000;

constinit std::atomic<uint32_t> closed{0};  // the futex word
constinit std::atomic<uint64_t> closed_at_ns{0};
constinit std::atomic<uint32_t> waiting{0};
constinit std::atomic<uint32_t> inside{0};

bool holds() {
  if (closed.load(std::memory_order_acquire) == 0) return false;
  if ((submit_watch.load(std::memory_order_acquire) & kGate) == 0) return false;
  return sys::monotonic_ns() - closed_at_ns.load(std::memory_order_relaxed) < kCloserLostNs;
}

}  // namespace

void gate_close() {
  closed_at_ns.store(sys::monotonic_ns(), std::memory_order_relaxed);
  closed.store(1, std::memory_order_seq_cst);
}

void gate_open() {
  closed.store(0, std::memory_order_seq_cst);
  if (waiting.load(std::memory_order_seq_cst) != 0) {
    sys::futex_wake(&closed, sys::FutexScope::kPrivate);
  }
}

bool gate_drained() {
  return closed.load(std::memory_order_seq_cst) != 0 && inside.load(std::memory_order_seq_cst) == 0;
}

uint32_t gate_waiting() {
  return waiting.load(std::memory_order_relaxed);
}

uint64_t gate_in_flight_us() {
  return 0;
}

void gate_budget_us(uint64_t) {}

bool gate_enter(const Submission&) {
  for (;;) {
    if (holds()) {
      submission_waits();
      waiting.fetch_add(1, std::memory_order_seq_cst);
      while (holds()) sys::futex_wait(&closed, 1, kLookAgainNs, sys::FutexScope::kPrivate);
      waiting.fetch_sub(1, std::memory_order_seq_cst);
      submission_goes_on();
    }
    // Counted first, then asked again: the closer sees us or we see the gate closed.
    inside.fetch_add(1, std::memory_order_seq_cst);
    if (!holds()) return true;
    inside.fetch_sub(1, std::memory_order_seq_cst);
  }
}

void gate_leave(const Submission&, CUresult) {
  inside.fetch_sub(1, std::memory_order_seq_cst);
}

}  // namespace allot::shim
