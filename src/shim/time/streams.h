// The streams of this process, and whether work in them is unfinished, as the driver says.
//
// Streams and contexts are learned where they are made and forgotten before they end. One thread,
// the prober, asks cuStreamQuery over the streams of a GPU: that costs a microsecond each and the
// program nothing. What must not happen here: a query of a stream that is being captured or
// destroyed, of the legacy default stream while anything is captured (both would break the
// capture), or of a context that is gone. So the prober publishes what it is about to query, and
// the hooks that end or capture it mark it first and then wait, 2 s at most and usually not at all,
// until the prober has released it. No lock.
//
// Another thread cannot query a thread's own default stream: its last submission is recorded
// (submit.h), and the answer is kUnknown for 50 ms after it (docs/limits.md).
#pragma once

#include <cstdint>
#include <span>

#include "driver/cuda_abi.h"
#include "shim/process/hook.h"

namespace allot::shim {

enum class Work {
  kNone,        // everything that was submitted has ended
  kUnfinished,  // something has not
  kUnknown,     // nothing is known to be unfinished, but not every stream could be asked
};

// For one thread of the process only, which must not be one of the program's: its capture mode
// becomes relaxed. `gpu` is an index in the region (Device::gpu). Calls the driver: some 2 us for
// each stream that has nothing to do, and stops at the first that has. kUnfinished while a thread
// is in a watched call (submit.h). kNone for a GPU on which the process has no context.
Work unfinished_work(int gpu);

// For contexts.cc. context_made(): a context is there, told any number of times. context_ends():
// before a call that may end it; waits until the prober has released it, 2 s at most. After the
// call context_gone(), or context_kept() when it still lives; both do nothing for a context that is
// not known. Any thread.
void context_made(CUcontext context, CUdevice ordinal);
void context_ends(CUcontext context);
void context_gone(CUcontext context);
void context_kept(CUcontext context);

// Whether the process has a context on that GPU, as far as is known: true when the table of
// contexts is full.
bool has_context_on(CUdevice ordinal);

// Whether one more context has a place in that table; and whether all streams and contexts had one,
// so that unfinished_work() can say kNone.
bool room_for_context();
bool all_streams_are_known();

// The same for green contexts: what was made of them ends with them.
void green_context_made(CUgreenCtx green, CUdevice ordinal);
void green_context_ends(CUgreenCtx green);
void green_context_gone(CUgreenCtx green);

// Whether this stream is being captured now, asked of the driver only while something in the
// process is. `per_thread`: what a null stream means. Whether this thread has begun a capture that
// has not ended.
bool stream_captures(CUstream stream, bool per_thread);
bool thread_captures();
bool something_captures();  // anywhere in the process

// The calling thread's next driver calls never break a capture of another thread; put back by the
// second, which takes what the first returned.
CUstreamCaptureMode relax_capture_mode();
void restore_capture_mode(CUstreamCaptureMode mode);

// In a forked child that starts afresh: of this file and of submit.h.
void abandon_streams();

std::span<const Hook> stream_hooks();

}  // namespace allot::shim
