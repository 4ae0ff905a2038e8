// See gate_vote.h.
#include "shim/time/gate_vote.h"

#include "shim/process/process.h"
#include "shim/time/launch_gate.h"
#include "shim/time/prober.h"
#include "shim/time/streams.h"
#include "shim/time/submit.h"

namespace allot::shim {
namespace {

constexpr uint64_t kLongNs = 1'000'000;
constexpr uint32_t kGpus = kMaxDevices;  // by ordinal

// Of all GPUs: who wants it closed, and when each is going to.
constinit uint64_t votes = 0;
constinit uint64_t ends_ns[kGpus] = {};  // 0 = not soon

}  // namespace

void AgentGate::set_open(bool open, uint64_t now_ns) {
  const uint64_t mine = uint64_t{1} << (ordinal_ % kGpus);
  votes = open ? votes & ~mine : votes | mine;
  if (votes == 0) {
    gate_open();
  } else {
    gate_close();
  }
  if (open_ == open) return;
  open_ = open;
  draining_ = !open;
  closed_ns_ = now_ns;
  activity_of(ordinal_).drains.store(draining_, std::memory_order_release);
  if (draining_) wake_prober();
}

void AgentGate::closes_at(uint64_t ns) {
  ends_ns[ordinal_ % kGpus] = ns == UINT64_MAX ? 0 : ns;
  uint64_t first = UINT64_MAX;
  for (const uint64_t end : ends_ns) {
    if (end != 0 && end < first) first = end;
  }
  gate_closes_at(first);
}

void AgentGate::guard(bool needed) {
  if (needed) {
    submit_watch.fetch_or(kGate, std::memory_order_acq_rel);
    if (!open_) gate_close();
  } else if (open_ && votes == 0) {
    submit_watch.fetch_and(~kGate, std::memory_order_acq_rel);
  }
}

bool AgentGate::drains_long(uint64_t now_ns) const {
  return draining_ && now_ns - closed_ns_ > kLongNs;
}

bool AgentGate::drained(uint64_t now_ns, uint64_t* ended_ns) {
  Activity& activity = activity_of(ordinal_);
  if (!draining_ || !gate_drained()) return false;
  // Where the driver cannot be asked about all streams, the markers alone tell.
  if (activity.unfinished.load(std::memory_order_acquire) && all_streams_are_known()) return false;
  draining_ = false;
  activity.drains.store(false, std::memory_order_release);
  const uint64_t before = activity.unfinished_ns.load(std::memory_order_relaxed);
  const uint64_t after = activity.finished_ns.load(std::memory_order_relaxed);
  const uint64_t middle = after > before ? before + (after - before) / 2 : now_ns;
  *ended_ns = middle < closed_ns_ ? closed_ns_ : middle > now_ns ? now_ns : middle;
  return true;
}

void forget_gate_votes() {
  votes = 0;
  for (uint64_t& end : ends_ns) end = 0;
}

}  // namespace allot::shim
