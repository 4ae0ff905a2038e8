// See gpu_clients.h.
#include "shim/time/gpu_clients.h"

#include <sched.h>

#include <atomic>

#include "core/shared.h"
#include "shim/process/log.h"
#include "shim/process/process.h"
#include "shim/process/submit_watch.h"
#include "shim/time/prober.h"
#include "shim/time/rm_tracker.h"
#include "shim/time/streams.h"
#include "shim/time/tables.h"
#include "shm/time_view.h"
#include "sys/clock.h"

namespace allot::shim {
namespace {

constexpr uint64_t kKeepNs = 500'000'000;
constexpr uint64_t kLetGoNs = 100'000'000;  // the prober may be adding up a last look
constexpr uint64_t kPatienceNs = 2'000'000'000;
constexpr uint64_t kReclaimEveryNs = 1'000'000'000;

// Who takes a place or gives one back: one thread at a time. Written by that thread; and by the
// prober, for an agent that was lost in there.
enum Taker : uint32_t { kNobody, kProgram, kAgent };
constinit std::atomic<uint32_t> taker{kNobody};
constinit std::atomic<uint64_t> reclaimed_ns{0};  // by the taker
// By the agent; by the prober when the agent is lost; at the start where none can be had.
constinit std::atomic<uint32_t> nobody_holds{ALLOT_REASON_NONE};

// The agent's own, by ordinal.
struct Mine {
  uint64_t wanted_ns;       // last; 0: not since the place was taken
  AllotGpuClient* leaving;  // given up, not given back yet
  uint64_t left_ns;
};
constinit Mine mine[kMaxDevices] = {};
constinit uint64_t placeless = 0;  // works there without a place; a bit for each ordinal
constinit uint64_t crowded_out = 0;

uint32_t gpu_of(uint32_t ordinal) {
  return static_cast<uint32_t>(process.devices[ordinal].gpu);
}

// In the process's slot, for `ps`.
void say_unheld(uint32_t ordinal, bool unheld) {
  uint32_t& gpus = process.slice.file->slots[process.slot.index].unheld_gpus;
  const uint32_t bit = 1u << gpu_of(ordinal);
  if (((core::load(gpus) & bit) != 0) == unheld) return;
  if (!unheld) {
    __atomic_fetch_and(&gpus, ~bit, __ATOMIC_RELAXED);
    return;
  }
  __atomic_fetch_or(&gpus, bit, __ATOMIC_RELAXED);
  // Without a limit of time there is nothing to hold: the slot alone says it, for a freeze.
  if (!time_limited()) return;
  log_no_slice("its GPU time cannot be held: the slice has 256 GPU clients already", 0,
               must_hold_time());
}
static_assert(ALLOT_MAX_CLIENTS == 256, "the message says so");

void obey_rule() {
  const bool unknown = (full_tables() & ALLOT_TABLE_CONTEXTS) != 0;  // contexts nobody can ask
  const bool refuse = ((placeless | crowded_out) != 0 || unknown) && must_hold_time();
  const bool refused = (submit_watch.load(std::memory_order_relaxed) & kUnheld) != 0;
  if (refuse && !refused) submit_watch.fetch_or(kUnheld, std::memory_order_acq_rel);
  if (!refuse && refused) submit_watch.fetch_and(~kUnheld, std::memory_order_acq_rel);
}

void mark(uint64_t* mask, uint32_t ordinal, bool on) {
  const uint64_t bit = uint64_t{1} << ordinal;
  *mask = on ? *mask | bit : *mask & ~bit;
}

Result<uint32_t> take_any(uint32_t gpu) {
  const Result<uint32_t> index = shm::take_client(process.slice, process.slot, gpu);
  const uint64_t now = sys::monotonic_ns();
  if (index || now - reclaimed_ns.load(std::memory_order_relaxed) < kReclaimEveryNs) return index;
  reclaimed_ns.store(now, std::memory_order_relaxed);
  if (shm::reclaim_dead(process.slice) == 0) return index;
  return shm::take_client(process.slice, process.slot, gpu);
}

bool begin_taking(Taker who) {
  uint32_t nobody = kNobody;
  return taker.compare_exchange_strong(nobody, who, std::memory_order_acquire);
}

void end_taking(Taker who) {
  uint32_t held = who;
  taker.compare_exchange_strong(held, kNobody, std::memory_order_release);
}

// The reason comes last: whoever reads it finds the rest.
void say_not_held(AllotGpuClient& client, uint32_t reason) {
  core::store(client.level, static_cast<uint32_t>(ALLOT_LEVEL_OBSERVE));
  core::store(client.flags, ALLOT_CLIENT_OPEN | ALLOT_CLIENT_ACTIVE);
  core::store(client.reason, reason);
}

// Only the taker calls it.
AllotGpuClient* take(uint32_t ordinal) {
  Activity& activity = activity_of(ordinal);
  AllotGpuClient* client = activity.client.load(std::memory_order_acquire);
  if (client != nullptr) return client;
  const Result<uint32_t> index = take_any(gpu_of(ordinal));
  say_unheld(ordinal, !index);
  if (!index) return nullptr;
  client = &process.slice.file->clients[*index];
  const uint32_t reason = nobody_holds.load(std::memory_order_acquire);
  if (reason != ALLOT_REASON_NONE) say_not_held(*client, reason);
  activity.client.store(client, std::memory_order_release);
  activity.watched.store(true, std::memory_order_release);
  return client;
}

void give_up(uint32_t ordinal, AllotGpuClient* client, uint64_t now_ns) {
  Activity& activity = activity_of(ordinal);
  activity.watched.store(false, std::memory_order_release);
  activity.client.store(nullptr, std::memory_order_release);
  core::store(client->flags, 0u);
  mine[ordinal].wanted_ns = 0;
  mine[ordinal].leaving = client;
  mine[ordinal].left_ns = now_ns;
}

}  // namespace

bool ready_for_context(CUdevice ordinal) {
  const uint32_t at = static_cast<uint32_t>(ordinal);
  if (!room_for_context() && must_hold_time()) {
    table_full(ALLOT_TABLE_CONTEXTS);
    return false;
  }
  if (activity_of(at).client.load(std::memory_order_acquire) != nullptr) return true;
  const uint64_t begin = sys::monotonic_ns();
  while (!begin_taking(kProgram)) {
    sched_yield();
    // The agent needs microseconds: it was lost in there, where nobody minds it yet.
    if (sys::monotonic_ns() - begin > kPatienceNs) end_taking(kAgent);
  }
  const bool taken = take(at) != nullptr;
  end_taking(kProgram);
  return taken || !must_hold_time();
}

AllotGpuClient* client_on(uint32_t ordinal, bool channels) {
  Activity& activity = activity_of(ordinal);
  Mine& own = mine[ordinal];
  const uint64_t now = sys::monotonic_ns();
  AllotGpuClient* client = activity.client.load(std::memory_order_acquire);
  const bool wanted = channels || making_context_on(static_cast<int>(ordinal)) ||
                      has_context_on(static_cast<CUdevice>(ordinal)) ||
                      activity.active.load(std::memory_order_acquire);
  // A place that another thread takes is wanted: it makes its context until that is known.
  if (wanted) own.wanted_ns = now;
  if (own.leaving != nullptr && now - own.left_ns >= kLetGoNs && begin_taking(kAgent)) {
    // Taken again meanwhile, it is in use.
    client = activity.client.load(std::memory_order_acquire);
    if (own.leaving != client) core::store(own.leaving->owner, uint64_t{0});
    own.leaving = nullptr;
    end_taking(kAgent);
  }
  if (client != nullptr && !wanted && now - own.wanted_ns >= kKeepNs && own.leaving == nullptr &&
      nobody_holds.load(std::memory_order_relaxed) == ALLOT_REASON_NONE) {
    if (!begin_taking(kAgent)) return client;
    // A context may have been begun since: it has the place then, or takes it again.
    if (!making_context_on(static_cast<int>(ordinal))) {
      give_up(ordinal, client, now);
      client = nullptr;
    }
    end_taking(kAgent);
  }
  if (client == nullptr && wanted && begin_taking(kAgent)) {
    client = take(ordinal);
    end_taking(kAgent);
  }
  mark(&placeless, ordinal, wanted && client == nullptr);
  if (client == nullptr) mark(&crowded_out, ordinal, false);
  obey_rule();
  return client;
}

void say_crowded_out(uint32_t ordinal, bool crowded) {
  mark(&crowded_out, ordinal, crowded);
  obey_rule();
}

void say_nobody_holds(AllotLevelReason reason) {
  nobody_holds.store(reason, std::memory_order_release);
  end_taking(kAgent);  // it may have been lost in there
  for (uint32_t i = 0; i < process.device_count; ++i) {
    if (process.devices[i].gpu < 0) continue;
    const std::atomic<AllotGpuClient*>& place = activity_of(i).client;
    const CUdevice ordinal = static_cast<CUdevice>(i);
    if (place.load(std::memory_order_acquire) == nullptr && has_context_on(ordinal)) {
      ready_for_context(ordinal);
    }
    AllotGpuClient* client = place.load(std::memory_order_acquire);
    if (client != nullptr && core::load(client->reason) != uint32_t{reason}) {
      say_not_held(*client, reason);
    }
  }
}

void say_agent_holds() {
  nobody_holds.store(ALLOT_REASON_NONE, std::memory_order_release);
}

void forget_gpu_clients() {
  taker.store(kNobody);
  nobody_holds.store(ALLOT_REASON_NONE);
  placeless = 0;
  crowded_out = 0;
  for (Mine& one : mine) one = {};
  submit_watch.fetch_and(~kUnheld, std::memory_order_acq_rel);
}

}  // namespace allot::shim
