// The model of a card's turns against what was measured on cards, in virtual time: every figure
// here is exact and the same on every machine.
//
// "of alone" is a program's progress against itself alone on the GPU. Measured: one H200, driver
// 580.159.04; the pair of full loads: one H100.
#include "turns.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

namespace allot::sim {
namespace {

constexpr int64_t kUs = 1'000, kMs = 1'000'000, kSecond = 1'000'000'000;

// An operation is a batch of kernels and a wait for it.
struct Load {
  int64_t kernel_ns = 0;
  int64_t batch = 1;
  int64_t host_ns = 0;  // between two operations
  uint32_t timeslice_us = kDefaultTimesliceUs;
  // Until the card has a kernel that was launched, and until the host knows its end.
  int64_t launch_ns = 9 * kUs, wake_ns = 9 * kUs;
};

const Load kFull{1 * kMs, 16};
const Load kWait{200 * kUs, 1, 400 * kUs};
const Load kStep{527 * kUs};

struct Program {
  Load load = {};
  int64_t began = 0;
  std::optional<int64_t> submits = 0;  // when its next operation reaches the card
  int64_t left = 0;                    // device time of the operation that is under way
  std::vector<double> waits_ms;
  double done_ns = 0;

  double percentile(double part) const {
    std::vector<double> sorted = waits_ms;
    std::sort(sorted.begin(), sorted.end());
    return sorted.empty() ? 0 : sorted[static_cast<size_t>(part * double(sorted.size() - 1))];
  }
};

// A card and the programs on it. `windows`: the group whose channels are enabled changes at these
// parts of a cycle.
class Card {
 public:
  explicit Card(const std::vector<Load>& loads) {
    for (size_t i = 0; i < loads.size(); ++i) {
      Group& group = line_->groups[i];
      group.used = 1;
      group.timeslice_us = loads[i].timeslice_us;
      programs_.emplace_back().load = loads[i];
      // Not in step with each other.
      programs_[i].began = static_cast<int64_t>(i) * 137 * kUs;
      programs_[i].submits = programs_[i].began + loads[i].launch_ns;
    }
    line_->high = static_cast<uint32_t>(loads.size());
  }

  // Windows of `parts` of a cycle, one a program, one after the other; `edge_ns` pass between two.
  void windows(int64_t cycle_ns, const std::vector<double>& parts, int64_t edge_ns) {
    cycle_ns_ = cycle_ns;
    int64_t at = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      const auto length = static_cast<int64_t>(parts[i] * static_cast<double>(cycle_ns));
      edges_.push_back({at + edge_ns, i, true});
      edges_.push_back({at + length, i, false});
      at += length;
    }
    for (size_t i = 0; i < parts.size(); ++i) line_->groups[i].stopped = 1;
  }

  std::vector<Program>& run(int64_t until) {
    while (now_ < until) step();
    return programs_;
  }

 private:
  struct Edge {
    int64_t at;
    size_t who;
    bool open;
  };

  Group& group(size_t i) { return line_->groups[i]; }
  bool holds(size_t i) { return turns_.held_by(static_cast<uint32_t>(i)); }
  int64_t kernel_left(const Program& p) const {
    return p.left % p.load.kernel_ns == 0 ? p.load.kernel_ns : p.left % p.load.kernel_ns;
  }

  void step() {
    int64_t next = INT64_MAX;
    for (size_t i = 0; i < programs_.size(); ++i) {
      Program& p = programs_[i];
      if (p.submits) next = std::min(next, *p.submits);
      if (holds(i))
        next = std::min<int64_t>(
            next, std::min(group(i).laid_ns + kernel_left(p), group(i).end_ns.load()));
    }
    const Edge* edge = edges_.empty() ? nullptr : &edges_[edge_ % edges_.size()];
    const int64_t edge_at =
        edge == nullptr ? INT64_MAX
                        : edge->at + static_cast<int64_t>(edge_ / edges_.size()) * cycle_ns_;
    now_ = std::max(now_, std::min(next, edge_at));
    if (edge_at <= next) {
      ++edge_;
      return turn_channels(*edge);
    }
    for (size_t i = 0; i < programs_.size(); ++i) {
      Program& p = programs_[i];
      if (p.submits && *p.submits <= now_) {
        p.submits.reset();
        p.left = p.load.kernel_ns * p.load.batch;
        turns_.ask(static_cast<uint32_t>(i), now_, now_);
      } else if (holds(i) &&
                 std::min(group(i).laid_ns + kernel_left(p), group(i).end_ns.load()) <= now_) {
        come_to_end(i);
      }
    }
  }

