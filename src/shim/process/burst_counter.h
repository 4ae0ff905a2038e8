// Bursts of this process's GPU work: from the first submission to the end of the wait for it
// (core/time_use.h).
//
// Counted while the agent asks (kBursts), by the threads that submit and wait: one load for a
// submission inside a burst, a clock for the first and for the wait that ends it. A burst that no
// wait ends, of a program that polls memory or takes a callback, is ended by the prober when it
// finds nothing unfinished. Not where waits end bursts: between two launches of a program that is
// bound by them nothing is unfinished either, and its burst is not over.
//
// Times are of the open clock, which the agent stops while the process's work may not run. Of the
// process, not of a GPU: a slice that works on several GPUs has windows on each of them and is not
// measured.
//
// What must not happen here: a lock; a wait; a change of errno.
#pragma once

#include <cstdint>

namespace allot::shim {

struct BurstCounts {
  uint64_t open_ns;  // the open clock
  uint64_t bursts;   // ended
  uint64_t waits;    // of these by a wait, not by a look
  uint64_t busy_ns;  // in bursts, by the open clock; of the one under way, so far
};

// A submission / the end of a wait. Any thread, signal-safe; some 5 ns, and a clock where a burst
// begins or ends.
void burst_begins();
void burst_ends();
// The prober found nothing unfinished.
void burst_seen_idle();

// For the agent.
BurstCounts burst_counts(uint64_t now_ns);
void burst_clock(bool open, uint64_t at_ns);  // runs / stands from then on

// Starts afresh: what is under way began before anybody counted. Also in a forked child.
void forget_bursts();

}  // namespace allot::shim
