// See burst_counter.h.
#include "shim/process/burst_counter.h"

#include <atomic>

#include "sys/clock.h"

namespace allot::shim {
namespace {

// The open clock: what it showed at the last change, when that was, and whether it runs. The three
// words may be of different changes for an instant: then one burst is off by the time between them.
constinit std::atomic<uint64_t> shown_ns{0};
constinit std::atomic<uint64_t> changed_ns{0};
constinit std::atomic<bool> runs{true};

constinit std::atomic<uint64_t> begun_ns{
    0};  // of the burst under way, by the open clock, plus 1; 0 = none
constinit std::atomic<uint64_t> bursts{0};
constinit std::atomic<uint64_t> waits{0};
constinit std::atomic<uint64_t> busy_ns{0};

// When a wait ended a burst, last. A program whose waits do so does it again before this is over.
constinit std::atomic<uint64_t> waited_ns{0};
constexpr uint64_t kWaitsNs = 50'000'000;

uint64_t open_clock(uint64_t now_ns) {
  const uint64_t shown = shown_ns.load(std::memory_order_acquire);
  if (!runs.load(std::memory_order_acquire)) return shown;
  const uint64_t changed = changed_ns.load(std::memory_order_acquire);
  return now_ns > changed ? shown + (now_ns - changed) : shown;
}

bool end_at(uint64_t now_ns) {
  const uint64_t now = open_clock(now_ns) + 1;
  const uint64_t begun = begun_ns.exchange(0, std::memory_order_acq_rel);
  if (begun == 0) return false;
  if (now > begun) busy_ns.fetch_add(now - begun, std::memory_order_relaxed);
  bursts.fetch_add(1, std::memory_order_release);
  return true;
}

}  // namespace

void burst_begins() {
  if (begun_ns.load(std::memory_order_relaxed) != 0) return;
  uint64_t none = 0;
  begun_ns.compare_exchange_strong(none, open_clock(sys::monotonic_ns()) + 1,
                                   std::memory_order_acq_rel);
}

void burst_ends() {
  if (begun_ns.load(std::memory_order_relaxed) == 0) return;
  const uint64_t now_ns = sys::monotonic_ns();
  waited_ns.store(now_ns, std::memory_order_relaxed);
  if (end_at(now_ns)) waits.fetch_add(1, std::memory_order_relaxed);
}

void burst_seen_idle() {
  if (begun_ns.load(std::memory_order_relaxed) == 0) return;
  const uint64_t now_ns = sys::monotonic_ns();
  if (now_ns > waited_ns.load(std::memory_order_relaxed) + kWaitsNs) end_at(now_ns);
}

BurstCounts burst_counts(uint64_t now_ns) {
  BurstCounts counts = {};
  counts.bursts = bursts.load(std::memory_order_acquire);
  counts.waits = waits.load(std::memory_order_relaxed);
  counts.busy_ns = busy_ns.load(std::memory_order_acquire);
  counts.open_ns = open_clock(now_ns);
  const uint64_t begun = begun_ns.load(std::memory_order_acquire);
  if (begun != 0 && counts.open_ns + 1 > begun) counts.busy_ns += counts.open_ns + 1 - begun;
  return counts;
}

void burst_clock(bool open, uint64_t at_ns) {
  if (open == runs.load(std::memory_order_relaxed)) return;
  if (open) {
    changed_ns.store(at_ns, std::memory_order_release);
    runs.store(true, std::memory_order_release);
    return;
  }
  const uint64_t shown = open_clock(at_ns);
  runs.store(false, std::memory_order_release);
  shown_ns.store(shown, std::memory_order_release);
}

void forget_bursts() {
  begun_ns.store(0);
  bursts.store(0);
  waits.store(0);
  waited_ns.store(0);
  busy_ns.store(0);
  shown_ns.store(0);
  changed_ns.store(0);
  runs.store(true);
}

}  // namespace allot::shim
