// Who may run on a GPU, and when: the policy of GPU time.
//
// Pure and without memory: given the slices of one GPU and the time of the machine's monotonic clock,
// plan_gpu says for each slice whether its work may run now, until when that stays so, and how long its
// timeslices are. Every slice's agent computes it from what all have published, so nobody leads, nobody
// has to be trusted, and nobody's death stops the others: equal input, equal schedule.
//
//     time --->   |<------------------ cycle ------------------->|
//     A (30, saturates)  [======A======]                              [====
//     B (70, saturates)                 [=============B==============]
//     C (leaves gaps)[=====================C=====================][====   beside the others, by slices
//
// Slices that fill their windows (or wait for every step, so that a timeslice is nothing to them) run one
// after the other in disjoint windows of one cycle, in proportion to their shares. Slices that leave gaps
// run beside whoever has the window, weighted by timeslices: a window of their own would waste the gaps. A slice
// of several GPUs takes windows on all of them, at the same time, whatever it leaves there: a collective operation
// goes on only while both ends may run.
//
// The parts. An active slice weighs its share; those without one divide what the shares leave of the
// whole, and nobody weighs less than 1 %. All time is dealt out by weight, to nobody more than its max, so
// what idle slices do not use is lent in proportion. Where shares sum to more than the whole, all shrink
// in proportion.
//
// The places. Who takes windows has a place in the cycle: the window that it would have if all who are awake
// (with work now or in the last kAwakeNs) had work. The places of those without are lent, first to the two beside,
// whose windows then go on. So a slice that comes and goes moves nobody's place, and cannot (by chance or by
// design) shift others out of their time; one that sleeps for long takes no room and cuts nobody's window in two.
// When it falls asleep or wakes, the others' windows move, once.
//
// The slices. A window's holder gets one so long against those beside it that its part comes out in its
// window. A ceiling counts all the time in which its slice might run, so who has a max runs alone in its
// window; and one that leaves gaps takes a window, too, when its part is 70 % of its max or more. Maxima
// that sum to <= 100 % are the case in which that holds for all: all windows are disjoint.
//
// Priorities. High: never closed by a window, and while one has work all others run by slices of 20 us, so
// that its work waits little; shares then divide what it leaves, and only its own max bounds it. While one is awake
// the others take windows, whatever they leave in them (side by side by such slices they would do little but switch),
// in the longest cycle, for nothing of it runs during a change of windows either (docs/adr/0010). Low beside
// normal ones: its share (1 % without one) and none of the time that is lent, unless the normal ones are
// all at their max. Without normal ones beside it, low is normal.
//
// Debts. Where a kernel cannot be stopped (level launch) work runs over its window's end. Who has done so for
// long says that it pays (time_debt.h) and counts as idle until it has given the time back.
//
// What must not happen here: state, a clock, a system call.
#pragma once

#include <cstdint>
#include <span>

#include "abi/region.h"

namespace allot::core {

inline constexpr uint32_t kWhole = 1000;  // permille of a GPU
inline constexpr uint64_t kAwakeNs = 10'000'000'000;

// One slice on one GPU, as all agents see it.
struct SliceDemand {
  uint64_t id;              // orders the windows; the same in all agents
  uint32_t share_permille;  // guaranteed; 0 = none asked for
  uint32_t max_permille;    // ceiling; 0 = none
  uint32_t
      gpus;  // how many GPUs it works on while awake: slices of several come first in the cycle
  uint32_t priority;  // AllotPriority; whatever is none of them = normal
  bool active;        // has work for the GPU
  bool saturates;     // see above
  bool frozen;
  bool awake = true;  // has or had work not long ago (kAwakeNs); whoever is active counts as awake
  bool repays = false;  // holds itself back for time that it overran (time_debt.h): takes no window
  bool drains = false;  // its work goes on behind a closed gate
};

struct TimeGrant {
  bool open;                 // its work may run now
  uint64_t until_ns;         // nothing changes before, unless an input does; > now
  uint32_t timeslice_us;     // timeslice of its channel groups; 0 = the driver's own
  uint32_t window_permille;  // its part of the cycle; kWhole = always
};

// At most this many slices with work on one GPU, the first by id, are weighed; the rest run beside them
// by the least slice. Numbers out of their range are clamped (above 1000 permille: 1000; an unknown
// priority: normal).
inline constexpr uint32_t kMaxSlicesOnGpu = 64;

// Fills grants[i] for slices[i]; both of the same size. Neither allocates nor blocks; signal-safe; any
// thread. The order of the slices does not matter, only their ids (equal ids: by their order).
void plan_gpu(std::span<const SliceDemand> slices, uint64_t now_ns, std::span<TimeGrant> grants);

// The length of a cycle, in nanoseconds, with places for `windows` slices: long enough that switches
// (0.7 ms each) cost little, and a whole number of them in a second. Where a slice has a max the cycle is
// kCeilingSpanNs, for of a longer one its ceiling would cut the windows short; and where one works on several
// GPUs, so that its windows begin together on all of them. Beside a high-priority slice it is that of the most.
uint64_t cycle_ns(uint32_t windows);

// A ceiling over a sliding span of time: in any span of kCeilingSpanNs at most max of it is used, hence in
// any second too. Owned by one agent; remembers the intervals in which its slice ran.
inline constexpr uint64_t kCeilingSpanNs = 100'000'000;

class Ceiling {
 public:
  // Another span than kCeilingSpanNs: a multiple of 1000 ns.
  constexpr explicit Ceiling(uint64_t span_ns = kCeilingSpanNs) : span_ns_(span_ns) {}
  // 0 or kWhole = no ceiling. A change counts from the next question on.
  void set_max(uint32_t permille) { max_permille_ = permille; }
  // The slice's work runs from now on / has stopped. Times never go back; a start while running and a
  // stop while stopped change nothing.
  void start(uint64_t now_ns);
  void stop(uint64_t now_ns);
  // What ran before `now_ns` counts no more: it was under another max.
  void forget(uint64_t now_ns);
  // Until when it may run without a stop, if it starts (or goes on) now; `now_ns` = it may not.
  uint64_t may_run_until(uint64_t now_ns) const;
  // The first moment from which it may run for a useful while: min(5 ms, all that the ceiling allows).
  uint64_t next_start(uint64_t now_ns) const;
  // Time used in the span that ends now; more than it was where many short runs had to be joined.
  uint64_t used_ns(uint64_t now_ns) const;

