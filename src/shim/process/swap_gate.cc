// See swap_gate.h.
#include "shim/process/swap_gate.h"

#include "sys/clock.h"
#include "sys/futex.h"

namespace allot::shim {

constinit std::atomic<void (*)()> swap_wait_handler{nullptr};

namespace {

enum Phase : uint32_t { kOpen, kClosing, kClosed };

constexpr uint64_t kLookAgainNs = 100'000'000;

constinit std::atomic<uint32_t> phase{kOpen};  // the futex word
constinit std::atomic<uint64_t> opens_at_ns{0};
constinit std::atomic<uint32_t> inside{0};
constinit std::atomic<uint32_t> waiting{0};
constinit std::atomic<bool> through{false};
constinit thread_local uint32_t depth __attribute__((tls_model("initial-exec"))) = 0;

bool may_pass() {
  return phase.load(std::memory_order_seq_cst) == kOpen || through.load(std::memory_order_relaxed);
}

// The closing thread has missed its deadline; its next step fails.
void open_when_late() {
  if (sys::monotonic_ns() < opens_at_ns.load(std::memory_order_relaxed)) return;
  uint32_t closing = kClosing;
  if (phase.compare_exchange_strong(closing, kOpen)) {
    sys::futex_wake(&phase, sys::FutexScope::kPrivate);
  }
}

// Waits for the phase only: a thread that waits when the process begins to end stays here and does
// not run into its last moments.
void wait() {
  waiting.fetch_add(1, std::memory_order_seq_cst);
  if (void (*handler)() = swap_wait_handler.load(std::memory_order_acquire)) handler();
  for (;;) {
    const uint32_t now = phase.load(std::memory_order_seq_cst);
    if (now == kOpen) break;
    if (now == kClosing) open_when_late();
    sys::futex_wait(&phase, now, kLookAgainNs, sys::FutexScope::kPrivate);
  }
  waiting.fetch_sub(1, std::memory_order_seq_cst);
}

}  // namespace

void swap_enter() {
  if (depth++ != 0) return;
  for (;;) {
    if (!may_pass()) wait();
    inside.fetch_add(1, std::memory_order_seq_cst);
    if (may_pass()) return;
    inside.fetch_sub(1, std::memory_order_seq_cst);
  }
}

void swap_leave() {
  if (--depth == 0) inside.fetch_sub(1, std::memory_order_seq_cst);
}

void swap_wait_open() {
  if (depth == 0 && !may_pass()) wait();
}

void swap_close(uint64_t deadline_ns) {
  opens_at_ns.store(deadline_ns, std::memory_order_relaxed);
  phase.store(kClosing, std::memory_order_seq_cst);
}

uint32_t swap_inside() {
  return inside.load(std::memory_order_seq_cst);
}

bool swap_closed() {
  open_when_late();
  uint32_t closing = kClosing;
  return phase.compare_exchange_strong(closing, kClosed);
}

void swap_open() {
  phase.store(kOpen, std::memory_order_seq_cst);
  if (waiting.load(std::memory_order_seq_cst) != 0) {
    sys::futex_wake(&phase, sys::FutexScope::kPrivate);
  }
}

bool swap_is_open() {
  return phase.load(std::memory_order_acquire) == kOpen;
}

uint32_t swap_waiting() {
  return waiting.load(std::memory_order_acquire);
}

void swap_let_through() {
  through.store(true, std::memory_order_seq_cst);
}

void abandon_swap_gate() {
  phase.store(kOpen);
  inside.store(0);
  waiting.store(0);
  through.store(false);
  depth = 0;
}

}  // namespace allot::shim
