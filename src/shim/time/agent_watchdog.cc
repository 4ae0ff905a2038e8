// See agent_watchdog.h.
#include "shim/time/agent_watchdog.h"

#include <atomic>

#include "core/shared.h"
#include "shim/process/log.h"
#include "shim/process/process.h"
#include "shim/time/channels.h"
#include "shim/time/gpu_clients.h"
#include "shim/time/launch_gate.h"
#include "shim/time/prober.h"
#include "shim/time/submit.h"
#include "sys/clock.h"

namespace allot::shim {
namespace {

constexpr uint64_t kLostAfterNs = 2'000'000'000;
constexpr uint64_t kMostPerLookNs = 250'000'000;  // a longer pause was not the agent's alone

constinit std::atomic<uint32_t> rounds{0};  // written by the agent
constinit std::atomic<bool> lost{false};    // set by the prober, cleared by the agent

// The prober's own.
constinit uint32_t rounds_seen = 0;
constinit uint64_t last_look_ns = 0;
constinit uint64_t missed_ns = 0;
constinit Channels rescued = {};

// Nothing that the agent closed stays closed. An evicted process has nothing on the card to open.
void let_all_run() {
  gate_open();
  submit_watch.fetch_and(~kGate, std::memory_order_acq_rel);
  const bool away = (core::load(process.slice.file->header.flags) & ALLOT_SLICE_EVICTED) != 0;
  for (uint32_t i = 0; i < process.device_count; ++i) {
    Activity& activity = activity_of(i);
    if (activity.client.load(std::memory_order_acquire) == nullptr) continue;
    rescued = Channels{};
    if (!away && rescued.refresh(static_cast<int>(i))) rescued.probe();  // enables them all
    note_open(activity, true, sys::monotonic_ns());
  }
}

void refuse_if_closed() {
  if (!must_hold_time()) return;
  if ((submit_watch.fetch_or(kRefuse, std::memory_order_acq_rel) & kRefuse) != 0) return;
  log_no_slice("its GPU time cannot be held: allot's thread is lost", 0, true);
}

}  // namespace

bool agent_runs() {
  rounds.fetch_add(1, std::memory_order_acq_rel);
  const uint32_t watch = submit_watch.load(std::memory_order_acquire);
  if (!lost.load(std::memory_order_acquire) && (watch & kRefuse) == 0) return false;
  lost.store(false, std::memory_order_release);
  say_agent_holds();
  submit_watch.fetch_and(~kRefuse, std::memory_order_acq_rel);
  return true;
}

void watch_agent() {
  const uint64_t now = sys::monotonic_ns();
  const uint64_t since = now - last_look_ns;
  last_look_ns = now;
  const uint32_t seen = rounds.load(std::memory_order_acquire);
  if (seen != rounds_seen) {
    rounds_seen = seen;
    missed_ns = 0;
    return;
  }
  missed_ns += since < kMostPerLookNs ? since : kMostPerLookNs;
  if (missed_ns < kLostAfterNs) return;
  if (!lost.exchange(true, std::memory_order_acq_rel)) {
    let_all_run();
    if (!must_hold_time()) log_no_slice("allot's thread is lost", 0, false);
  }
  say_nobody_holds(ALLOT_REASON_NO_AGENT);
  refuse_if_closed();
}

void forget_agent_watch() {
  rounds.store(0);
  lost.store(false);
  rounds_seen = 0;
  last_look_ns = 0;
  missed_ns = 0;
}

}  // namespace allot::shim
