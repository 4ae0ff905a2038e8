// See agent.h. One GpuAgent for each GPU (agent_gpu.h); all are driven by one loop.
#include "shim/time/agent.h"

#include <cstdlib>

#include "core/counters.h"
#include "core/shared.h"
#include "core/time_policy.h"
#include "shim/process/guest_thread.h"
#include "shim/process/process.h"
#include "shim/time/agent_gpu.h"
#include "shim/time/agent_watchdog.h"
#include "shim/time/gate_vote.h"
#include "shim/time/gpu_clients.h"
#include "shim/time/neighbours.h"
#include "shim/time/prober.h"
#include "shim/time/rm_tracker.h"
#include "shim/time/tables.h"
#include "shm/time_view.h"
#include "sys/clock.h"

namespace allot::shim {
namespace {

constexpr uint64_t kSignOfLifeNs = 150'000'000;
constexpr uint64_t kSignWhileSharedNs = 10'000'000;
constexpr uint64_t kSecondNotifyNs = 1'000'000;
constexpr uint64_t kLeastSleepNs = 50'000;

constinit GpuAgent gpus[ALLOT_MAX_GPUS] = {};  // the agent's thread; set up before it starts
constinit uint32_t gpu_count = 0;              // likewise
constinit PlanRoom plan_room = {};
constinit std::atomic<bool> alive{false};  // written by the thread that starts or forgets it

constinit uint64_t frozen_at_ns = 0;  // at the last look; 0: it was not

// The time in which the slice was frozen, from one look at it to the next.
void count_frozen(uint64_t now_ns) {
  AllotSliceFile& file = *process.slice.file;
  const uint32_t slot = process.slot.index;
  AllotCounters* counters = core::counters_of(file, slot, core::load(file.slot_words[slot]));
  if (counters != nullptr && frozen_at_ns != 0 && now_ns > frozen_at_ns)
    core::count(counters->frozen_ns, now_ns - frozen_at_ns);
  frozen_at_ns = (core::load(file.header.flags) & ALLOT_SLICE_FROZEN) != 0 ? now_ns : 0;
}

// One round over all GPUs. Returns until when nothing need be done.
struct Round {
  uint64_t until_ns = UINT64_MAX;
  Pace pace = Pace::kAlone;
  bool news = false;
};

// In the process's slot, for `ps` and `doctor`.
void say_full_tables() {
  bool channels = false;
  for (uint32_t i = 0; i < gpu_count; ++i) channels = channels || gpus[i].more_channels();
  if (channels) {
    table_full(ALLOT_TABLE_CHANNELS);
  } else {
    table_has_room(ALLOT_TABLE_CHANNELS);
  }
  uint32_t& said = process.slice.file->slots[process.slot.index].full_tables;
  if (core::load(said) != full_tables()) core::store(said, full_tables());
}

Round work(uint64_t now_ns) {
  Round round;
  for (uint32_t i = 0; i < gpu_count; ++i) {
    const GpuAgent::Outcome outcome = gpus[i].step(now_ns);
    if (outcome.until_ns < round.until_ns) round.until_ns = outcome.until_ns;
    if (outcome.pace > round.pace) round.pace = outcome.pace;
    round.news = round.news || outcome.news;
  }
  rm_close_old_copies();
  say_full_tables();
  set_pace(round.pace);
  return round;
}

constinit bool detached =
    false;  // the slice is evicted: nothing of ours is on the card or holds it

// True while there is nothing to hold. A notification ends it.
bool stay_detached() {
  const uint32_t flags = core::load(process.slice.file->header.flags);
  if ((flags & ALLOT_SLICE_EVICTED) == 0) {
    if (!detached) return false;
    detached = false;
    rm_take_hold();
    for (uint32_t i = 0; i < gpu_count; ++i) gpus[i].reattach();
    wake_prober();
    return false;
  }
  if (!detached) {
    for (uint32_t i = 0; i < gpu_count; ++i) gpus[i].detach();
    rm_let_go();
    detached = true;
  }
  const uint64_t now = sys::monotonic_ns();
  for (uint32_t i = 0; i < gpu_count; ++i) gpus[i].show_detached(now);
  return true;
}

uint64_t sleep_ns(const Round& round, uint64_t now_ns, bool notify_again) {
  uint64_t most = round.pace != Pace::kAlone ? kSignWhileSharedNs : kSignOfLifeNs;
  if (notify_again && kSecondNotifyNs < most) most = kSecondNotifyNs;
  if (round.until_ns == UINT64_MAX) return most;
  if (round.until_ns <= now_ns + kLeastSleepNs) return kLeastSleepNs;
  const uint64_t wait = round.until_ns - now_ns;
  return wait < most ? wait : most;
}

void* agent_main(void*) {
  name_guest_thread("allot-agent");
  bool notify_again = false;
  uint32_t last_wake_seq = 0;
  while (alive.load(std::memory_order_acquire)) {
    if (agent_runs()) {
      for (uint32_t i = 0; i < gpu_count; ++i) {
        gpus[i].detach();
        gpus[i].reattach();
      }
    }
    const uint32_t wake_seq = core::load(process.slice.file->header.wake_seq);
    if (wake_seq != last_wake_seq) neighbours_changed();
    last_wake_seq = wake_seq;
    count_frozen(sys::monotonic_ns());
    const Round round = stay_detached() ? Round{} : work(sys::monotonic_ns());
    if (round.news || notify_again) notify_neighbours();
    // A neighbour that was about to sleep missed this wake: we may not write its wake_seq.
    notify_again = round.news;
    const uint64_t sleep = sleep_ns(round, sys::monotonic_ns(), notify_again);
    if (shm::wait_for_wake(process.slice, wake_seq, sleep)) neighbours_rang();
  }
  return nullptr;
}

// Runs before the driver's own exit handlers, which were registered earlier.
void before_exit() {
  if (!forked_child()) stop_prober();
}

}  // namespace

bool start_agent(const char* slice_path) {
  neighbours_in(slice_path);
  gpu_count = 0;
  for (uint32_t i = 0; i < process.device_count && gpu_count < ALLOT_MAX_GPUS; ++i) {
    if (process.devices[i].gpu >= 0) gpus[gpu_count++].assign(i, &plan_room);
  }
  alive.store(true, std::memory_order_release);
  const bool started = start_guest_thread(agent_main) && start_prober();
  if (!started) {
    alive.store(false, std::memory_order_release);
    say_nobody_holds(ALLOT_REASON_NO_AGENT);
  }
  static constinit bool registered = false;
  if (!registered) registered = std::atexit(before_exit) == 0;
  return started;
}

void wake_agent() {
  if (process.slice.file != nullptr) shm::notify(process.slice);
}

void forget_agent() {
  alive.store(false);
  for (GpuAgent& gpu : gpus) gpu = GpuAgent{};
  gpu_count = 0;
  detached = false;
  frozen_at_ns = 0;
  forget_gate_votes();
  forget_gpu_clients();
  forget_activity();
  forget_agent_watch();
  forget_rm();
  forget_full_tables();
}

}  // namespace allot::shim
