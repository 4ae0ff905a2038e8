// One GPU in this process, as its agent holds it: the parts that a round calls on
// (core/gpu_round.h), on the process's own channels, gate and client.
//
//     core/gpu_machine.h   the states, and what is done between them
//     core/gpu_round.h     the order in which the parts act
//     agent_gpu.cc         place, level, channels, gate: what the acts do
//     agent_gpu_plan.cc    plan, ceiling, use, and what is published
//
// Used by the agent's thread only. Of what other threads see, it writes: its client in the slice's
// file, the agent's half of Activity (prober.h), and the gate's words by gate_vote.h.
#pragma once

#include <cstdint>

#include "core/gpu_round.h"
#include "core/time_debt.h"
#include "core/time_policy.h"
#include "core/time_use.h"
#include "core/window_ceiling.h"
#include "shim/time/channels.h"
#include "shim/time/gate_vote.h"
#include "shim/time/neighbours.h"
#include "shim/time/prober.h"

namespace allot::shim {

// What a round needs room for; one for all GPUs of the process. [0] is the own slice.
struct PlanRoom {
  Neighbour neighbours[core::kMaxSlicesOnGpu];
  core::SliceDemand slices[core::kMaxSlicesOnGpu];
  core::TimeGrant grants[core::kMaxSlicesOnGpu];
};

class GpuAgent {
 public:
  struct Outcome {
    uint64_t until_ns;  // nothing to do before, unless somebody rings
    Pace pace;          // how often to look at the work
    bool news;          // what the neighbours see of us has changed
  };

  void assign(uint32_t ordinal, PlanRoom* room);
  // A round. Blocks for as long as its RM calls take.
  Outcome step(uint64_t now_ns);

  // An eviction. detach(): lets everything run and forgets the channels; the descriptors are
  // rm_tracker's to close, after all GPUs'. show_detached(): says so, again and again until
  // reattach(). The two together are also for an agent that was taken for lost.
  void detach();
  void show_detached(uint64_t now_ns);
  void reattach();

  // The process has more channels there than can be stopped.
  bool more_channels() const { return channels_.more(); }

  // ---- for core::gpu_round, which says what each has to do -------------------------------------
  core::GpuMachine& machine() { return machine_; }
  bool look_for_channels();
  bool take_place(bool channels);
  core::LevelFacts level_facts(bool channels) const;
  AllotLevelReason try_channels() { return channels_.probe(); }
  bool channels_run() const { return channels_.open(); }
  bool act(const core::GpuStep& step, core::GpuEvent event, uint64_t at_ns);
  bool drained(uint64_t now_ns, uint64_t* ended_ns);
  core::TimeGrant plan(uint64_t at_ns, core::GpuScene* scene);
  uint64_t hold_ceiling(uint64_t now_ns, uint64_t at_ns, bool open, core::TimeGrant* grant);
  void ready_gate(bool needed, uint64_t closes_at_ns);
  bool set_timeslice(const core::TimeGrant& grant, const core::GpuScene& scene);
  bool publish(const core::TimeGrant& grant, const core::GpuScene& scene);
  uint64_t lead_ns() const;

 private:
  bool open() const { return core::lets_run(machine_.state()); }
  bool active() const;
  void forget_history();
  bool switch_channels(bool open, bool retry);
  void note(bool running, uint64_t at_ns);
  void look_beside(uint32_t count, core::GpuScene* scene);
  void take_turn(uint64_t at_ns, uint32_t count);
  uint32_t max_of_open_time(uint32_t max_permille);
  void look_at_use(uint64_t now_ns, const core::TimeGrant& grant, const core::GpuScene& scene);
  bool saturates() const;
  uint32_t footprint_permille() const;
  uint32_t client_flags(uint64_t now_ns, const core::GpuScene& scene, bool credit);

  uint32_t ordinal_ = 0;
  PlanRoom* room_ = nullptr;
  core::GpuMachine machine_;
  AllotGpuClient* client_ = nullptr;
  bool placed_ = false;  // at the last act
  Channels channels_;
  AgentGate gate_;
  core::WindowCeiling ceiling_;
  core::OverrunDebt debt_;  // at level launch
  core::SliceUse use_;
  uint32_t max_in_force_ = 0;  // of its open time, so that what it uses stays below its max
  uint64_t open_cost_ns_ = kFirstCostNs;  // of the last call, smoothed
  uint64_t config_seen_ = 0;
  uint64_t present_until_ns_ = 0;
  uint64_t awake_until_ns_ = 0;

  static constexpr uint64_t kFirstCostNs = 500'000;
};

}  // namespace allot::shim
