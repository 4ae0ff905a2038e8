// Who wants to know about the program's calls: one word, 0 while nobody does.
//
// A hook reads it once. Each bit has its own owner, which sets and clears it by atomic or / and.
// time/submit.h says what the bits do to a submission.
#pragma once

#include <atomic>
#include <cstdint>

namespace allot::shim {

inline constexpr uint32_t kWakeOnSubmit = 1;  // the agent wants to be woken by the next submission
inline constexpr uint32_t kGate = 2;          // every submission passes time/launch_gate.h
inline constexpr uint32_t kCapture = 4;       // a stream is being captured; time/streams.h owns it
inline constexpr uint32_t kSwap = 8;          // every submission passes swap_gate.h; never cleared
inline constexpr uint32_t kBursts = 32;       // bursts are counted (burst_counter.h)
inline constexpr uint32_t kRefuse = 16;  // the slice fails closed and its GPU time cannot be held
inline constexpr uint32_t kUnheld = 64;  // the same, for want of a place in a table

extern constinit std::atomic<uint32_t> submit_watch;

// Calls of the program that submit nothing (memory, contexts, queries, waits) are counted from
// begin to end while kWakeOnSubmit is set, that is while the process is idle. So the agent of an
// evicted slice sees that a thread waits inside the driver. Costs one load while nobody wants to
// know. Any thread; signal-safe.
inline bool calls_are_watched() {
  return (submit_watch.load(std::memory_order_relaxed) & kWakeOnSubmit) != 0;
}
// Whether the end of a wait ends a burst. One load.
inline bool bursts_are_counted() {
  return (submit_watch.load(std::memory_order_relaxed) & kBursts) != 0;
}
void watched_call_begins();
void watched_call_ends();
uint32_t watched_calls_under_way();

// In a forked child that starts afresh: nobody watches.
void abandon_submit_watch();

}  // namespace allot::shim
