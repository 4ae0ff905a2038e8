// Every call that puts work on the GPU: who asks to know of it, and what it costs when nobody does.
//
// All launch forms, graph launches, copies, sets and prefetches of the table are hooked. While nobody asks,
// submit_watch is 0 and a hook is one load and a jump into the driver; a bit of it sends the call through
// submission_begins() and submission_ends(). Entries that put no work of their own on the GPU (events, host
// functions, waits for values) stand with the reason in submit_entries.h.
//
// What must not happen here: a lock, or anything that lasts, on the way of a process without limits; a
// submission that is held back because nobody is there to let it go (gate.h bounds that).
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "driver/cuda_abi.h"
#include "shim/entry/hooks.h"

namespace allot::shim {

// Bits of submit_watch. Set and cleared by atomic or / and: each bit has another owner.
inline constexpr uint32_t kWakeOnSubmit = 1;  // the agent wants to be woken by the next submission
inline constexpr uint32_t kGate = 2;          // every submission goes through the gate (gate.h)
inline constexpr uint32_t kCapture = 4;       // a stream is being captured; streams.cc's own
inline constexpr uint32_t kSwap = 8;  // every submission passes swap_gate.h; set for good, or never

inline constexpr uint32_t kRefuse = 16;  // the slice fails closed and its GPU time cannot be held

extern constinit std::atomic<uint32_t> submit_watch;

// Calls of the program that submit nothing (memory, contexts, queries, waits): counted from begin to end while
// kWakeOnSubmit is set, that is while the process is idle, so that the agent of an evicted slice sees that somebody
// waits for it inside the driver. One load where nobody asks.
inline bool calls_are_watched() {
  return (submit_watch.load(std::memory_order_relaxed) & kWakeOnSubmit) != 0;
}
void watched_call_begins();
void watched_call_ends();
uint32_t watched_calls_under_way();

// Called once for each kWakeOnSubmit that was set, by the thread that submits and before it does: it must not block,
// allocate, call the driver or change errno; safe in a signal handler. Null: nobody is called. That the
// submission is on its way is seen by unfinished_work() (streams.h) until the driver has it.
extern constinit std::atomic<void (*)()> wake_handler;

// What is known of one call.
struct Submission {
  CUstream stream;  // null: the default stream, or an entry that takes none
  bool per_thread;  // a null stream is the thread's own, not the legacy one
  uint64_t work;    // what costs about the same each time: a kernel, an executable graph, an entry
  bool returns_at_once;  // the work may go on after the call; else it has ended, or nearly
};

// The stream is the thread's own default stream.
inline bool uses_own_stream(const Submission& submission) {
  return submission.stream == nullptr ? submission.per_thread
                                      : submission.stream == CU_STREAM_PER_THREAD;
}

// Threads that are between the two now, without those that wait at a closed gate. 0 after a thread has been
// in there for 10 s: it was cancelled inside the driver, or waits for work that the streams show.
uint32_t submissions_under_way();

// A thread that is let wait before it submits is not submitting.
void submission_waits();
void submission_goes_on();

// When a thread last submitted to its own default stream while submit_watch was not 0; sys::monotonic_ns(),
// 0 = never. Such streams cannot be asked after from another thread.
uint64_t last_per_thread_submission();

// The hooks of cuGraphLaunch and its per-thread form, for memory_graph.cc, which hooks these entries too.
CUresult submit_graph(uint64_t exec, uint64_t stream);
CUresult submit_graph_ptsz(uint64_t exec, uint64_t stream);

// In a forked child that starts afresh.
void abandon_submissions();

// All hooks but the two above.
std::span<const Hook> submit_hooks();

}  // namespace allot::shim
