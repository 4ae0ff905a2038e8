// How a slice uses a GPU: what it takes while it may run, and what it costs others when it goes
// first.
//
// A program that waits for its work is a chain of bursts (from the first submission to the end of
// the wait) and gaps (what the host does between). Bursts are counted where the program submits and
// waits, at no cost to a slice without limits:
//
//     host   ...gap...|submit      wait|...gap...|submit
//     burst           |<---- busy ---->|         |<----
//     GPU             |in| kernel |out|         in = others are switched out, out = they come back
//
// Times are of the slice's open clock, which stands while it is closed: a burst that waits behind a
// closed window is not longer for it.
//
// A gap is at most kMostGapNs long: beyond it the program is idle, and what it does next is not
// known from that.
//
// Footprint: the part of the GPU that the others lose while it goes first, its bursts and the
// switches after them. Going first pays only where the gaps are longer than the switches; else the
// footprint is the whole. Pace: bursts in a time, alone and beside others. A program that runs
// beside others must keep its part of its pace, and if it goes first as much as it costs them; else
// it needs windows of its own. Credit: what its part earned since long, less its footprint. Whoever
// has some has used less than its part lately; it is spent by a burst that is longer than usual.
//
// What must not happen here: a clock, a system call, a number that overflows.
#pragma once

#include <cstdint>

#include "core/time_policy.h"

namespace allot::core {

// The two halves of a change of contexts around a burst, for one that goes first beside a neighbour
// with timeslices of 20 us. Measured on H100 and H200: a request of 0.21 ms takes 0.39-0.40 ms
// there, and a neighbour loses some 0.17 ms more than that for each; what is rounded up here is the
// neighbour's.
inline constexpr uint64_t kSwitchInNs = 180'000;
inline constexpr uint64_t kSwitchOutNs = 190'000;
// Of a burst, what is no GPU time: the launch, and the host's notice of the end.
inline constexpr uint64_t kLaunchNs = 10'000;

class SliceUse {
 public:
  // Counts so far. `open_ns`: the open clock; `busy_ns`: in bursts, by that clock, the one under
  // way included; `waits`: bursts that a wait ended. The others were ended by looks, whose distance
  // depends on who is beside: they tell no pace.
  struct Counts {
    uint64_t open_ns = 0;
    uint64_t bursts = 0;
    uint64_t busy_ns = 0;
    uint64_t waits = 0;
  };

  struct Situation {
    bool undisturbed;  // no other slice could run since the last look
    bool cut;          // it has windows: requests that piled up before one leave no gaps in it
    uint32_t part_permille;  // what it can count on now
    bool first = false;      // goes first all the time
  };
  // One look. Looks may come at any distance.
  void look(uint64_t now_ns, const Counts& counts, const Situation& situation);

  // Part of the GPU that the others lose while it goes first; kWhole where going first does not
  // pay, or nothing is known.
  uint32_t footprint_permille() const;

  bool credit() const { return has_credit_; }
  int64_t credit_ns() const { return credit_ns_; }

  // Whether it waits for its work every few milliseconds.
  bool waits() const;

  // Part of its open time that its bursts keep the GPU busy when nobody is beside it; kWhole = not
  // known.
  uint32_t alone_permille() const;

  // Beside others it was seen to fall below its part of what it does alone: it needs windows, for a
  // while.
  bool slow() const { return slow_until_ns_ != 0; }

  // GPU time of a burst as it runs undisturbed; 0 = not known.
  uint64_t burst_ns() const;

  // How long a slice may go first for more than its part before it takes windows: two stops.
  static constexpr int64_t kMostCreditNs = 30'000'000;
  // Half of the default latency: a slice that waits less often does not notice a long period.
  static constexpr uint64_t kWaitsNs = 8'000'000;
  // A pause for input; as for GapMeter.
  static constexpr uint64_t kMostGapNs = 25'000'000;

 private:
  // Sums that fade with the open clock.
  struct Sums {
    double open_ns = 0;
    double bursts = 0;
    double busy_ns = 0;
    double waits = 0;
    void add(const Counts& more, double span_ns, double weight);
    double burst_ns() const { return bursts > 0 ? busy_ns / bursts : 0; }
    double gap_ns() const {
      return bursts > 0 && open_ns > busy_ns ? (open_ns - busy_ns) / bursts : 0;
    }
    bool enough() const { return bursts >= 2.5; }
    double pace() const { return open_ns > 0 ? waits / open_ns : 0; }
  };
  double footprint_of(const Sums& sums, bool first) const;
  double footprint_if_first() const;
  Counts without_pause(Counts more);
  void judge_pace(uint64_t now_ns, const Situation& situation);

  Sums alone_;
  Sums beside_;
  Sums lately_;
  Counts last_ = {};
  uint64_t last_ns_ = 0;
  int64_t credit_ns_ = kMostCreditNs;
  bool has_credit_ = false;
  uint64_t lost_credit_ns_ = 0;  // when, last
  bool pays_ = false;            // the gaps are longer than the switches, with hysteresis
  uint64_t quiet_ns_ = 0;        // open time since the last burst
  uint64_t bursts_since_pause_ = 0;
  uint32_t pauses_ = 0;  // one after the other with few bursts between
  uint64_t slow_until_ns_ = 0;  // 0 = it keeps its pace
  uint64_t slow_for_ns_ = 0;
  uint64_t asks_ns_ = 0;  // when it may ask for windows again, to see what it does alone
  uint64_t asks_again_ns_ = 0;
};

// Whether a slice saturates its GPU. `looks`: what GapWatch says, with its busy_permille (0 = it
// saw nothing yet); `used_permille`: what NVML saw of it alone, of its open time; 0 = not known.
bool saturates(bool looks, uint32_t busy_permille, uint32_t used_permille, const SliceUse& use);

// A ceiling is one of use: of a slice that leaves gaps the part of its open time that comes to so
// much use; 0 = it cannot reach its ceiling.
uint32_t max_of_open_time(uint32_t max_permille, bool saturates, uint32_t used_permille,
                          const SliceUse& use);

}  // namespace allot::core
