// Whether a slice saturates its GPU or leaves gaps, learned from looks at its work.
//
// Pure: caller-owned storage, times are given. Not for several threads at once. Neither allocates
// nor blocks.
#pragma once

#include <cstdint>

namespace allot::core {

// Learns from samples of "had work unfinished" what a slice is: leaving gaps, or filling. Below 880
// permille busy it leaves gaps, above 945 it saturates; it turns at most once a second and first
// after 0.3 s of looks. (Seen on an H100: a launch-bound load whose kernels take 43 % of its time
// has unfinished work at 77-81 % of the looks, as a launch is under way before its kernel runs;
// loops that wait for every step 97-99 %.) Looks more than 25 ms after the last work count as
// idleness, not as a gap.
class GapMeter {
 public:
  // One look at the driver: whether work was unfinished, taken while its work could run. Unevenly
  // spaced looks are weighted by the time since the look before (at most 20 ms).
  void sample(uint64_t now_ns, bool unfinished);
  // With hysteresis; a new slice saturates until seen otherwise.
  bool saturates() const { return saturates_; }
  uint32_t busy_permille() const;  // part of its time with unfinished work, smoothed over ~0.3 s
  bool clearly_gaps() const;       // enough was seen, and it left gaps
  bool clearly_none() const;       // enough was seen, and every look found work
  void decide();                   // by what was seen now, however short ago it turned
  bool knows() const;              // it has seen more than a moment

  static constexpr uint64_t kIdleNs = 2'000'000;  // without work for so long: it has none

 private:
  uint64_t last_ns_ = 0;
  uint64_t last_busy_ns_ = 0;
  uint64_t seen_ns_ = 0;       // how much time the average stands for, at most its own span
  uint64_t busy_average_ = 0;  // of 2^32
  uint64_t turned_ns_ = 0;     // of the last change of saturates_
  bool looked_ = false;
  bool worked_ = false;  // last_busy_ns_ is set
  bool saturates_ = true;
};

// The same for a slice among others. Only what is seen while nobody else could run tells whether it
// saturates: beside others its work is unfinished because it waits for them. One that leaves gaps
// and is never undisturbed asks for windows for a moment, to see whether it still does; first after
// 10 s, after 1 s if every look finds work, then ever more rarely. A trial costs those who leave
// gaps a part of their throughput, so there is none while gaps are seen even beside others. Looks
// without work that are far from the look before (a slice alone is looked at five times a second)
// are gaps if there is work again within 10 ms, so that one that leaves gaps is known as such when
// a neighbour comes.
class GapWatch {
 public:
  // One look, while it has work or had a moment ago. `open_ns`: how long its work could run since
  // the look before.
  void look(uint64_t now_ns, uint64_t open_ns, bool undisturbed, bool unfinished);
  bool saturates() const { return meter_.saturates() || trial_meter_ns_ != 0; }
  // Part of its time with work. All of it in a trial, which is there since it may do something else
  // by now; and for one that was never undisturbed and has work at every look.
  uint32_t busy_permille() const {
    return surely_busy() ? 1000 : meter_.busy_permille();
  }
  // Whether it was undisturbed for more than a moment, so that busy_permille() says something.
  bool knows() const { return meter_.knows() || surely_busy(); }

 private:
  static constexpr uint64_t kTrialFirstNs = 10'000'000'000;
  // The same for one that never is without work beside the others.
  static constexpr uint64_t kTrialSoonNs = 1'000'000'000;

  bool surely_busy() const {
    return trial_meter_ns_ != 0 || (!meter_.knows() && beside_.clearly_none());
  }

  GapMeter meter_;
  GapMeter beside_;        // of the looks that were disturbed
  uint64_t doubt_ns_ = 0;  // a look without work, of which is not known yet what it was; 0 = none
  uint64_t doubt_open_ns_ = 0;
  // Their clocks: time in which it could run. The first begins so late that the first turn need not
  // wait.
  uint64_t meter_ns_ = 2'000'000'000;
  uint64_t beside_ns_ = 2'000'000'000;
  uint64_t undisturbed_ns_ = 0;  // when it ran last
  uint64_t trial_after_ns_ = 0;  // at least, once there was one
  uint64_t trial_meter_ns_ = 0;  // on the meter's clock, the end of the trial; 0 = none
  uint64_t trial_end_ns_ = 0;
};

}  // namespace allot::core
