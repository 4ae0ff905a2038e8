// Two agents that share a GPU, on a virtual clock and without threads: their rounds, cut at each
// act, in every order. Hand-over of a window, a change of limits, a call that the driver refuses,
// an agent that is lost and found.
//
// Checked after every step: nothing is published that is not so. At the end, after one more round
// each: exactly what the plan opens is open.
#include "core/gpu_round.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <span>

#include "core/interleave.h"

namespace allot::core {
namespace {

constexpr uint64_t kMs = 1'000'000;
constexpr uint64_t kLeadNs = kMs / 2;

// What the two publish, and the clock that they share.
struct World {
  uint64_t now_ns = 1'000 * kMs;
  std::array<SliceDemand, 2> slices = {};
  std::array<bool, 2> published_open = {true, true};
  bool lied = false;  // something was published that was not so
  std::array<AllotLevel, 2> asked = {ALLOT_LEVEL_AUTO, ALLOT_LEVEL_AUTO};

  World() {
    for (uint32_t i = 0; i < 2; ++i) {
      SliceDemand& slice = slices[i];
      slice.id = i + 1;
      slice.share_permille = 500;
      slice.active = slice.awake = slice.saturates = true;
      slice.footprint_permille = kWhole;
      slice.gpus = 1;
    }
  }
  // What every agent computes, for slice `me`.
  TimeGrant grant(uint32_t me, uint64_t at_ns) const {
    std::array<SliceDemand, 2> mine_first = {slices[me], slices[1 - me]};
    std::array<TimeGrant, 2> grants = {};
    plan_gpu(std::span<const SliceDemand>(mine_first), at_ns, std::span<TimeGrant>(grants));
    return grants[0];
  }
};

class Parts {
 public:
  Parts(World& world, uint32_t me) : world_(world), me_(me) {}

  GpuMachine& machine() { return machine_; }
  bool look_for_channels() { return true; }
  bool take_place(bool) { return true; }
  LevelFacts level_facts(bool channels) const { return {world_.asked[me_], channels, false, true}; }
  AllotLevelReason try_channels() {
    switch_channels(true);
    return ALLOT_REASON_NONE;
  }
  bool channels_run() const { return known_to_run_; }
  bool act(const GpuStep& step, GpuEvent event, uint64_t) {
    const auto asked = [&](GpuAct act) { return (step.acts & act) != 0; };
    if (asked(kDisableChannels) && !switch_channels(false)) return false;
    if (asked(kEnableChannels) && !switch_channels(true) && event != GpuEvent::kRefused)
      return false;
    if (asked(kCloseGate)) set_gate(false);
    if (asked(kOpenGate)) set_gate(true);
    if (asked(kUnguard)) guarded_ = false;

    return true;
  }
  bool drained(uint64_t, uint64_t*) { return machine_.state() == GpuState::kDrains; }
  TimeGrant plan(uint64_t at_ns, GpuScene* scene) {
    Interleaver::step();
    scene->active = 2;
    scene->mine_active = true;
    return world_.grant(me_, at_ns);
  }
  uint64_t hold_ceiling(uint64_t, uint64_t, bool, TimeGrant*) { return UINT64_MAX; }
  void ready_gate(bool needed, uint64_t) { guarded_ = needed; }
  bool set_timeslice(const TimeGrant&, const GpuScene&) { return true; }
  bool publish(const TimeGrant&, const GpuScene&) {
    Interleaver::step();
    world_.published_open[me_] = lets_run(machine_.state());
    world_.lied = world_.lied || world_.published_open[me_] != lets_work_run();
    return false;
  }
  uint64_t lead_ns() const { return machine_.state() == GpuState::kStopped ? kLeadNs : 0; }

  // As the prober does it for an agent that is lost (agent_watchdog.h), and what the agent does
  // when it runs again.
  void rescue() {
    gate_open_ = true;
    guarded_ = false;
    channels_run_ = true;
  }
  void found() {
    gpu_event(*this, GpuEvent::kEvicted, ALLOT_REASON_CONTROL);
    gpu_event(*this, GpuEvent::kRestored, ALLOT_REASON_CONTROL);
  }

  void refuse_disabling() { refuses_ = true; }
  bool lets_work_run() const { return channels_run_ && (gate_open_ || !guarded_); }

 private:
  bool switch_channels(bool run) {
    if (run == known_to_run_) return true;
    Interleaver::step();
    if (!run && refuses_) return false;
    channels_run_ = run;
    Interleaver::step();
    known_to_run_ = run;
    return true;
  }
  void set_gate(bool open) {
    Interleaver::step();
    gate_open_ = open;
  }

  World& world_;
  uint32_t me_;
  GpuMachine machine_;
  bool channels_run_ = true;
  bool known_to_run_ = true;  // what the agent thinks
  bool gate_open_ = true;
  bool guarded_ = false;
  bool refuses_ = false;
};

class GpuRounds : public testing::Test {
 protected:
  void SetUp() override {
#ifdef ALLOT_TEST_TSAN
    GTEST_SKIP() << "one thread only, on stacks that ThreadSanitizer does not know";
#endif
  }
  void start() {
    world_ = std::make_unique<World>();
    for (uint32_t i = 0; i < 2; ++i) parts_[i] = std::make_unique<Parts>(*world_, i);
    killed_ = false;
    // Both have begun: the first window is somebody's.
    round(0);
    round(1);
  }
  void round(uint32_t i) {
    gpu_round(*parts_[i], world_->now_ns);
  }

