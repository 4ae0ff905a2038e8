// The table behind streams.h: what streams.cc (the prober) and stream_hooks.cc (the hooks) share.
//
// Places are claimed by compare-and-swap on `handle` (0 free, 1 being filled) and given back by
// storing 0. The prober stores the handle it is about to ask into asked_stream or asked_context and
// then looks at the place again; who ends or captures a stream changes the place and then looks at
// what is asked. Both with sequential consistency, so at least one of them sees the other. What
// must not happen: a place that is read after its handle has changed, except for numbers that only
// make an answer less certain.
#pragma once

#include <atomic>
#include <cstdint>

#include "driver/cuda_abi.h"

namespace allot::shim::streams {

inline constexpr uint32_t kStreams = 1024;
inline constexpr uint32_t kContexts = 128;
inline constexpr uint64_t kFilling = 1;  // no handle has this value: CU_STREAM_LEGACY

struct alignas(32) StreamPlace {  // never across two cache lines
  std::atomic<uint64_t> handle;
  std::atomic<uint64_t> context;       // as in ContextPlace
  std::atomic<uint32_t> capturer;      // thread that began a capture of it; 0 = not captured
  std::atomic<uint32_t> joined_epoch;  // it may have joined a capture of that epoch
};

struct ContextPlace {
  std::atomic<uint64_t> handle;
  std::atomic<uint64_t> green;  // the green context it ends with, or 0
  std::atomic<int32_t> ordinal;
  std::atomic<uint32_t> ending;  // threads in a call that may end it
};

struct Table {
  StreamPlace streams[kStreams];
  ContextPlace contexts[kContexts];
  std::atomic<uint32_t> streams_high;  // places at and above it were never used
  std::atomic<uint32_t> contexts_high;
  std::atomic<uint32_t> overflowed;    // something did not fit: no answer is certain any more
  std::atomic<uint32_t> captures;      // under way now
  std::atomic<uint32_t> epoch;         // counts the times that captures rose from 0
  std::atomic<uint32_t> own_captures;  // of these, of threads' own default streams
  std::atomic<uint64_t>
      asked_stream;  // what the prober is asking; CU_STREAM_LEGACY: of the context
  std::atomic<uint64_t> asked_context;
};
extern constinit Table table;

inline uint64_t number(const void* handle) {
  return reinterpret_cast<uint64_t>(handle);
}

StreamPlace* find_stream(uint64_t handle);
ContextPlace* find_context(uint64_t handle);

void add_stream(CUstream stream, uint64_t context);
ContextPlace* add_context(uint64_t handle, uint64_t green, CUdevice ordinal);

// If it is being captured, not any more.
void capture_ended(StreamPlace& place);

// Waits until the prober asks something else; at most 2 s.
void wait_until_not_asked(const std::atomic<uint64_t>& asked, uint64_t handle);

}  // namespace allot::shim::streams
