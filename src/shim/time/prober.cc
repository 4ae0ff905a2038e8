// See prober.h.
#include "shim/time/prober.h"

#include <pthread.h>

#include "core/counters.h"
#include "core/shared.h"
#include "core/time_gaps.h"
#include "core/time_policy.h"
#include "shim/nvml/client.h"
#include "shim/process/burst_counter.h"
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

constexpr uint32_t kGpus = kMaxDevices;  // by ordinal: some of them may not be the slice's
constexpr uint64_t kLookDrainsNs = 500'000;
constexpr uint64_t kLookWindowsNs = 2'000'000;
constexpr uint64_t kLookClosedNs = 5'000'000;
constexpr uint64_t kLookBesideNs = 10'000'000;
constexpr uint64_t kLookAloneNs = 220'000'000;
constexpr uint64_t kSettleNs = 2'500'000;  // between "nothing unfinished" and "idle"
constexpr uint64_t kForgetNs = 60'000'000'000;
constexpr uint64_t kMostPerLookNs = 20'000'000;
constexpr uint64_t kMostAloneNs = 300'000'000;
constexpr uint64_t kAskNvmlNs = 1'000'000'000;
constexpr uint64_t kSteadyPermille = 50;
constexpr uint64_t kIdleForNvmlNs = 25'000'000;

struct Private {
  core::GapWatch gaps;
  bool work = false;          // at the last look
  uint64_t last_ns = 0;       // of the last look
  uint64_t open_time_ns = 0;  // at the last look
  uint64_t busy_ns = 0;       // when there was work last
  uint64_t bursts = 0;        // at the last look
  uint64_t asked_ns = 0;      // NVML, or when it was last disturbed or idle
  uint64_t asked_open_ns = 0;
  uint32_t asked_part = 0;                      // of that span, its work could run, in permille
  uint32_t busy_at_random = core::kWhole * 16;  // smoothed; sixteenths of a permille
};

constinit Activity activities[kGpus] = {};
constinit Private privates[kGpus] = {};
constinit std::atomic<uint32_t> prober_wake_seq{0};  // whoever wakes it
constinit std::atomic<Pace> pace{Pace::kAlone};      // the agent
// Set by a thread that submits, taken back by the prober.
constinit std::atomic<bool> submitted{false};
constinit std::atomic<bool> woken{false};  // the next look is no sample
constinit std::atomic<bool> idle{true};    // every GPU has been said to be idle; set by the prober
constinit std::atomic<bool> stopping{false};  // the thread that starts it, or exits
constinit std::atomic<bool> looking{false};   // the prober

// In a submitting thread, after it has cleared kWakeOnSubmit.
void on_submission() {
  submitted.store(true, std::memory_order_release);
  if (!idle.exchange(false, std::memory_order_acq_rel)) return;
  for (Activity& activity : activities) {
    if (activity.watched.load(std::memory_order_acquire)) {
      activity.active.store(true, std::memory_order_release);
    }
  }
  woken.store(true, std::memory_order_release);
  wake_agent();
  wake_prober();
}

// How long its work had been let run up to `now_ns`. The two words may be of different changes:
// then the answer is off by the time between them, once.
uint64_t open_time_ns(const Activity& activity, uint64_t now_ns) {
  const uint64_t sum = activity.open_sum_ns.load(std::memory_order_acquire);
  if (!activity.open.load(std::memory_order_acquire)) return sum;
  const uint64_t since = activity.open_since_ns.load(std::memory_order_acquire);
  return now_ns > since ? sum + (now_ns - since) : sum;
}

void add(uint64_t& client, uint64_t& total, uint64_t AllotCounters::*own, uint64_t ns) {
  core::count(client, ns);
  core::count(total, ns);
  AllotSliceFile& file = *process.slice.file;
  const uint32_t slot = process.slot.index;
  AllotCounters* counters = core::counters_of(file, slot, core::load(file.slot_words[slot]));
  if (counters != nullptr) core::count(counters->*own, ns);
}

// Of the `whole_ns` since the last look with work, `open_ns` were let run, and `bursts` have ended.
void account(Activity& activity, bool work, uint64_t whole_ns, uint64_t open_ns, uint64_t bursts) {
  AllotGpuClient* client = activity.client.load(std::memory_order_acquire);
  if (client == nullptr) return;
  const uint32_t gpu = core::load(client->gpu);
  if (gpu >= ALLOT_MAX_GPUS) return;
  AllotGpu& total = process.slice.file->gpus[gpu];
  const uint64_t part = activity.part_permille.load(std::memory_order_relaxed);
  if (open_ns > whole_ns) open_ns = whole_ns;
  const uint64_t burst_ns = activity.burst_gpu_ns.load(std::memory_order_relaxed);
  const uint64_t used = burst_ns != 0 ? burst_ns * bursts
                        : work        ? open_ns * part / core::kWhole
                                      : 0;
  add(client->used_ns, total.time_used_ns, &AllotCounters::time_used_ns,
      used < whole_ns ? used : whole_ns);
  if (work) {
    add(client->throttled_ns, total.time_throttled_ns, &AllotCounters::time_throttled_ns,
        whole_ns - open_ns);
  }
}

