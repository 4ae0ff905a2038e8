// Who may run on a GPU, and when: the policy of GPU time.
//
// Pure and without memory: given the slices of one GPU and the time of the machine's monotonic
// clock, plan_gpu says for each slice whether its work may run now, until when that stays so, and
// how long its timeslices are. Every slice's agent computes it from what all have published, so
// nobody leads, nobody has to be trusted, and nobody's death stops the others: equal input, equal
// schedule.
//
//     time --->      |<------- period ------->|
//     A (saturates)  [===A===]                [===A===]                alone in its windows
//     B (saturates)           [=======B=======]        [=======B====
//
//     W (waits)      [=======W=======]        [=======W=======]        goes first in its windows
//     A (saturates)  [...............===A=====................===A=    uses W's gaps, then is alone
//
//     R (waits)      r    r    r    r    r    r    r    r    r    r   within its part: never closed
//     A (saturates)  ..A...A....A....A....A....A....A....A....A....    beside it, by 20 us
//
// A share is progress: the part of what a program does alone. Three ways to run keep it, whatever
// kind of program has it.
//
// Alone. While a window is a slice's own, it makes the progress that it makes alone. So a window as
// long as the part keeps any share. Slices that saturate the GPU take such windows, and so do those
// that leave gaps too short for anybody else.
//
// First. A program that waits for its work leaves gaps. In its window it goes first: it has long
// timeslices and one neighbour, with timeslices of 20 us, has its gaps. What that costs the
// neighbour is the footprint (core/time_use.h): the bursts and the switches around them, which its
// cause pays for. A window of part / footprint costs the others exactly the part, and gives the
// program at least the part, since its bursts cost the others more than they cost itself.
//
// First all the time. A slice whose whole footprint fits into its part needs no window: it is never
// closed, and the others divide the rest of the GPU with timeslices of 20 us. It has credit for
// this (core/time_use.h); when that is spent it takes windows like the others.
//
// Beside. Where nobody needs the GPU for itself, all run side by side, weighted by timeslices: they
// fill each other's gaps, which windows would waste.
//
// The parts are a weighted max-min allocation, work-conserving: an active slice weighs its share;
// those without one divide what the shares leave, and nobody weighs less than 1 %. Nobody gets more
// than its max; what idle slices do not use is lent in proportion. Where shares sum to more than
// the whole, all shrink in proportion.
//
// The places. A slice with windows has a place in the period: the window that it would have if all
// who are awake (with work now or in the last kAwakeNs) had work. The places of idle slices are
// lent, first to the two beside, whose windows then continue. So a slice that comes and goes moves
// nobody's place, and cannot (by chance or by design) shift others out of their time. When it falls
// asleep or wakes, the others' windows move, once.
//
// The period. Without anybody who waits for its work it is long, for each change of windows costs
// some 0.3 ms of the GPU. With one it is short, so that nobody is stopped for longer than its
// latency (16 ms unless given). With more than two windows the shares come first: 15 ms each.
//
// Ceilings. Windows hold the max of a slice that runs alone in them, since a part is never more
// than the max. All others are held by their own agent, by what they used.
//
// Priorities. High: goes first all the time, without credit; shares divide what it leaves. While
// one is awake the others take windows, whatever they leave in them, in the longest period, for
// nothing of it runs during a change of windows either (docs/adr/0010). Low beside normal ones: its
// share (1 % without one) and none of the time that is lent, unless the normal ones are all at
// their max. Without normal ones beside it, low is normal.
//
// Several GPUs. A slice that works on several has windows on each of them, at the same time: a
// collective operation proceeds only while both ends may run.
//
// Debts. Where a kernel cannot be stopped (level launch) work runs over its window's end. A slice
// that has overrun by more than 10 ms says that it repays (time_debt.h) and counts as idle until
// its debt is zero.
//
// What must not happen here: state, a clock, a system call.
#pragma once

#include <cstdint>
#include <span>

#include "abi/region.h"

namespace allot::core {

inline constexpr uint32_t kWhole = 1000;  // permille of a GPU
// Longer than a pause for input, short enough that its place in the period is free again.
inline constexpr uint64_t kAwakeNs = 10'000'000'000;
// Two decode loops at 30:70 wait 15 and 7 ms (p99) with it, 71 and 31 with a period of 100 ms; the
// changes of windows cost 3 % (H200).
inline constexpr uint64_t kDefaultLatencyNs = 16'000'000;

// One slice on one GPU, as all agents see it.
struct SliceDemand {
  uint64_t id;              // orders the windows; the same in all agents
  uint32_t share_permille;  // guaranteed; 0 = none asked for
  uint32_t max_permille;    // ceiling; 0 = none
  uint32_t gpus;            // that it works on while awake; slices of several come first
  uint32_t priority;        // AllotPriority; whatever is none of them = normal
  bool active;              // has work for the GPU
  bool saturates;           // see above
  bool frozen;
  bool awake = true;  // has or had work not long ago (kAwakeNs); whoever is active counts as awake
  bool repays = false;  // holds itself back for time that it overran (time_debt.h): takes no window
  bool drains = false;  // its work still runs behind a closed gate
  // Of the GPU's time, what going first costs the others: its work and the switches it causes.
  // kWhole: all.
  uint32_t footprint_permille = kWhole;
  bool credit = false;      // has used less than its part lately (core/time_use.h)
  bool waits = false;       // waits for its work every few milliseconds, so that it notices a stop
  uint32_t latency_us = 0;  // the longest stop it was given to bear; 0 = kDefaultLatencyNs
};

struct TimeGrant {
  bool open;                        // its work may run now
  uint64_t until_ns;                // nothing changes before, unless an input does; > now
  uint32_t timeslice_us;            // timeslice of its channel groups; 0 = the driver's own
  uint32_t window_permille;         // part of the period in which it may run; kWhole = always
  uint32_t part_permille = kWhole;  // of the GPU's time that it can count on now
  bool first = false;               // within its part: goes first all the time
  bool undisturbed = true;          // no other slice runs beside it
};

// At most this many slices with work on one GPU, the first by id, are weighed; the rest run beside
// them by the least slice. Numbers out of their range are clamped (above 1000 permille: 1000; an
// unknown priority: normal).
inline constexpr uint32_t kMaxSlicesOnGpu = 64;

// Fills grants[i] for slices[i]; both of the same size. Neither allocates nor blocks; signal-safe;
// any thread. The order of the slices does not matter, only their ids (equal ids: by their order).
void plan_gpu(std::span<const SliceDemand> slices, uint64_t now_ns, std::span<TimeGrant> grants);

// The length of a cycle, in nanoseconds, with places for `windows` slices: long enough that
// switches
// (0.7 ms each) cost little, and a whole number of them in a second. Where a slice has a max the
// cycle is kCeilingSpanNs, for of a longer one its ceiling would cut the windows short; and where
// one works on several GPUs, so that its windows begin together on all of them. Beside a
// high-priority slice it is that of the most.
uint64_t cycle_ns(uint32_t windows);

// Admission: whether a slice with `share_permille` fits beside others with the shares given (0 =
// none asked for: fits always, it gets what is left). Never overflows.
bool share_fits(std::span<const uint32_t> shares_permille, uint32_t share_permille);

}  // namespace allot::core
