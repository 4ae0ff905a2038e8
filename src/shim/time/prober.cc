// See activity.h.
#include "shim/time/prober.h"

#include <pthread.h>

#include "core/shared.h"
#include "core/time_gaps.h"
#include "core/time_policy.h"
#include "shim/process/guest_thread.h"
#include "shim/process/process.h"
#include "shim/time/agent.h"
#include "shim/time/agent_watchdog.h"
#include "shim/time/launch_gate.h"
#include "shim/time/streams.h"
#include "shim/time/submit.h"
#include "shm/time_view.h"
#include "sys/clock.h"
#include "sys/futex.h"

namespace allot::shim {
namespace {

constexpr uint32_t kGpus = ALLOT_MAX_GPUS;
constexpr uint64_t kLookDrainsNs = 500'000;
constexpr uint64_t kLookWindowsNs = 2'000'000;
constexpr uint64_t kLookClosedNs = 5'000'000;
constexpr uint64_t kLookBesideNs = 10'000'000;
constexpr uint64_t kLookAloneNs = 220'000'000;
constexpr uint64_t kSettleNs = 2'500'000;  // between "nothing unfinished" and "idle"
constexpr uint64_t kForgetNs = 60'000'000'000;
constexpr uint64_t kMostPerLookNs = 20'000'000;
constexpr uint64_t kMostAloneNs = 300'000'000;

struct Private {
  core::GapWatch gaps;
  bool work = false;          // at the last look
  uint64_t last_ns = 0;       // of the last look
  uint64_t open_time_ns = 0;  // at the last look
  uint64_t busy_ns = 0;       // when there was work last
};

constinit Activity activities[kGpus] = {};
constinit Private privates[kGpus] = {};
constinit std::atomic<uint32_t> prober_wake_seq{0};
constinit std::atomic<Pace> pace{Pace::kAlone};
constinit std::atomic<bool> submitted{false};
constinit std::atomic<bool> idle{true};  // every GPU has been said to be idle
constinit std::atomic<bool> stopping{false};
constinit std::atomic<bool> looking{false};

// In a submitting thread, after it has cleared kWakeOnSubmit.
void on_submission() {
  submitted.store(true, std::memory_order_release);
  if (!idle.exchange(false, std::memory_order_acq_rel)) return;
  for (Activity& activity : activities) {
    if (activity.watched.load(std::memory_order_acquire)) {
      activity.active.store(true, std::memory_order_release);
    }
  }
  wake_agent();
  wake_prober();
}

// How long its work had been let run up to `now_ns`. The two words may be of different changes: then the
// answer is off by the time between them, once.
uint64_t open_time_ns(const Activity& activity, uint64_t now_ns) {
  const uint64_t sum = activity.open_sum_ns.load(std::memory_order_acquire);
  if (!activity.open.load(std::memory_order_acquire)) return sum;
  const uint64_t since = activity.open_since_ns.load(std::memory_order_acquire);
  return now_ns > since ? sum + (now_ns - since) : sum;
}

void add(uint64_t& client, uint64_t& total, uint64_t ns) {
  __atomic_fetch_add(&client, ns, __ATOMIC_RELAXED);
  __atomic_fetch_add(&total, ns, __ATOMIC_RELAXED);
}

// Of the `whole_ns` since the last look with work, `open_ns` were let run.
void account(Activity& activity, uint64_t whole_ns, uint64_t open_ns) {
  AllotGpuClient* client = activity.client.load(std::memory_order_acquire);
  if (client == nullptr) return;
  const uint32_t gpu = core::load(client->gpu);
  if (gpu >= ALLOT_MAX_GPUS) return;
  AllotGpu& total = process.slice.file->gpus[gpu];
  const uint64_t part = activity.part_permille.load(std::memory_order_relaxed);
  if (open_ns > whole_ns) open_ns = whole_ns;
  add(client->used_ns, total.time_used_ns, open_ns * part / core::kWhole);
  add(client->throttled_ns, total.time_throttled_ns, whole_ns - open_ns);
}

// One look at one GPU. Returns whether its state has changed.
bool look(uint32_t ordinal, bool rung) {
  Activity& activity = activities[ordinal];
  Private& own = privates[ordinal];
  const bool was_active = activity.active.load(std::memory_order_acquire);
  const bool was_filling = activity.saturates.load(std::memory_order_relaxed);
  const bool unfinished = unfinished_work(process.devices[ordinal].gpu) != Work::kNone;
  // A thread that waits at a closed gate has work, too.
  const bool work = unfinished || gate_waiting() > 0;
  const uint64_t now = sys::monotonic_ns();
  // While its channels are being closed the sum may still be taken back a little: never let it shrink.
  const uint64_t open_seen = open_time_ns(activity, now);
  const uint64_t open_time = open_seen > own.open_time_ns ? open_seen : own.open_time_ns;
  const uint64_t since = own.last_ns == 0 ? 0 : now - own.last_ns;
  const uint64_t most =
      pace.load(std::memory_order_relaxed) == Pace::kAlone ? kMostAloneNs : kMostPerLookNs;
  if (work) account(activity, since < most ? since : most, open_time - own.open_time_ns);
  if (work || rung) own.busy_ns = now;
  own.gaps.look(now, open_time - own.open_time_ns,
                activity.undisturbed.load(std::memory_order_acquire), work);
  own.last_ns = now;
  own.open_time_ns = open_time;
  const bool active = work || (own.busy_ns != 0 && now - own.busy_ns < core::GapMeter::kIdleNs);
  const bool finished = !unfinished && activity.unfinished.load(std::memory_order_relaxed);
  if (unfinished) activity.unfinished_ns.store(now, std::memory_order_relaxed);
  if (finished) activity.finished_ns.store(now, std::memory_order_relaxed);
  activity.unfinished.store(unfinished, std::memory_order_release);
  own.work = work;
  activity.busy_permille.store(own.gaps.busy_permille(), std::memory_order_relaxed);
  const bool saturates = own.gaps.saturates();
  activity.saturates.store(saturates, std::memory_order_relaxed);
  activity.active.store(active, std::memory_order_release);
  if (!active)
    own.last_ns = 0;  // the next look comes with the next work: what lies between is not used
  const bool drained = finished && activity.drains.load(std::memory_order_acquire);
  return active != was_active || was_filling != saturates || drained;
}

struct Sight {
  bool active = false;
  bool work = false;
  bool open = false;
  bool drains = false;
  bool changed = false;
};

Sight look_at_all() {
  Sight sight;
  looking.store(true, std::memory_order_seq_cst);
  if (!stopping.load(std::memory_order_seq_cst)) {
    const bool rung = submitted.exchange(false, std::memory_order_acq_rel);
    for (uint32_t i = 0; i < kGpus; ++i) {
      if (!activities[i].watched.load(std::memory_order_acquire)) continue;
      sight.changed = look(i, rung) || sight.changed;
      sight.active = sight.active || activities[i].active.load(std::memory_order_relaxed);
      sight.work = sight.work || privates[i].work;
      sight.drains = sight.drains || activities[i].drains.load(std::memory_order_relaxed);
      sight.open = sight.open || activities[i].open.load(std::memory_order_relaxed);
    }
  }
  looking.store(false, std::memory_order_seq_cst);
  return sight;
}

uint64_t pause_after(const Sight& sight) {
  if (sight.drains) return kLookDrainsNs;
  if (!sight.active) return kForgetNs;
  if (!sight.work) return kSettleNs;
  switch (pace.load(std::memory_order_relaxed)) {
    case Pace::kAlone:
      return kLookAloneNs;
    case Pace::kBeside:
      return kLookBesideNs;
    default:
      return sight.open ? kLookWindowsNs : kLookClosedNs;
  }
}

void* prober_main(void*) {
  name_guest_thread("allot-prober");
  while (!stopping.load(std::memory_order_acquire)) {
    const uint32_t seen = prober_wake_seq.load(std::memory_order_acquire);
    const Sight sight = look_at_all();
    if (!sight.work) submit_watch.fetch_or(kWakeOnSubmit, std::memory_order_acq_rel);
    if (!sight.active) {
      idle.store(true, std::memory_order_seq_cst);
      // A submission between the look and this has rung already and found us not idle: look again.
      if (submitted.load(std::memory_order_seq_cst)) {
        idle.store(false, std::memory_order_seq_cst);
        continue;
      }
    }
    if (sight.active) watch_agent();
    if (sight.changed) wake_agent();
    sys::futex_wait(&prober_wake_seq, seen, pause_after(sight), sys::FutexScope::kPrivate);
  }
  return nullptr;
}

}  // namespace

Activity& activity_of(uint32_t ordinal) {
  return activities[ordinal < kGpus ? ordinal : kGpus - 1];
}

void note_open(Activity& activity, bool open, uint64_t at_ns) {
  if (open == activity.open.load(std::memory_order_relaxed)) return;
  if (!open) {
    const uint64_t since = activity.open_since_ns.load(std::memory_order_relaxed);
    const uint64_t ran = at_ns > since ? at_ns - since : 0;
    activity.open.store(false, std::memory_order_release);
    activity.open_sum_ns.fetch_add(ran, std::memory_order_acq_rel);
    return;
  }
  activity.open_since_ns.store(at_ns, std::memory_order_release);
  activity.open.store(true, std::memory_order_release);
}

void set_pace(Pace now) {
  if (pace.exchange(now, std::memory_order_acq_rel) < now) wake_prober();
}

bool start_prober() {
  stopping.store(false);
  wake_handler.store(on_submission, std::memory_order_release);
  submit_watch.fetch_or(kWakeOnSubmit, std::memory_order_acq_rel);
  return start_guest_thread(prober_main);
}

void wake_prober() {
  prober_wake_seq.fetch_add(1, std::memory_order_acq_rel);
  sys::futex_wake(&prober_wake_seq, sys::FutexScope::kPrivate);
}

void stop_prober() {
  stopping.store(true, std::memory_order_seq_cst);
  wake_prober();
  const uint64_t begin = sys::monotonic_ns();
  while (looking.load(std::memory_order_seq_cst) && sys::monotonic_ns() - begin < 20'000'000) {
    sched_yield();
  }
}

void forget_activity() {
  for (Activity& activity : activities) {
    activity.active.store(false);
    activity.unfinished.store(false);
    activity.drains.store(false);
    activity.saturates.store(true);
    activity.watched.store(false);
    activity.open.store(true);
    activity.undisturbed.store(true);
    activity.part_permille.store(core::kWhole);
    activity.open_sum_ns.store(0);
    activity.open_since_ns.store(0);
    activity.client.store(nullptr);
  }
  for (Private& own : privates) own = {};
  idle.store(true);
  submitted.store(false);
  pace.store(Pace::kAlone);
  looking.store(false);
}

}  // namespace allot::shim
