// Streams come and go, and are captured: the hooks that keep the table of streams.h.
//
// A capture draws in other streams when they wait for an event of it, so while one is under way
// every cuStreamWaitEvent marks its stream; the mark holds until no capture is under way. Whether
// the end of a capture was one is asked of the driver, which refuses it from the wrong thread or
// stream.
#include "abi/region.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/hook_guard.h"
#include "shim/process/hook_lists.h"
#include "shim/process/process.h"
#include "shim/time/stream_table.h"
#include "shim/time/streams.h"
#include "shim/time/submit.h"
#include "shim/time/submit_entries.h"
#include "shim/time/tables.h"

namespace allot::shim {

using namespace streams;

namespace {

// ---- captures ----------------------------------------------------------------------------------

void one_capture_more() {
  if (table.captures.fetch_add(1) == 0) table.epoch.fetch_add(1);
  submit_watch.fetch_or(kCapture);
  wait_until_not_asked(table.asked_stream, number(CU_STREAM_LEGACY));
}

void one_capture_less() {
  uint32_t captures = table.captures.load();
  while (captures != 0 && !table.captures.compare_exchange_weak(captures, captures - 1)) {
  }
  if (captures > 1) return;
  submit_watch.fetch_and(~kCapture);
  if (table.captures.load() != 0) submit_watch.fetch_or(kCapture);
}

CUresult capture_status(CUstream stream, bool per_thread, CUstreamCaptureStatus* status) {
  return per_thread ? real::cuStreamIsCapturing_ptsz(stream, status)
                    : real::cuStreamIsCapturing(stream, status);
}

bool captured_now(CUstream stream, bool per_thread) {
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  return capture_status(stream, per_thread, &status) == CUDA_SUCCESS &&
         status != CU_STREAM_CAPTURE_STATUS_NONE;
}

template <auto& Begin, bool per_thread, class... A>
CUresult begin_capture(const Moving& guard, CUstream stream, A... rest) {
  if (!guard.tracking()) return Begin(stream, rest...);
  one_capture_more();
  StreamPlace* place = find_stream(number(stream));
  uint32_t nobody = 0;
  const bool ours =
      place == nullptr || place->capturer.compare_exchange_strong(nobody, sys::current_tid());
  if (place != nullptr) {
    wait_until_not_asked(table.asked_stream, number(stream));
  } else {
    table.own_captures.fetch_add(1);
  }
  const CUresult result = Begin(stream, rest...);
  if (result == CUDA_SUCCESS && ours) return result;
  if (place == nullptr) {
    table.own_captures.fetch_sub(1);
  } else if (ours) {
    place->capturer.store(0);
  }
  one_capture_less();
  return result;
}

template <auto& End, bool per_thread, class... A>
CUresult end_capture(const Observing& guard, CUstream stream, A... rest) {
  if (!guard.tracking()) return End(stream, rest...);
  StreamPlace* place = find_stream(number(stream));
  const bool before =
      place != nullptr ? place->capturer.load() != 0 : captured_now(stream, per_thread);
  const CUresult result = End(stream, rest...);
  if (!before || captured_now(stream, per_thread)) return result;
  if (place != nullptr) {
    capture_ended(*place);
  } else if (table.own_captures.load() != 0) {
    table.own_captures.fetch_sub(1);
    one_capture_less();
  }
  return result;
}

// Without a guard while nothing is captured: it changes nothing then.
template <auto& Wait>
CUresult wait_event(CUstream stream, CUevent event, unsigned flags) {
  if ((submit_watch.load(std::memory_order_relaxed) & kCapture) == 0) [[likely]] {
    return Wait(stream, event, flags);
  }
  const auto guard = Observing::on_the_slow_way();
  StreamPlace* place = guard.tracking() ? find_stream(number(stream)) : nullptr;
  if (place != nullptr) {
    place->joined_epoch.store(table.epoch.load());
    wait_until_not_asked(table.asked_stream, number(stream));
  }
  return Wait(stream, event, flags);
}

// ---- streams -----------------------------------------------------------------------------------

// The current context's number, in the table.
uint64_t current_context() {
  CUcontext context = nullptr;
  CUdevice ordinal = 0;
  if (real::cuCtxGetCurrent(&context) != CUDA_SUCCESS || context == nullptr) return 0;
  if (find_context(number(context)) == nullptr && real::cuCtxGetDevice(&ordinal) == CUDA_SUCCESS) {
    add_context(number(context), 0, ordinal);
  }
  return number(context);
}

template <auto& Create, class... A>
CUresult create(const Observing& guard, CUstream* out, A... rest) {
  const CUresult result = Create(out, rest...);
  if (result == CUDA_SUCCESS && guard.tracking()) add_stream(*out, current_context());
  return result;
}

CUresult create_green(const Observing& guard, CUstream* out, CUgreenCtx green, unsigned flags,
                      int priority) {
  const CUresult result = real::cuGreenCtxStreamCreate(out, green, flags, priority);
  if (result != CUDA_SUCCESS || !guard.tracking()) return result;
  const uint32_t end = table.contexts_high.load();
  for (uint32_t i = 0; i < end; ++i) {
    const ContextPlace& place = table.contexts[i];
    if (place.green.load() != number(green)) continue;
    add_stream(*out, place.handle.load());
    return result;
  }
  table.overflowed.store(1);  // a stream that nobody can query
  table_full(ALLOT_TABLE_STREAMS);
  return result;
}

CUresult context_of_green(const Observing& guard, CUcontext* out, CUgreenCtx green) {
  const CUresult result = real::cuCtxFromGreenCtx(out, green);
  if (result != CUDA_SUCCESS || !guard.tracking()) return result;
  const uint32_t end = table.contexts_high.load();
  for (uint32_t i = 0; i < end; ++i) {
    const ContextPlace& place = table.contexts[i];
    if (place.green.load() != number(green)) continue;
    add_context(number(*out), number(green), place.ordinal.load());
    return result;
  }
  return result;
}

// Gone before the driver is called: a handle that it gives out again must not be taken for this
// one.
template <auto& Destroy>
CUresult destroy(const Observing& guard, CUstream stream) {
  StreamPlace* place = guard.tracking() ? find_stream(number(stream)) : nullptr;
  if (place != nullptr) {
    capture_ended(*place);
    place->handle.store(0);
    wait_until_not_asked(table.asked_stream, number(stream));
  }
  return Destroy(stream);
}

// Whether a capture can begin or end without a hook: a new entry of the driver does not compile.
constexpr bool begins_and_ends_of_captures_are_in(std::span<const Hook> hooks) {
  for (const SubmitEntry& entry : kAllEntries) {
    const std::string_view name = entry.name;
    if (entry.cls != driver::Class::kCapture) continue;
    if (!name.starts_with("cuStreamBegin") && !name.starts_with("cuStreamEnd")) continue;
    bool found = false;
    for (const Hook& hook : hooks) found = found || std::string_view(hook.symbol) == entry.symbol;
    if (!found) return false;
  }
  return true;
}

}  // namespace

namespace streams {

void capture_ended(StreamPlace& place) {
  if (place.capturer.exchange(0) != 0) one_capture_less();
}

}  // namespace streams

bool stream_captures(CUstream stream, bool per_thread) {
  if (table.captures.load() == 0) return false;
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  // The legacy stream answers with an error while a stream that waits for it is captured.
  return capture_status(stream, per_thread, &status) != CUDA_SUCCESS ||
         status != CU_STREAM_CAPTURE_STATUS_NONE;
}

bool something_captures() {
  return table.captures.load() != 0;
}

bool thread_captures() {
  if (table.captures.load() == 0) return false;
  if (table.own_captures.load() != 0 && captured_now(CU_STREAM_PER_THREAD, true)) return true;
  const uint32_t me = sys::current_tid();
  const uint32_t end = table.streams_high.load();
  for (uint32_t i = 0; i < end; ++i) {
    if (table.streams[i].capturer.load() == me) return true;
  }
  return false;
}

void abandon_streams() {
  for (StreamPlace& place : table.streams) {
    place.handle.store(0);
    place.capturer.store(0);
  }
  for (ContextPlace& place : table.contexts) place.handle.store(0);
  table.streams_high.store(0);
  table.contexts_high.store(0);
  table.overflowed.store(0);
  table.captures.store(0);
  table.own_captures.store(0);
  table.asked_stream.store(0);
  table.asked_context.store(0);
  abandon_submissions();
}

std::span<const Hook> stream_hooks() {
  using Nodes = const CUgraphNode*;
  using Edges = const CUgraphEdgeData*;
  using Mode = CUstreamCaptureMode;
  static constexpr Hook hooks[] = {
      hook<create<real::cuStreamCreate, unsigned>>("cuStreamCreate"),
      hook<create<real::cuStreamCreateWithPriority, unsigned, int>>("cuStreamCreateWithPriority"),
      hook<create_green>("cuGreenCtxStreamCreate"),
      hook<context_of_green>("cuCtxFromGreenCtx"),
      hook<destroy<real::cuStreamDestroy>>("cuStreamDestroy"),
      hook<destroy<real::cuStreamDestroy_v2>>("cuStreamDestroy_v2"),
      unguarded<wait_event<real::cuStreamWaitEvent>>("cuStreamWaitEvent"),
      unguarded<wait_event<real::cuStreamWaitEvent_ptsz>>("cuStreamWaitEvent_ptsz"),
      hook<begin_capture<real::cuStreamBeginCapture, false>>("cuStreamBeginCapture"),
      hook<begin_capture<real::cuStreamBeginCapture_ptsz, true>>("cuStreamBeginCapture_ptsz"),
      hook<begin_capture<real::cuStreamBeginCapture_v2, false, Mode>>("cuStreamBeginCapture_v2"),
      hook<begin_capture<real::cuStreamBeginCapture_v2_ptsz, true, Mode>>(
          "cuStreamBeginCapture_v2_ptsz"),
      hook<begin_capture<real::cuStreamBeginCaptureToGraph, false, CUgraph, Nodes, Edges, size_t,
                         Mode>>("cuStreamBeginCaptureToGraph"),
      hook<begin_capture<real::cuStreamBeginCaptureToGraph_ptsz, true, CUgraph, Nodes, Edges,
                         size_t, Mode>>("cuStreamBeginCaptureToGraph_ptsz"),
      hook<begin_capture<real::cuStreamBeginRecaptureToGraph, false, Mode, CUgraph, void*, void*>>(
          "cuStreamBeginRecaptureToGraph"),
      hook<begin_capture<real::cuStreamBeginRecaptureToGraph_ptsz, true, Mode, CUgraph, void*,
                         void*>>("cuStreamBeginRecaptureToGraph_ptsz"),
      hook<begin_capture<real::cuStreamBeginCaptureToCig, false, void*>>(
          "cuStreamBeginCaptureToCig"),
      hook<begin_capture<real::cuStreamBeginCaptureToCig_ptsz, true, void*>>(
          "cuStreamBeginCaptureToCig_ptsz"),
      hook<end_capture<real::cuStreamEndCapture, false, CUgraph*>>("cuStreamEndCapture"),
      hook<end_capture<real::cuStreamEndCapture_ptsz, true, CUgraph*>>("cuStreamEndCapture_ptsz"),
      hook<end_capture<real::cuStreamEndCaptureToCig, false>>("cuStreamEndCaptureToCig"),
      hook<end_capture<real::cuStreamEndCaptureToCig_ptsz, true>>("cuStreamEndCaptureToCig_ptsz"),
  };
  static_assert(begins_and_ends_of_captures_are_in(hooks));
  return hooks;
}

}  // namespace allot::shim
