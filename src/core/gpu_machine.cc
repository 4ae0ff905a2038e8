// See gpu_machine.h. One row for each state and event that means something there.
#include "core/gpu_machine.h"

namespace allot::core {
namespace {

using S = GpuState;
using V = GpuEvent;

struct Row {
  GpuState from;
  GpuEvent event;
  GpuStep step;
};

// Leaves a level: everything runs.
constexpr uint32_t kLeaveRuns = kEnableChannels | kResetTimeslices | kForgetDebt;
constexpr uint32_t kLeaveStopped = kLeaveRuns | kNoteRunning;
constexpr uint32_t kLeavePasses = kUnguard | kForgetDebt;
constexpr uint32_t kLeaveClosed = kOpenGate | kNoteRunning | kUnguard | kForgetDebt;
// Timeslices are nothing before the driver takes contexts away, or after the last one has gone.
constexpr uint32_t kEndRuns = kEnableChannels | kForgetDebt;
constexpr uint32_t kEndStopped = kEndRuns | kNoteRunning;

constexpr Row kRows[] = {
    {S::kAway, V::kPlace, {S::kUndecided, 0}},

    {S::kUndecided, V::kWatch, {S::kWatched, 0}},
    {S::kUndecided, V::kGate, {S::kPasses, 0}},
    {S::kUndecided, V::kChannels, {S::kRuns, 0}},

    {S::kRuns, V::kClose, {S::kStopped, kDisableChannels | kNoteStopped}},
    {S::kStopped, V::kOpen, {S::kRuns, kEnableChannels | kNoteRunning}},
    {S::kStopped, V::kLate, {S::kStopped, kDisableChannels | kNoteStopped}},
    {S::kRuns, V::kRefused, {S::kPasses, kLeaveStopped}},
    {S::kStopped, V::kRefused, {S::kPasses, kLeaveStopped}},

    {S::kPasses, V::kClose, {S::kDrains, kCloseGate}},
    {S::kDrains, V::kDrained, {S::kWaits, kNoteStopped}},
    {S::kDrains, V::kOpen, {S::kPasses, kOpenGate | kNoteRunning}},
    {S::kWaits, V::kOpen, {S::kPasses, kOpenGate | kNoteRunning}},

    {S::kRuns, V::kAgain, {S::kUndecided, kLeaveRuns}},
    {S::kStopped, V::kAgain, {S::kUndecided, kLeaveStopped}},
    {S::kPasses, V::kAgain, {S::kUndecided, kLeavePasses}},
    {S::kDrains, V::kAgain, {S::kUndecided, kLeaveClosed}},
    {S::kWaits, V::kAgain, {S::kUndecided, kLeaveClosed}},
    {S::kWatched, V::kAgain, {S::kUndecided, 0}},

    {S::kUndecided, V::kNoPlace, {S::kAway, 0}},
    {S::kRuns, V::kNoPlace, {S::kAway, kEndRuns}},
    {S::kStopped, V::kNoPlace, {S::kAway, kEndStopped}},
    {S::kPasses, V::kNoPlace, {S::kAway, kLeavePasses}},
    {S::kDrains, V::kNoPlace, {S::kAway, kLeaveClosed}},
    {S::kWaits, V::kNoPlace, {S::kAway, kLeaveClosed}},
    {S::kWatched, V::kNoPlace, {S::kAway, 0}},
    {S::kDetached, V::kNoPlace, {S::kAway, 0}},

    {S::kAway, V::kEvicted, {S::kAway, kForgetChannels}},
    {S::kUndecided, V::kEvicted, {S::kDetached, kForgetChannels}},
    {S::kRuns, V::kEvicted, {S::kDetached, kEndRuns | kForgetChannels}},
    {S::kStopped, V::kEvicted, {S::kDetached, kEndStopped | kForgetChannels}},
    {S::kPasses, V::kEvicted, {S::kDetached, kLeavePasses | kForgetChannels}},
    {S::kDrains, V::kEvicted, {S::kDetached, kLeaveClosed | kForgetChannels}},
    {S::kWaits, V::kEvicted, {S::kDetached, kLeaveClosed | kForgetChannels}},
    {S::kWatched, V::kEvicted, {S::kDetached, kForgetChannels}},
    {S::kDetached, V::kRestored, {S::kUndecided, kForgetChannels}},
};

struct Table {
  GpuStep steps[kGpuStates][kGpuEvents];
};

constexpr Table make_table() {
  Table table = {};
  for (uint32_t s = 0; s < kGpuStates; ++s) {
    for (GpuStep& step : table.steps[s]) step = {static_cast<GpuState>(s), 0};
  }
  for (const Row& row : kRows) {
    table.steps[static_cast<uint32_t>(row.from)][static_cast<uint32_t>(row.event)] = row.step;
  }
  return table;
}
constexpr Table kTable = make_table();

}  // namespace

GpuStep gpu_step(GpuState from, GpuEvent event) {
  return kTable.steps[static_cast<uint32_t>(from)][static_cast<uint32_t>(event)];
}

AllotLevel level_of(GpuState state) {
  if (by_channels(state)) return ALLOT_LEVEL_CHANNEL;
  if (at_gate(state)) return ALLOT_LEVEL_LAUNCH;
  return state == GpuState::kWatched ? ALLOT_LEVEL_OBSERVE : ALLOT_LEVEL_AUTO;
}

bool GpuMachine::decides_again(const LevelFacts& facts) {
  const bool more = facts.channels && facts.more_channels;
  const bool same = facts.asked == asked_ && more == more_channels_;
  asked_ = facts.asked;
  more_channels_ = more;
  if (!same || state_ == GpuState::kUndecided) return true;
  // At the gate for want of channels: there are some now.
  return reason_ == ALLOT_REASON_NO_CHANNELS && facts.channels;
}

GpuEvent GpuMachine::decide(const LevelFacts& facts, AllotLevelReason* reason) {
  *reason = ALLOT_REASON_ASKED;
  if (facts.asked == ALLOT_LEVEL_OBSERVE) return GpuEvent::kWatch;
  if (facts.asked == ALLOT_LEVEL_LAUNCH) return GpuEvent::kGate;
  if (!facts.channels) {
    // No context yet: nothing to hold so far. With work on the GPU all the same, its channels are
    // another process's (an MPS server's) or came by a way that we do not know.
    *reason = ALLOT_REASON_NO_CHANNELS;
    return facts.work ? GpuEvent::kGate : GpuEvent::kAgain;
  }
  *reason = facts.more_channels ? ALLOT_REASON_TABLES : ALLOT_REASON_NONE;
  return facts.more_channels ? GpuEvent::kGate : GpuEvent::kChannels;
}

}  // namespace allot::core
