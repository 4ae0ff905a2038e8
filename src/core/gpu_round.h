// One round of an agent on one GPU: in which order its parts act. This is the only place that says
// so.
//
//   1 place     a client of the slice, where there is a context; without one nothing is held
//   2 level     by its channels, at the gate, or not at all; tried before it is used
//   3 late      channels that came while the others were stopped are stopped, too
//   4 drain     what ran behind the closed gate counts until it has ended
//   5 plan      what all agents compute; seen from so far ahead as the next edge's call takes
//   6 ceiling   may close what the plan opens, never the other way round
//   7 edge      the window begins or ends: by the channels, after the timeslice for it; or at the
//               gate, after it is said whether submissions pass it and when it is going to close
//   8 publish   for the neighbours and `ps`, what is true after all that
//
// A call that the driver refuses, in 2, 3 or 7, opens everything at once, and the gate holds from
// then on: 7 closes it in the same round if it has to be closed. An edge comes after the ceiling
// and the plan because it is what both decide; what is published comes last, so that no neighbour
// ever reads of a window before it is so. The rescue of a process whose agent is lost
// (shim/time/agent_watchdog.h) is another thread's and no step of a round.
//
// `Parts` does what each step says, on a real process (shim/time/agent_gpu.h) or in a test, on a
// virtual clock and without threads (gpu_round_test.cc):
//   GpuMachine& machine();
//   bool look_for_channels();               // are there any
//   bool take_place(bool channels);
//   LevelFacts level_facts(bool channels);
//   AllotLevelReason try_channels();        // NONE = the driver answers both calls
//   bool channels_run();                    // those known now
//   bool act(const GpuStep&, GpuEvent, uint64_t at_ns);     // false: the driver refused
//   bool drained(uint64_t now_ns, uint64_t* ended_ns);
//   TimeGrant plan(uint64_t at_ns, GpuScene*);
//   uint64_t hold_ceiling(uint64_t now_ns, uint64_t at_ns, bool open, TimeGrant*);
//   void ready_gate(bool needed, uint64_t closes_at_ns);
//   bool set_timeslice(const TimeGrant&, const GpuScene&);  // false: the driver refused
//   bool publish(const TimeGrant&, const GpuScene&);        // whether the neighbours should know
//   uint64_t lead_ns();                     // how long before an edge its call has to be made
#pragma once

#include <cstdint>

#include "core/gpu_machine.h"
#include "core/time_policy.h"

namespace allot::core {

// What surrounds a slice on a GPU in this round.
struct GpuScene {
  uint32_t active = 0;      // slices with work
  uint32_t processes = 1;   // of ours, with work
  uint32_t part = kWhole;   // of the GPU while ours runs, beside the others
  bool undisturbed = true;  // no other slice runs beside ours
  bool mine_active = false;
  bool limited = false;  // a ceiling is on us
  bool granted = false;  // a share, a ceiling or a priority
  bool frozen = false;
  bool crowded = false;  // by older slices: nobody weighs us, and nothing but a freeze holds us
};

struct GpuRoundEnd {
  bool placed;        // else the rest says nothing
  uint64_t until_ns;  // no edge before
  bool windows;       // are to be kept
  bool news;          // what the neighbours see of us has changed
  GpuScene scene;
};

// An event, and what it asks for. A refusal leads on to the gate.
template <class Parts>
void gpu_event(Parts& parts, GpuEvent event, AllotLevelReason refused, uint64_t at_ns = 0) {
  if (parts.act(parts.machine().on(event), event, at_ns)) return;
  parts.act(parts.machine().on(GpuEvent::kRefused, refused), GpuEvent::kRefused, 0);
}

template <class Parts>
void gpu_level(Parts& parts, bool channels) {
  GpuMachine& machine = parts.machine();
  const LevelFacts facts = parts.level_facts(channels);
  if (!machine.decides_again(facts)) return;
  gpu_event(parts, GpuEvent::kAgain, ALLOT_REASON_CONTROL);
  AllotLevelReason reason = ALLOT_REASON_NONE;
  GpuEvent event = GpuMachine::decide(facts, &reason);
  if (event == GpuEvent::kChannels) {
    reason = parts.try_channels();
    if (reason != ALLOT_REASON_NONE) event = GpuEvent::kGate;
  }
  if (event != GpuEvent::kAgain) parts.act(machine.on(event, reason), event, 0);
}

template <class Parts>
GpuRoundEnd gpu_round(Parts& parts, uint64_t now_ns) {
  GpuMachine& machine = parts.machine();
  GpuRoundEnd end = {};
  const bool channels = parts.look_for_channels();
  if (!parts.take_place(channels)) {
    gpu_event(parts, GpuEvent::kNoPlace, ALLOT_REASON_CONTROL);
    return end;
  }
  end.placed = true;
  parts.act(machine.on(GpuEvent::kPlace), GpuEvent::kPlace, 0);
  gpu_level(parts, channels);
  if (machine.state() == GpuState::kStopped && channels && parts.channels_run()) {
    gpu_event(parts, GpuEvent::kLate, ALLOT_REASON_CONTROL);
  }
  uint64_t ended_ns = now_ns;
  if (at_gate(machine.state()) && parts.drained(now_ns, &ended_ns)) {
    gpu_event(parts, GpuEvent::kDrained, ALLOT_REASON_CONTROL, ended_ns);
  }
  const uint64_t at = now_ns + parts.lead_ns();
  TimeGrant grant = parts.plan(at, &end.scene);
  if (end.scene.crowded && !end.scene.frozen) grant = {true, UINT64_MAX, 0, kWhole};
  end.until_ns = grant.until_ns;
  const uint64_t ceiling_until = parts.hold_ceiling(now_ns, at, lets_run(machine.state()), &grant);
  if (ceiling_until < end.until_ns) end.until_ns = ceiling_until;
  const GpuEvent edge = grant.open ? GpuEvent::kOpen : GpuEvent::kClose;
  if (by_channels(machine.state())) {
    if (!parts.set_timeslice(grant, end.scene)) {
      parts.act(machine.on(GpuEvent::kRefused, ALLOT_REASON_CONTROL), GpuEvent::kRefused, 0);
    } else {
      gpu_event(parts, edge, ALLOT_REASON_CONTROL);
    }
  }
  // Also where the channels were refused just now: the gate takes the edge over.
  if (at_gate(machine.state())) {
    parts.ready_gate(end.scene.limited || end.scene.active > 1 || end.scene.frozen,
                     grant.open ? end.until_ns : UINT64_MAX);
    gpu_event(parts, edge, ALLOT_REASON_CONTROL);
  }
  end.news = parts.publish(grant, end.scene);
  end.windows = end.scene.limited || grant.window_permille < kWhole;
  if (end.until_ns != UINT64_MAX) {
    const uint64_t lead = parts.lead_ns();
    end.until_ns = end.until_ns > lead ? end.until_ns - lead : 0;
  }
  return end;
}

}  // namespace allot::core