 private:
  static constexpr uint32_t kRuns = 64;
  struct Run {
    uint64_t begin_ns;
    uint64_t end_ns;
  };
  Run run(uint32_t i, uint64_t now_ns) const;  // oldest first; the one under way ends now
  uint32_t runs() const;
  void join_nearest();

  Run runs_[kRuns] = {};  // a ring, oldest at first_
  uint32_t first_ = 0;
  uint32_t count_ = 0;
  uint64_t running_since_ns_ = 0;
  bool running_ = false;
  uint32_t max_permille_ = 0;
  uint64_t span_ns_;
};

// Learns from samples of "had work unfinished" what a slice is: leaving gaps, or filling. Below 880 permille
// busy it leaves gaps, above 945 it saturates; it turns at most once a second and first after 0.3 s of looks. (Seen
// on an H100: a launch-bound load whose kernels take 43 % of its time has unfinished work at 77-81 % of the
// looks, as a launch is under way before its kernel runs; loops that wait for every step 97-99 %.) Looks more
// than 25 ms after the last work count as idleness, not as a gap.
class GapMeter {
 public:
  // One look at the driver: whether work was unfinished, taken while its work could run. Unevenly spaced
  // looks are weighted by the time since the look before (at most 20 ms).
  void sample(uint64_t now_ns, bool unfinished);
  bool saturates() const {
    return saturates_;
  }                                // with hysteresis; a new slice saturates until seen otherwise
  uint32_t busy_permille() const;  // part of its time with unfinished work, smoothed over ~0.3 s
  bool clearly_gaps() const;       // enough was seen, and it left gaps

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

// The same for a slice among others. Only what is seen while nobody else could run tells whether it saturates:
// beside others its work is unfinished because it waits for them. One that leaves gaps and is never undisturbed
// asks for windows for a moment, to see whether it still does; first after 10 s, then ever more rarely. A trial
// costs those who leave gaps a part of their throughput, so there is none while gaps are seen even beside others.
// Looks without work that are far from the look before (a slice alone is looked at five times a second) are gaps
// if there is work again within 10 ms, so that one that leaves gaps is known as such when a neighbour comes.
class GapWatch {
 public:
  // One look, while it has work or had a moment ago. `open_ns`: how long its work could run since the look before.
  void look(uint64_t now_ns, uint64_t open_ns, bool undisturbed, bool unfinished);
  bool saturates() const { return meter_.saturates() || trial_meter_ns_ != 0; }
  uint32_t busy_permille() const { return meter_.busy_permille(); }

 private:
  static constexpr uint64_t kTrialFirstNs = 10'000'000'000;

  GapMeter meter_;
  GapMeter beside_;        // of the looks that were disturbed
  uint64_t doubt_ns_ = 0;  // a look without work, of which is not known yet what it was; 0 = none
  uint64_t doubt_open_ns_ = 0;
  // Their clocks: time in which it could run. The first begins so late that the first turn need not wait.
  uint64_t meter_ns_ = 2'000'000'000;
  uint64_t beside_ns_ = 2'000'000'000;
  uint64_t undisturbed_ns_ = 0;  // when it ran last
  uint64_t trial_after_ns_ = kTrialFirstNs;
  uint64_t trial_meter_ns_ = 0;  // on the meter's clock, the end of the trial; 0 = none
  uint64_t trial_end_ns_ = 0;
};

// Admission: whether a slice with `share_permille` fits beside others with the shares given (0 = none
// asked for: fits always, it gets what is left). Never overflows.
bool share_fits(std::span<const uint32_t> shares_permille, uint32_t share_permille);

}  // namespace allot::core
