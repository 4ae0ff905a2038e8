// What the acts of core/gpu_machine.h do to this process's channels and gate. See agent_gpu.h.
//
// Edges. A window begins when the channels have been enabled and ends when they have been disabled;
// both calls take about half a millisecond. So the next one's channels are enabled before the edge,
// early by what that call cost last time, and only at the edge the last one's are disabled: there
// is no moment in which the card has no work. (Measured on an H200 with periods of 20 ms: 96.8 % of
// one alone in sum; closing early by half the cost of the call 96.0, by all of it 95.1, opening at
// the edge 95.0.)
#include "shim/time/agent_gpu.h"

#include "core/shared.h"
#include "shim/process/process.h"
#include "shim/time/gpu_clients.h"
#include "shim/time/submit.h"
#include "sys/clock.h"

namespace allot::shim {

using core::GpuEvent;
using core::GpuState;
using core::load;
using core::store;

namespace {

constexpr uint64_t kDrainLookNs = 2'000'000;  // the prober wakes us when it has ended

uint64_t smooth(uint64_t before, uint64_t now) {
  const uint64_t bounded = now < 3'000'000 ? now : 3'000'000;
  return (before * 7 + bounded) / 8;
}

}  // namespace

void GpuAgent::assign(uint32_t ordinal, PlanRoom* room) {
  *this = GpuAgent{};
  ordinal_ = ordinal;
  room_ = room;
  gate_.assign(ordinal);
}

// Of work that was on the GPU before its place was given back.
void GpuAgent::forget_history() {
  ceiling_ = core::WindowCeiling{};
  debt_.forget();
  use_ = core::SliceUse{};
  max_in_force_ = 0;
  open_cost_ns_ = kFirstCostNs;
  config_seen_ = 0;
  present_until_ns_ = 0;
  awake_until_ns_ = 0;
}

bool GpuAgent::active() const {
  return activity_of(ordinal_).active.load(std::memory_order_acquire);
}

// ---- what a round asks for ---------------------------------------------------------------------

bool GpuAgent::look_for_channels() {
  return channels_.refresh(static_cast<int>(ordinal_));
}

// Where the process has, or makes, a context it has a place (gpu_clients.h); elsewhere nothing is
// to be held.
bool GpuAgent::take_place(bool channels) {
  client_ = client_on(ordinal_, channels);
  return client_ != nullptr;
}

core::LevelFacts GpuAgent::level_facts(bool channels) const {
  return {static_cast<AllotLevel>(load(process.slice.file->header.level) & 3u), channels,
          channels_.more(), activity_of(ordinal_).unfinished.load(std::memory_order_acquire)};
}

uint64_t GpuAgent::lead_ns() const {
  return machine_.state() == GpuState::kStopped ? open_cost_ns_ : 0;
}

void GpuAgent::ready_gate(bool needed, uint64_t closes_at_ns) {
  gate_.guard(needed);
  gate_.closes_at(closes_at_ns);
}

bool GpuAgent::set_timeslice(const core::TimeGrant& grant, const core::GpuScene& scene) {
  if (!grant.open || !scene.mine_active) return true;
  if (scene.active < 2) return true;  // alone: whatever it is does no harm
  uint32_t slice = grant.timeslice_us / scene.processes;
  if (slice == 0) slice = grant.timeslice_us != 0 ? 1 : 0;
  return channels_.set_timeslice(slice);
}

// What ran behind the closed gate counts until it has ended.
bool GpuAgent::drained(uint64_t now_ns, uint64_t* ended_ns) {
  const bool draining = machine_.state() == GpuState::kDrains;
  const bool ended = draining && gate_.drained(now_ns, ended_ns);
  debt_.account(now_ns, draining || (open() && active()));
  if (ended) debt_.refund(now_ns - *ended_ns);
  return ended;
}

// ---- acts --------------------------------------------------------------------------------------

// Channels may come or go under a call: then once more with what is known now.
bool GpuAgent::switch_channels(bool open, bool retry) {
  if (open && channels_.more()) {
    channels_.let_all_run(static_cast<int>(ordinal_));
    return true;
  }
  if (channels_.set_open(open)) return true;
  if (!retry) return false;
  channels_.refresh(static_cast<int>(ordinal_));
  return channels_.set_open(open);
}

void GpuAgent::note(bool running, uint64_t at_ns) {
  note_open(activity_of(ordinal_), running, at_ns);
  ceiling_.run(at_ns, running && active());
  if (running) wake_prober();
}

bool GpuAgent::act(const core::GpuStep& step, GpuEvent event, uint64_t at_ns) {
  const auto asked = [&](core::GpuAct act) { return (step.acts & act) != 0; };
  const bool again =
      event != GpuEvent::kRefused;  // of a refused call only what is possible is done
  const uint64_t begin = sys::monotonic_ns();
  if (asked(core::kDisableChannels) && !switch_channels(false, again)) return false;
  if (asked(core::kEnableChannels) && !switch_channels(true, again) && again) return false;
  const uint64_t end = sys::monotonic_ns();
  if (event == GpuEvent::kOpen && asked(core::kEnableChannels)) {
    open_cost_ns_ = smooth(open_cost_ns_, end - begin);
  }
  if (asked(core::kResetTimeslices)) channels_.set_timeslice(0);
  if (asked(core::kCloseGate)) gate_.set_open(false, begin);
  if (asked(core::kOpenGate)) gate_.set_open(true, begin);
  // Seen on an H100: work runs from the end of the call that enables its channels, and up to the
  // middle of the one that disables them (10 % and 25 % ceilings agree with throughput within 0.2
  // ms a window).
  if (asked(core::kNoteStopped)) note(false, at_ns != 0 ? at_ns : begin + (end - begin) / 2);
  if (asked(core::kNoteRunning)) note(true, end);
  if (asked(core::kUnguard)) {
    gate_.closes_at(UINT64_MAX);
    gate_.guard(false);
  }
  if (asked(core::kForgetDebt)) debt_.forget();
  if (asked(core::kForgetChannels)) channels_ = Channels{};
  if (event == GpuEvent::kNoPlace && placed_) forget_history();
  placed_ = step.to != GpuState::kAway;
  return true;
}

// ---- rounds ------------------------------------------------------------------------------------

GpuAgent::Outcome GpuAgent::step(uint64_t now_ns) {
  const core::GpuRoundEnd end = core::gpu_round(*this, now_ns);
  if (!end.placed) return {UINT64_MAX, Pace::kAlone, false};
  const core::GpuScene& scene = end.scene;
  const Pace pace = !scene.mine_active || (scene.active < 2 && !scene.limited) ? Pace::kAlone
                    : end.windows                                              ? Pace::kWindows
                                                                               : Pace::kBeside;
  uint64_t until = end.until_ns;
  if (machine_.state() == GpuState::kDrains) {
    const uint64_t look = sys::monotonic_ns() + kDrainLookNs;
    if (look < until) until = look;
  }
  return {until, pace, end.news};
}

void GpuAgent::detach() {
  core::gpu_event(*this, GpuEvent::kEvicted, ALLOT_REASON_CONTROL);
  ceiling_.run(sys::monotonic_ns(), false);
}

void GpuAgent::show_detached(uint64_t now_ns) {
  AllotSlot& slot = process.slice.file->slots[process.slot.index];
  const bool at_work = active();
  if (at_work || watched_calls_under_way() != 0) store(slot.wants, 1u);
  if (!take_place(false)) return;
  const uint32_t slice = load(process.slice.file->header.flags);
  uint32_t flags = ALLOT_CLIENT_OPEN | ALLOT_CLIENT_DETACHED | (at_work ? ALLOT_CLIENT_ACTIVE : 0u);
  // What is not on the card stands still; frozen again when it comes back.
  if ((slice & ALLOT_SLICE_FROZEN) != 0 && load(slot.evicted) != 0) flags |= ALLOT_CLIENT_FROZEN;
  store(client_->heartbeat_ns, now_ns);
  store(client_->flags, flags);
}

// Its channels may be others now, and may be held in another way.
void GpuAgent::reattach() {
  core::gpu_event(*this, GpuEvent::kRestored, ALLOT_REASON_CONTROL);
}

}  // namespace allot::shim
