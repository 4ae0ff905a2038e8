// One GPU in one process, as the process's agent holds it: the states, what leads from one to the
// next, and what is to be done on the way.
//
//                        by its channels                      at the gate
//                     RUNS  <--------->  STOPPED        PASSES --> DRAINS --> WAITS
//                                                          ^----------'---------'
// and beside them AWAY, UNDECIDED, WATCHED and DETACHED (docs/design/gpu-time.md has the picture).
// The table in gpu_machine.cc is all of it. In which order a round calls on it is in gpu_round.h.
//
// Pure: no memory, no clock, no system call; one owner, the agent's thread. What must not happen
// here: a way out of STOPPED, DRAINS or WAITS that does not let the work run.
#pragma once

#include <cstdint>

#include "abi/region.h"

namespace allot::core {

enum class GpuState : uint8_t {
  kAway,       // no place among the slice's clients: no context there
  kUndecided,  // a place, and nothing yet that could be held
  kRuns,       // level channel: the channels are enabled
  kStopped,    // level channel: they are disabled
  kPasses,     // level launch: the gate is open
  kDrains,     // level launch: it is closed, and work that went before still runs
  kWaits,      // level launch: it is closed, and nothing runs
  kWatched,    // level observe
  kDetached,   // evicted: nothing of ours is on the card or holds it
};
inline constexpr uint32_t kGpuStates = 9;

enum class GpuEvent : uint8_t {
  kPlace,     // it has a place
  kNoPlace,   // it has none any more
  kAgain,     // how it is to be held has to be decided anew
  kWatch,     // it is not to be held
  kGate,      // it is to be held at the gate
  kChannels,  // it is to be held by its channels: the driver answers both calls
  kOpen,      // its window begins
  kClose,     // its window ends
  kLate,      // channels came while the others were stopped: these run
  kDrained,   // behind the closed gate all has ended
  kRefused,   // the driver refused a call
  kEvicted,
  kRestored,
};
inline constexpr uint32_t kGpuEvents = 13;

// What is to be done, in the order of the bits.
enum GpuAct : uint32_t {
  kDisableChannels = 1u << 0,
  kEnableChannels = 1u << 1,
  kResetTimeslices = 1u << 2,  // to what libcuda had set
  kCloseGate = 1u << 3,        // from here on it drains
  kOpenGate = 1u << 4,
  kNoteStopped = 1u << 5,  // for what is counted: use, ceiling
  kNoteRunning = 1u << 6,
  kUnguard = 1u << 7,  // submissions need not pass the gate
  kForgetDebt = 1u << 8,
  kForgetChannels = 1u << 9,
};

struct GpuStep {
  GpuState to;
  uint32_t acts;  // GpuAct
};

// What an event leads to. An event that means nothing in a state leaves it and asks for nothing.
GpuStep gpu_step(GpuState from, GpuEvent event);

constexpr bool lets_run(GpuState state) {
  return state != GpuState::kStopped && state != GpuState::kDrains && state != GpuState::kWaits;
}
constexpr bool by_channels(GpuState state) {
  return state == GpuState::kRuns || state == GpuState::kStopped;
}
constexpr bool at_gate(GpuState state) {
  return state == GpuState::kPasses || state == GpuState::kDrains || state == GpuState::kWaits;
}
// AllotLevel, as the client publishes it; AUTO = not known yet.
AllotLevel level_of(GpuState state);

// What decides how a GPU is held.
struct LevelFacts {
  AllotLevel asked;    // of the slice
  bool channels;       // of the process are known there
  bool more_channels;  // than can be stopped
  bool work;           // is unfinished there
};

// The state, and why it is no better one.
class GpuMachine {
 public:
  GpuState state() const { return state_; }
  AllotLevelReason reason() const { return reason_; }

  GpuStep on(GpuEvent event) {
    const GpuStep step = gpu_step(state_, event);
    state_ = step.to;
    return step;
  }
  // The same, and the reason for what it leads to.
  GpuStep on(GpuEvent event, AllotLevelReason reason) {
    reason_ = reason;
    return on(event);
  }

  // Whether these facts ask for another decision than the last one's.
  bool decides_again(const LevelFacts& facts);

  // What they lead to, in state kUndecided: kWatch, kGate, kChannels (if the driver answers), or
  // kAgain: nothing can be decided yet.
  static GpuEvent decide(const LevelFacts& facts, AllotLevelReason* reason);

 private:
  GpuState state_ = GpuState::kAway;
  AllotLevelReason reason_ = ALLOT_REASON_NONE;
  AllotLevel asked_ = ALLOT_LEVEL_AUTO;
  bool more_channels_ = false;
};

}  // namespace allot::core