  // What ran until `at` is done.
  void advance(size_t i, int64_t at) {
    Program& p = programs_[i];
    const int64_t did = std::clamp<int64_t>(at - group(i).laid_ns, 0, p.left);
    p.left -= did;
    p.done_ns += static_cast<double>(did);
    group(i).laid_ns = std::max<int64_t>(at, group(i).laid_ns);
  }

  void come_to_end(size_t i) {
    Program& p = programs_[i];
    const int64_t at = std::min<int64_t>(group(i).laid_ns + kernel_left(p), group(i).end_ns);
    advance(i, at);
    const auto index = static_cast<uint32_t>(i);
    if (p.left == 0) return finish(i, at);
    if (at < group(i).end_ns) return;  // the next kernel of the batch
    if (!turns_.go_on(index, now_, p.left % p.load.kernel_ns != 0)) turns_.ask(index, at, now_);
  }

  void finish(size_t i, int64_t at) {
    Program& p = programs_[i];
    turns_.leave(at, now_, false);
    const int64_t knows = at + p.load.wake_ns;
    p.waits_ms.push_back(static_cast<double>(knows - p.began) / 1e6);
    p.began = knows + p.load.host_ns;
    p.submits = p.began + p.load.launch_ns;
  }

  void turn_channels(const Edge& edge) {
    const auto index = static_cast<uint32_t>(edge.who);
    Group& one = group(edge.who);
    one.stopped = edge.open ? 0 : 1;
    if (edge.open && programs_[edge.who].left > 0) return turns_.ask(index, now_, now_);
    if (edge.open || !holds(edge.who)) return;
    advance(edge.who, now_);
    turns_.leave(now_, now_, true);
    one.waiting = 1;
  }

