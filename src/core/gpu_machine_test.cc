// The states of a GPU, against channels and a gate that do what the acts say: in every sequence of
// events the state tells the truth about both.
#include "core/gpu_machine.h"

#include <gtest/gtest.h>

#include <array>

namespace allot::core {
namespace {

struct Hardware {
  bool channels_run = true;
  bool gate_open = true;
  bool counted_as_running = true;
  void act(uint32_t acts) {
    if ((acts & kDisableChannels) != 0) channels_run = false;
    if ((acts & kEnableChannels) != 0) channels_run = true;
    if ((acts & kCloseGate) != 0) gate_open = false;
    if ((acts & kOpenGate) != 0) gate_open = true;
    if ((acts & kNoteStopped) != 0) counted_as_running = false;
    if ((acts & kNoteRunning) != 0) counted_as_running = true;
  }
};

// Returns the first sequence that is wrong; empty when none is.
std::string explore(GpuMachine machine, Hardware hardware, int depth, const std::string& before) {
  const GpuState state = machine.state();
  if (hardware.channels_run != (state != GpuState::kStopped)) return before + ": channels";
  const bool shut = state == GpuState::kDrains || state == GpuState::kWaits;
  if (hardware.gate_open == shut) return before + ": gate";
  const bool runs = state != GpuState::kStopped && state != GpuState::kWaits;
  if (hardware.counted_as_running != runs) return before + ": what is counted";
  if (depth == 0) return "";
  for (uint32_t event = 0; event < kGpuEvents; ++event) {
    GpuMachine next = machine;
    Hardware after = hardware;
    after.act(next.on(static_cast<GpuEvent>(event)).acts);
    std::string wrong = explore(next, after, depth - 1, before + " " + std::to_string(event));
    if (!wrong.empty()) return wrong;
  }
  return "";
}

TEST(GpuMachine, ItsStateIsTrueAfterEverySequenceOfEvents) {
  EXPECT_EQ(explore(GpuMachine(), Hardware(), 6, ""), "");
}

TEST(GpuMachine, EveryStateCanBeLeftAndLetsTheWorkRunWhenItsPlaceGoes) {
  for (uint32_t s = 0; s < kGpuStates; ++s) {
    const GpuState state = static_cast<GpuState>(s);
    EXPECT_EQ(gpu_step(state, GpuEvent::kNoPlace).to, GpuState::kAway);
    const GpuState again = gpu_step(state, GpuEvent::kAgain).to;
    EXPECT_TRUE(lets_run(again)) << s;
    EXPECT_TRUE(lets_run(gpu_step(state, GpuEvent::kEvicted).to)) << s;
    EXPECT_TRUE(!by_channels(gpu_step(state, GpuEvent::kRefused).to)) << s;
  }
}

TEST(GpuMachine, TheLevelFollowsFromWhatIsAskedAndWhatIsThere) {
  struct Case {
    LevelFacts facts;
    GpuEvent event;
    AllotLevelReason reason;
  };
  const std::array<Case, 7> cases = {{
      {{ALLOT_LEVEL_OBSERVE, true, false, true}, GpuEvent::kWatch, ALLOT_REASON_ASKED},
      {{ALLOT_LEVEL_LAUNCH, true, false, true}, GpuEvent::kGate, ALLOT_REASON_ASKED},
      {{ALLOT_LEVEL_AUTO, false, false, false}, GpuEvent::kAgain, ALLOT_REASON_NO_CHANNELS},
      {{ALLOT_LEVEL_AUTO, false, false, true}, GpuEvent::kGate, ALLOT_REASON_NO_CHANNELS},
      {{ALLOT_LEVEL_AUTO, true, false, false}, GpuEvent::kChannels, ALLOT_REASON_NONE},
      {{ALLOT_LEVEL_CHANNEL, true, true, true}, GpuEvent::kGate, ALLOT_REASON_TABLES},
      {{ALLOT_LEVEL_LAUNCH, true, true, true}, GpuEvent::kGate, ALLOT_REASON_ASKED},
  }};
  for (const Case& one : cases) {
    AllotLevelReason reason = ALLOT_REASON_MPS;
    EXPECT_EQ(GpuMachine::decide(one.facts, &reason), one.event);
    EXPECT_EQ(reason, one.reason);
  }
}

TEST(GpuMachine, ItIsDecidedAgainWhenTheFactsChangeAndNotBefore) {
  GpuMachine machine;
  machine.on(GpuEvent::kPlace);
  LevelFacts facts = {ALLOT_LEVEL_AUTO, false, false, true};
  EXPECT_TRUE(machine.decides_again(facts));
  machine.on(GpuEvent::kGate, ALLOT_REASON_NO_CHANNELS);
  EXPECT_FALSE(machine.decides_again(facts)) << "waits for channels at the gate";
  facts.channels = true;
  EXPECT_TRUE(machine.decides_again(facts));
  machine.on(GpuEvent::kAgain);
  machine.on(GpuEvent::kChannels, ALLOT_REASON_NONE);
  EXPECT_FALSE(machine.decides_again(facts));
  facts.more_channels = true;
  EXPECT_TRUE(machine.decides_again(facts));
  machine.on(GpuEvent::kAgain);
  machine.on(GpuEvent::kGate, ALLOT_REASON_TABLES);
  EXPECT_FALSE(machine.decides_again(facts));
  facts.more_channels = false;
  EXPECT_TRUE(machine.decides_again(facts)) << "there is room again";
  machine.on(GpuEvent::kAgain);
  machine.on(GpuEvent::kChannels, ALLOT_REASON_NONE);
  machine.on(GpuEvent::kRefused, ALLOT_REASON_CONTROL);
  EXPECT_FALSE(machine.decides_again(facts)) << "what was refused is not tried again by itself";
}

}  // namespace
}  // namespace allot::core
