// The agent's work on one GPU: from what the policy grants to what the channels or the gate do.
#pragma once

#include <cstdint>

#include "core/time_debt.h"
#include "core/time_policy.h"
#include "core/time_use.h"
#include "core/window_ceiling.h"
#include "shim/time/channels.h"
#include "shim/time/gate_vote.h"
#include "shim/time/neighbours.h"
#include "shim/time/prober.h"

namespace allot::shim {

class Worker {
 public:
  struct Outcome {
    uint64_t until_ns;  // nothing to do before, unless somebody rings
    Pace pace;          // how often to look at the work
    bool news;          // what the neighbours see of us has changed
  };

  void assign(uint32_t ordinal);
  Outcome step(uint64_t now_ns);

  // An eviction. detach(): lets everything run and forgets the channels; the descriptors are
  // rm_watch's to close, after all GPUs'. show_detached(): says so, again and again until
  // reattach().
  void detach();
  void show_detached(uint64_t now_ns);
  void reattach();

  // The process has more channels there than can be stopped.
  bool more_channels() const { return more_channels_; }

 private:
  struct Situation;
  bool register_client(bool channels);
  void choose_level(bool have_channels);
  AllotLevelReason fall_back(AllotLevelReason reason);
  static void look_beside(uint32_t count, Situation* situation);
  core::TimeGrant plan(uint64_t at_ns, Situation* situation);
  uint64_t lead_ns() const;
  uint32_t max_of_open_time(uint32_t max_permille);
  void look_at_use(uint64_t now_ns, const core::TimeGrant& grant, const Situation& situation);
  bool saturates() const;
  uint32_t footprint_permille() const;
  void take_turn(uint64_t at_ns, uint32_t count);
  void look_at_drain(uint64_t now_ns);
  void set_open(bool open);
  void set_timeslice(const core::TimeGrant& grant, const Situation& situation);
  bool publish(uint64_t now_ns, const core::TimeGrant& grant, const Situation& situation);

  uint32_t ordinal_ = 0;
  AllotGpuClient* client_ = nullptr;
  Channels channels_;
  core::WindowCeiling ceiling_;
  AgentGate gate_;
  core::OverrunDebt debt_;  // at level launch
  core::SliceUse use_;
  uint32_t max_in_force_ = 0;  // of its open time, so that what it uses stays below its max
  AllotLevel asked_ = ALLOT_LEVEL_AUTO;
  AllotLevel level_ = ALLOT_LEVEL_AUTO;
  AllotLevelReason reason_ = ALLOT_REASON_NONE;
  bool level_known_ = false;
  bool more_channels_ = false;  // than can be stopped
  bool open_ = true;
  bool crowded_ = false;
  uint64_t open_cost_ns_ = 500'000;  // of the last calls, smoothed
  uint64_t close_cost_ns_ = 500'000;
  uint64_t config_seen_ = 0;
  uint64_t present_until_ns_ = 0;
  uint64_t awake_until_ns_ = 0;
};

}  // namespace allot::shim
