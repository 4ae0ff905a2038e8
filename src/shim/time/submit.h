// Every call that puts work on the GPU: who wants to know about it, and what it costs when nobody
// does.
//
// All launch forms, graph launches, copies, sets and prefetches of the table are hooked. While
// nobody does, submit_watch is 0 and a hook is one load and a jump into the driver; a bit of it
// sends the call through submission_begins() and submission_ends(). submit_entries.h lists the
// entries that put no work of their own on the GPU (events, host functions, waits for values), with
// reasons.
//
// What must not happen here: a lock, or a slow operation, on the fast path of a process without
// limits; a submission that is held back although no agent is left to release it (launch_gate.h
// bounds that).
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "driver/cuda_abi.h"
#include "shim/process/hook.h"
#include "shim/process/submit_watch.h"

namespace allot::shim {

// Called once for each kWakeOnSubmit that was set, by the thread that submits and before it does:
// it must not block, allocate, call the driver or change errno; safe in a signal handler. Null:
// nobody is called. That the submission is on its way is seen by unfinished_work() (streams.h)
// until the driver has it.
extern constinit std::atomic<void (*)()> wake_handler;

// What is known of one call.
struct Submission {
  CUstream stream;  // null: the default stream, or an entry that takes none
  bool per_thread;  // a null stream is the thread's own, not the legacy one
  uint64_t work;    // what costs about the same each time: a kernel, an executable graph, an entry
  bool returns_at_once;  // the work may outlast the call; else it has ended, or nearly
};

// The stream is the thread's own default stream.
inline bool uses_own_stream(const Submission& submission) {
  return submission.stream == nullptr ? submission.per_thread
                                      : submission.stream == CU_STREAM_PER_THREAD;
}

// Threads that are between the two now, without those that wait at a closed gate. 0 after a thread
// has been in there for 10 s: it was cancelled inside the driver, or waits for work that the
// streams show.
uint32_t submissions_under_way();

// A thread that is let wait before it submits is not submitting.
void submission_waits();
void submission_goes_on();

// When a thread last submitted to its own default stream while submit_watch was not 0;
// sys::monotonic_ns(), 0 = never. No other thread can query such a stream.
uint64_t last_per_thread_submission();

// The hooks of cuGraphLaunch and its per-thread form, for memory/graph.cc, which hooks these
// entries too.
CUresult submit_graph(uint64_t exec, uint64_t stream);
CUresult submit_graph_ptsz(uint64_t exec, uint64_t stream);

// In a forked child that starts afresh.
void abandon_submissions();

// All hooks but the two above.
std::span<const Hook> submit_hooks();

}  // namespace allot::shim
