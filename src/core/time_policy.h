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

// Admission: whether a slice with `share_permille` fits beside others with the shares given (0 = none
// asked for: fits always, it gets what is left). Never overflows.
bool share_fits(std::span<const uint32_t> shares_permille, uint32_t share_permille);

}  // namespace allot::core