  std::unique_ptr<Timeline> line_ = std::make_unique<Timeline>();
  SwitchCosts costs_;
  Turns turns_{*line_, costs_, [](uint32_t) { return true; }, [](Group&) {}};
  std::vector<Program> programs_;
  std::vector<Edge> edges_;
  size_t edge_ = 0;
  int64_t cycle_ns_ = 0, now_ = 0;
};

double alone(const Load& load) {
  return Card({load}).run(kSecond)[0].done_ns;
}

struct Got {
  std::vector<double> of_alone;  // percent
  std::vector<Program> programs;
};

Got together(const std::vector<Load>& loads) {
  Got got;
  got.programs = Card(loads).run(kSecond);
  for (const Program& program : got.programs)
    got.of_alone.push_back(100 * program.done_ns / alone(program.load));
  return got;
}

Load with_timeslice(Load load, uint32_t us) {
  load.timeslice_us = us;
  return load;
}

// What the card gave, in percent of alone.
struct Beside {
  uint32_t timeslice_us;
  double wait, full, p50_ms;
};

TEST(Turns, AKernelThatComesAloneWaitsForTheTimesliceOfAFullOneAndCausesTwoChanges) {
  for (const Beside& card : {Beside{20, 76, 33, 0.39},
                             {100, 74, 35, 0.41},
                             {200, 67, 41, 0.52},
                             {500, 59, 49, 0.62},
                             {2048, 24, 79, 2.2}}) {
    const Got got = together({kWait, with_timeslice(kFull, card.timeslice_us)});
    EXPECT_NEAR(got.of_alone[0], card.wait, 4) << card.timeslice_us;
    EXPECT_NEAR(got.of_alone[1], card.full, 5) << card.timeslice_us;
    EXPECT_NEAR(got.programs[0].percentile(0.5), card.p50_ms, 0.06) << card.timeslice_us;
  }
}

TEST(Turns, TwoThatWaitLeaveAFullOneOfShortTimeslicesNextToNothing) {
  const Got got = together({kWait, kWait, with_timeslice(kFull, 20)});
  EXPECT_NEAR(got.of_alone[0], 57, 15);  // the card changes once more in a round
  EXPECT_NEAR(got.of_alone[1], 57, 15);
  EXPECT_LT(got.of_alone[2], 5);
}

TEST(Turns, ARequestNowAndThenWaitsForWhatIsLeftOfATimeslice) {
  const Load request{200 * kUs, 1, 2000 * kUs};
  const Got got = together({request, kFull});
  EXPECT_NEAR(got.programs[0].percentile(0.5), 0.52, 0.1);
  EXPECT_NEAR(got.programs[0].percentile(0.99), 1.84, 0.5);
  const Got first = together({request, with_timeslice(kFull, 20)});
  EXPECT_NEAR(first.programs[0].percentile(0.5), 0.40, 0.03);
  EXPECT_NEAR(first.programs[0].percentile(0.99), 0.44, 0.06);
  EXPECT_NEAR(first.of_alone[1], 80, 4);
}

TEST(Turns, FullLoadsShareByTheirTimeslicesAndLoseTheChanges) {
  const Got equal = together({kFull, kFull});
  EXPECT_NEAR(equal.of_alone[0], 45.4, 1);
  EXPECT_NEAR(equal.of_alone[1], 45.4, 1);
  struct Pair {
    uint32_t a_us, b_us;
    double a, b;
  };
  for (const Pair& card : {Pair{1000, 3000, 24.5, 64.6},
                           {3000, 7000, 32.1, 63.3},
                           {2000, 18000, 10.7, 87.7},
                           {12000, 28000, 33, 66}}) {
    const Got got = together({with_timeslice(kFull, card.a_us), with_timeslice(kFull, card.b_us)});
    EXPECT_NEAR(got.of_alone[0], card.a, 2) << card.a_us;
    EXPECT_NEAR(got.of_alone[1], card.b, 4) << card.a_us;
  }
}

TEST(Turns, DecodeLoopsTakeTurnsWhateverTheirShare) {
  const Got got = together({kStep, kStep});
  for (const Program& program : got.programs) {
    EXPECT_NEAR(double(program.waits_ms.size()), 769, 20);
    EXPECT_NEAR(program.percentile(0.99), 1.3, 0.1);
  }
  const Got longer = together({with_timeslice(kStep, 3000), with_timeslice(kStep, 7000)});
  EXPECT_NEAR(longer.of_alone[0], longer.of_alone[1], 1)
      << "a program without a backlog has no weight";
  // Timeslices shorter than a step: 375 + 645, and switches eat the rest.
  const Got shorter = together({with_timeslice(kStep, 200), with_timeslice(kStep, 466)});
  EXPECT_NEAR(double(shorter.programs[0].waits_ms.size()), 375, 50);
  EXPECT_NEAR(double(shorter.programs[1].waits_ms.size()), 645, 30);
}

TEST(Turns, WindowsOfDecodeLoopsStallForTheOthersWindow) {
  struct Cycle {
    int64_t ms;
    double a, b, stall_a_ms, stall_b_ms;
  };
  for (const Cycle& card : {Cycle{10, 480, 1191, 8.3, 4.2},
                            {20, 502, 1280, 15.3, 7.1},
                            {40, 532, 1288, 29, 13},
                            {100, 558, 1316, 71, 31}}) {
    Card card_of({kStep, kStep});
    card_of.windows(card.ms * kMs, {0.3, 0.7}, 250 * kUs);
    const std::vector<Program>& got = card_of.run(kSecond);
    EXPECT_NEAR(double(got[0].waits_ms.size()), card.a, 20) << card.ms;
    EXPECT_NEAR(double(got[1].waits_ms.size()), card.b, 45) << card.ms;
    EXPECT_NEAR(got[0].percentile(0.999), card.stall_a_ms, 1) << card.ms;
    EXPECT_NEAR(got[1].percentile(1), card.stall_b_ms, 1) << card.ms;
  }
}

TEST(Turns, WhoComesEndsTheTimesliceThatRunsAndNotTheGrant) {
  // Alone for 50 ms, then beside somebody: the change comes at a multiple of 2,048 us.
  auto line = std::make_unique<Timeline>();
  const SwitchCosts costs;
  Turns turns(
      *line, costs, [](uint32_t) { return true; }, [](Group&) {});
  line->high = 2;
  for (uint32_t i = 0; i < 2; i++) {
    line->groups[i].used = 1;
    line->groups[i].timeslice_us = 2048;
  }
  turns.ask(0, 0, 0);
  EXPECT_GE(line->groups[0].end_ns, 10 * kMs)
      << "a thread that wakes for each timeslice costs a CPU";
  turns.ask(1, 5 * kMs, 5 * kMs);
  EXPECT_EQ(line->groups[0].end_ns, 3 * 2048 * kUs);
  EXPECT_FALSE(turns.go_on(0, 3 * 2048 * kUs, true));
  EXPECT_EQ(line->groups[1].grant_ns, 3 * 2048 * kUs + costs.change_ns + costs.save_ns);
  // It runs dry while the other waits: that one's kernel is taken up again.
  turns.ask(0, 3 * 2048 * kUs, 7 * kMs);
  turns.leave(7 * kMs, 7 * kMs, false);
  EXPECT_EQ(line->groups[0].grant_ns, 7 * kMs + costs.change_ns + costs.restore_ns);
}

TEST(Turns, NobodyPaysForAChangeBackToItself) {
  const Load load{200 * kUs, 1, 10 * kMs};
  const std::vector<Program> got = Card({load}).run(kSecond);
  EXPECT_NEAR(got[0].percentile(1), 0.218, 0.001);
}

}  // namespace
}  // namespace allot::sim