// A slice that leaves gaps uses less than the time in which it has unfinished work: a launch is
// under way before its kernel runs. With the GPU to itself NVML's figure is its own, of open and
// closed time alike.
void ask_nvml(uint32_t ordinal, bool work, uint64_t now_ns, uint64_t open_time_ns) {
  Activity& activity = activities[ordinal];
  Private& own = privates[ordinal];
  const bool idle_now = !work && now_ns - own.busy_ns > kIdleForNvmlNs;
  const bool wanted = activity.use_wanted.load(std::memory_order_relaxed) && !idle_now &&
                      activity.undisturbed.load(std::memory_order_relaxed);
  if (wanted && own.asked_ns != 0 && now_ns - own.asked_ns < kAskNvmlNs) return;
  const uint64_t span = now_ns - own.asked_ns;
  const uint64_t open = open_time_ns - own.asked_open_ns;
  const bool whole = own.asked_ns != 0;
  own.asked_ns = wanted ? now_ns : 0;
  own.asked_open_ns = open_time_ns;
  // NVML's second may reach back before this span: only after another one with as much open time,
  // of a program that was already at work, is its figure of the same thing.
  const uint64_t part = whole && span > 0 ? open * core::kWhole / span : 0;
  const uint64_t by = part > own.asked_part ? part - own.asked_part : own.asked_part - part;
  const bool steady = own.asked_part != 0 && by <= kSteadyPermille;
  own.asked_part = static_cast<uint32_t>(wanted ? part : 0);
  uint32_t percent = 0;
  if (!wanted || !whole || !steady || open * 20 < span) return;
  if (!nvml_busy_percent(process.devices[ordinal], &percent)) return;
  const uint64_t use = percent * uint64_t{10} * span / open;
  // Up at once and down slowly: too low a figure would let it pass its ceiling.
  const uint64_t before = activity.use_permille.load(std::memory_order_relaxed);
  const uint64_t mean = before == 0 || use > before ? use : (before * 3 + use) / 4;
  activity.use_permille.store(static_cast<uint32_t>(mean < 1              ? 1
                                                    : mean < core::kWhole ? mean
                                                                          : core::kWhole),
                              std::memory_order_relaxed);
}

// One look at one GPU. Returns whether its state has changed.
bool look(uint32_t ordinal, bool rung, bool at_random) {
  Activity& activity = activities[ordinal];
  Private& own = privates[ordinal];
  const bool was_active = activity.active.load(std::memory_order_acquire);
  const bool was_filling = activity.saturates.load(std::memory_order_relaxed);
  const bool unfinished = unfinished_work(process.devices[ordinal].gpu) != Work::kNone;
  // A thread that waits at a closed gate has work, too.
  const bool work = unfinished || gate_waiting() > 0;
  const uint64_t now = sys::monotonic_ns();
  // While its channels are being closed the sum may still be taken back a little: never let it
  // shrink.
  const uint64_t open_seen = open_time_ns(activity, now);
  const uint64_t open_time = open_seen > own.open_time_ns ? open_seen : own.open_time_ns;
  const uint64_t since = own.last_ns == 0 ? 0 : now - own.last_ns;
  const uint64_t most =
      pace.load(std::memory_order_relaxed) == Pace::kAlone ? kMostAloneNs : kMostPerLookNs;
  if (!unfinished) burst_seen_idle();
  const uint64_t bursts = burst_counts(now).bursts;
  account(activity, work, since < most ? since : most, open_time - own.open_time_ns,
          bursts > own.bursts ? bursts - own.bursts : 0);
  own.bursts = bursts;
  if (work || rung) own.busy_ns = now;
  own.gaps.look(now, open_time - own.open_time_ns,
                activity.undisturbed.load(std::memory_order_acquire), work);
  ask_nvml(ordinal, work, now, open_time);
  own.last_ns = now;
  own.open_time_ns = open_time;
  const bool active = work || (own.busy_ns != 0 && now - own.busy_ns < core::GapMeter::kIdleNs);
  const bool finished = !unfinished && activity.unfinished.load(std::memory_order_relaxed);
  if (unfinished) activity.unfinished_ns.store(now, std::memory_order_relaxed);
  if (finished) activity.finished_ns.store(now, std::memory_order_relaxed);
  activity.unfinished.store(unfinished, std::memory_order_release);
  own.work = work;
  activity.busy_permille.store(own.gaps.busy_permille(), std::memory_order_relaxed);
  activity.busy_known.store(own.gaps.knows(), std::memory_order_relaxed);
  // Behind a closed window work is always unfinished.
  if (at_random && activity.open.load(std::memory_order_acquire)) {
    own.busy_at_random = (own.busy_at_random * 31 + (unfinished ? core::kWhole * 16 : 0)) / 32;
    activity.busy_at_random_permille.store(own.busy_at_random / 16, std::memory_order_relaxed);
  }
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
    const bool at_random = !woken.exchange(false, std::memory_order_acq_rel);
    for (uint32_t i = 0; i < kGpus; ++i) {
      if (!activities[i].watched.load(std::memory_order_acquire)) continue;
      sight.changed = look(i, rung, at_random) || sight.changed;
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
  burst_clock(open, at_ns);
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
    activity.busy_known.store(false);
    activity.watched.store(false);
    activity.open.store(true);
    activity.undisturbed.store(true);
    activity.part_permille.store(core::kWhole);
    activity.open_sum_ns.store(0);
    activity.open_since_ns.store(0);
    activity.client.store(nullptr);
    activity.burst_gpu_ns.store(0);
    activity.use_permille.store(0);
    activity.use_wanted.store(false);
  }
  forget_bursts();
  for (Private& own : privates) own = {};
  idle.store(true);
  submitted.store(false);
  pace.store(Pace::kAlone);
  looking.store(false);
}

}  // namespace allot::shim