  // Rounds as an agent makes them; somebody else moves the clock.
  Interleaver::Thread agent(uint32_t i, int rounds) {
    return {i + 1, [this, i, rounds] {
              for (int k = 0; k < rounds; ++k) {
                Interleaver::step();
                round(i);
              }
            }};
  }
  Interleaver::Thread other(std::function<void()> body) {
    return {9, std::move(body)};
  }

  // One more round each, in which a process hears of the other's last word.
  bool all_is_as_planned() {
    for (int k = 0; k < 2; ++k) {
      for (uint32_t i = 0; i < 2; ++i) round(i);
    }
    for (uint32_t i = 0; i < 2; ++i) {
      const uint64_t at = world_->now_ns + (parts_[i]->lets_work_run() ? 0 : kLeadNs);
      const bool planned = world_->grant(i, at).open;
      if (parts_[i]->lets_work_run() != planned) return false;
      if (world_->published_open[i] != parts_[i]->lets_work_run()) return false;
    }
    return true;
  }

  uint64_t explore(int interruptions, int kills,
                   const std::function<std::vector<Interleaver::Thread>()>& threads,
                   const std::function<bool()>& end) {
    Interleaver all({interruptions, kills});
    const uint64_t runs = all.explore([&] {
      start();
      Interleaver::Scenario scenario;
      scenario.threads = threads();
      if (kills > 0) scenario.may_be_killed = {1};
      scenario.on_kill = [this](uint32_t) { killed_ = true; };
      scenario.holds = [this] { return !world_->lied; };
      scenario.holds_end = end;
      return scenario;
    });
    EXPECT_FALSE(all.failed()) << all.order();
    return runs;
  }

  std::unique_ptr<World> world_;
  std::array<std::unique_ptr<Parts>, 2> parts_;
  bool killed_ = false;
};

// The window goes from one to the other and back while both make their rounds.
TEST_F(GpuRounds, AWindowIsHandedOverInEveryOrder) {
  int open_for[2] = {0, 0};
  const uint64_t runs = explore(
      3, 0,
      [this] {
        return std::vector<Interleaver::Thread>{agent(0, 3), agent(1, 3), other([this] {
                                                  for (int i = 0; i < 3; ++i) {
                                                    Interleaver::step();
                                                    world_->now_ns += 27 * kMs;
                                                  }
                                                })};
      },
      [&] {
        const bool right = all_is_as_planned();
        const bool first = parts_[0]->lets_work_run(), second = parts_[1]->lets_work_run();
        ++open_for[first ? 0 : 1];
        return right && first != second;
      });
  EXPECT_GT(runs, 1'000u);
  EXPECT_GT(open_for[0] + open_for[1], 0);
}

// The shares change, and one slice is frozen and thawed, at any moment.
TEST_F(GpuRounds, ChangedLimitsAreObeyedInEveryOrder) {
  explore(
      4, 0,
      [this] {
        return std::vector<Interleaver::Thread>{agent(0, 2), agent(1, 2), other([this] {
                                                  world_->slices[0].share_permille = 900;
                                                  Interleaver::step();
                                                  world_->slices[1].share_permille = 100;
                                                  world_->slices[1].frozen = true;
                                                  Interleaver::step();
                                                  world_->now_ns += 31 * kMs;
                                                  Interleaver::step();
                                                  world_->asked[0] = ALLOT_LEVEL_LAUNCH;
                                                })};
      },
      [this] {
        const bool frozen = all_is_as_planned() && !parts_[1]->lets_work_run();
        world_->slices[1].frozen = false;
        return frozen && all_is_as_planned() && at_gate(parts_[0]->machine().state());
      });
}

// From some moment on the driver refuses to stop one's channels: it is held at the gate, in the
// same windows, and the other notices nothing.
TEST_F(GpuRounds, ARefusedCallLeadsToTheGateInEveryOrder) {
  explore(
      3, 0,
      [this] {
        return std::vector<Interleaver::Thread>{agent(0, 3), agent(1, 3), other([this] {
                                                  Interleaver::step();
                                                  parts_[0]->refuse_disabling();
                                                  for (int i = 0; i < 2; ++i) {
                                                    Interleaver::step();
                                                    world_->now_ns += 50 * kMs;
                                                  }
                                                })};
      },
      [this] {
        for (int i = 0; i < 8; ++i) {
          if (!all_is_as_planned()) return false;
          world_->now_ns += 23 * kMs;
        }
        return at_gate(parts_[0]->machine().state()) &&
               parts_[0]->machine().reason() == ALLOT_REASON_CONTROL &&
               by_channels(parts_[1]->machine().state());
      });
}

// An agent is lost between any two acts. Its process runs once it has been rescued; when it is
// found again it holds as before.
TEST_F(GpuRounds, ALostAgentsProcessRunsAndIsHeldAgainWhenItIsFound) {
  int lost = 0;
  explore(
      3, 1,
      [this] {
        return std::vector<Interleaver::Thread>{agent(0, 3), agent(1, 2), other([this] {
                                                  for (int i = 0; i < 2; ++i) {
                                                    Interleaver::step();
                                                    world_->now_ns += 27 * kMs;
                                                  }
                                                })};
      },
      [&] {
        if (!killed_) return all_is_as_planned();
        ++lost;
        parts_[0]->rescue();
        if (!parts_[0]->lets_work_run()) return false;
        world_->now_ns += 27 * kMs;
        round(1);  // its neighbour continues
        if (!parts_[0]->lets_work_run()) return false;
        parts_[0]->found();
        return all_is_as_planned();
      });
  EXPECT_GT(lost, 100);
}

}  // namespace
}  // namespace allot::core
