// Counters in the region: what a process and a slice have had and done. They only grow.
//
// A process's counters are in its slot's entry of swaps[] (abi/region.h), and stay there when it
// has ended, until another process takes the slot: so a program that calls exec continues those of
// its process, and nobody loses what a reader has seen. Slices keep the sums.
#pragma once

#include <cstdint>

#include "abi/region.h"
#include "core/shared.h"

namespace allot::core {

// The counters of the process in slot `index` whose word is `word`; null where its library does not
// keep any (region 1.4). Any thread; signal-safe.
inline AllotCounters* counters_of(AllotSliceFile& file, uint32_t index, uint64_t word) {
  AllotCounters& counters = file.swaps[index].counters;
  const bool its = load(counters.counted) == ALLOT_SLOT_GENERATION(word) + 1 &&
                   load(counters.pid) == ALLOT_SLOT_PID(word);
  return its ? &counters : nullptr;
}

inline void count(uint64_t& counter, uint64_t by) {
  __atomic_fetch_add(&counter, by, __ATOMIC_RELAXED);
}

// A clock in one word, so that whoever is killed leaves it whole: even = 2 x the time so far; odd =
// it runs, and 2 x (when it began, less the time before) + 1. Times in ns of CLOCK_MONOTONIC.
inline uint64_t clock_ns(uint64_t clock, uint64_t now_ns) {
  const uint64_t value = clock >> 1;
  if ((clock & 1) == 0) return value;
  return now_ns > value ? now_ns - value : 0;
}

inline void turn_clock(uint64_t& clock, bool on, uint64_t now_ns) {
  uint64_t seen = load(clock);
  for (;;) {
    if (((seen & 1) != 0) == on) return;
    const uint64_t so_far = clock_ns(seen, now_ns);
    const uint64_t next = on ? (now_ns > so_far ? now_ns - so_far : 0) << 1 | 1 : so_far << 1;
    if (__atomic_compare_exchange_n(&clock, &seen, next, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
      return;
  }
}

}  // namespace allot::core
