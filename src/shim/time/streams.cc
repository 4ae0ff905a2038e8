// The table, the contexts in it, and the prober's question.
#include "shim/time/streams.h"

#include "abi/region.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/hook_guard.h"
#include "shim/process/process.h"
#include "shim/time/stream_table.h"
#include "shim/time/submit.h"
#include "shim/time/tables.h"
#include "shim/time/work_in_flight.h"
#include "sys/clock.h"
#include "sys/futex.h"

namespace allot::shim {
namespace streams {

constinit Table table;

namespace {

// A query takes microseconds, on a machine without a free core some 100 ms. A thread that continues
// too early lets the driver look at an object that is gone; that happens only if the driver keeps
// the prober waiting for this very thread.
constexpr uint64_t kPatienceNs = 2'000'000'000;
constexpr uint64_t kLookAgainNs = 50'000;
constexpr uint32_t kSpins = 200;

// A free place of `places`, claimed; null and overflowed when there is none.
template <class Place, uint32_t count>
Place* claim(Place (&places)[count], std::atomic<uint32_t>& high, uint32_t name) {
  for (uint32_t i = 0; i < count; ++i) {
    uint64_t free = 0;
    if (places[i].handle.load(std::memory_order_relaxed) != 0) continue;
    if (!places[i].handle.compare_exchange_strong(free, kFilling)) continue;
    uint32_t known = high.load();
    while (known <= i && !high.compare_exchange_weak(known, i + 1)) {
    }
    return &places[i];
  }
  table.overflowed.store(1);
  table_full(name);
  return nullptr;
}

template <class Place, uint32_t count>
Place* find(Place (&places)[count], const std::atomic<uint32_t>& high, uint64_t handle) {
  if (handle <= kFilling) return nullptr;
  const uint32_t end = high.load(std::memory_order_acquire);
  for (uint32_t i = 0; i < end; ++i) {
    if (places[i].handle.load(std::memory_order_acquire) == handle) return &places[i];
  }
  return nullptr;
}

}  // namespace

StreamPlace* find_stream(uint64_t handle) {
  return find(table.streams, table.streams_high, handle);
}
ContextPlace* find_context(uint64_t handle) {
  return find(table.contexts, table.contexts_high, handle);
}

void add_stream(CUstream stream, uint64_t context) {
  StreamPlace* place = claim(table.streams, table.streams_high, ALLOT_TABLE_STREAMS);
  if (place == nullptr) return;
  place->context.store(context, std::memory_order_relaxed);
  place->capturer.store(0, std::memory_order_relaxed);
  place->joined_epoch.store(0, std::memory_order_relaxed);
  place->handle.store(number(stream));
}

ContextPlace* add_context(uint64_t handle, uint64_t green, CUdevice ordinal) {
  if (handle <= kFilling) return nullptr;
  if (ContextPlace* known = find_context(handle)) return known;
  ContextPlace* place = claim(table.contexts, table.contexts_high, ALLOT_TABLE_CONTEXTS);
  if (place == nullptr) return nullptr;
  place->green.store(green, std::memory_order_relaxed);
  place->ordinal.store(ordinal, std::memory_order_relaxed);
  place->ending.store(0, std::memory_order_relaxed);
  place->handle.store(handle);
  return place;
}

void wait_until_not_asked(const std::atomic<uint64_t>& asked, uint64_t handle) {
  if (asked.load() != handle) return;
  const uint64_t begin = sys::monotonic_ns();
  for (uint32_t spins = 0; asked.load() == handle; ++spins) {
    if (spins < kSpins) continue;
    // Asleep and not yielding: the prober may need our core.
    sys::futex_wait(&asked, static_cast<uint32_t>(handle), kLookAgainNs, sys::FutexScope::kPrivate);
    if (sys::monotonic_ns() - begin > kPatienceNs) return;
  }
}

}  // namespace streams

namespace {

using namespace streams;

constexpr uint64_t kOwnStreamNs = 50'000'000;

// ---- contexts ----------------------------------------------------------------------------------

void end_begins(ContextPlace& place) {
  place.ending.fetch_add(1);
  wait_until_not_asked(table.asked_context, place.handle.load());
}

void end_fails(ContextPlace& place) {
  uint32_t ending = place.ending.load();
  while (ending != 0 && !place.ending.compare_exchange_weak(ending, ending - 1)) {
  }
}

void forget_context(ContextPlace& place) {
  const uint64_t context = place.handle.load();
  const uint32_t end = table.streams_high.load();
  for (uint32_t i = 0; i < end; ++i) {
    StreamPlace& stream = table.streams[i];
    if (stream.handle.load() <= kFilling || stream.context.load() != context) continue;
    capture_ended(stream);
    stream.handle.store(0);
  }
  place.handle.store(0);
  in_flight_context_gone(context);
}

template <class Act>
void each_of_green(CUgreenCtx green, Act act) {
  const uint32_t end = table.contexts_high.load();
  for (uint32_t i = 0; i < end; ++i) {
    ContextPlace& place = table.contexts[i];
    if (place.handle.load() > kFilling && place.green.load() == number(green)) act(place);
  }
}

// ---- the prober --------------------------------------------------------------------------------

constinit std::atomic<uint32_t> last_busy_stream{0};  // where the last kUnfinished came from
constinit std::atomic<uint32_t> last_busy_context{0};
constinit thread_local bool mode_relaxed __attribute__((tls_model("initial-exec"))) = false;

// Errors of a context that is lost count as no work: it can take none.
bool unfinished(CUstream stream) {
  return real::cuStreamQuery(stream) == CUDA_ERROR_NOT_READY;
}

Work ask_stream(StreamPlace& place, uint64_t context) {
  const uint64_t handle = place.handle.load();
  if (handle <= kFilling || place.context.load() != context) return Work::kNone;
  table.asked_stream.store(handle);
  Work answer = Work::kUnknown;
  const bool joined = table.captures.load() != 0 && place.joined_epoch.load() == table.epoch.load();
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  if (place.handle.load() != handle) {
    answer = Work::kNone;
  } else if (place.capturer.load() == 0 && !joined) {
    const CUstream stream = reinterpret_cast<CUstream>(handle);
    // Ways into a capture that have no hook are seen here.
    if (real::cuStreamIsCapturing(stream, &status) != CUDA_SUCCESS) {
      answer = Work::kNone;
    } else if (status == CU_STREAM_CAPTURE_STATUS_NONE) {
      answer = unfinished(stream) ? Work::kUnfinished : Work::kNone;
    }
  }
  table.asked_stream.store(0);
  return answer;
}

Work ask_default_stream() {
  table.asked_stream.store(number(CU_STREAM_LEGACY));
  Work answer = Work::kUnknown;
  if (table.captures.load() == 0) {
    answer = unfinished(CU_STREAM_LEGACY) ? Work::kUnfinished : Work::kNone;
  }
  table.asked_stream.store(0);
  return answer;
}

// Its context is current.
Work ask_streams_of(uint64_t context) {
  Work answer = Work::kNone;
  const uint32_t end = table.streams_high.load();
  const uint32_t first = last_busy_stream.load(std::memory_order_relaxed);
  for (uint32_t k = 0; k < end + 2; ++k) {
    // First the one that was busy last, then the default stream, then all.
    const uint32_t index = k == 0 ? first : k - 2;
    const Work work = k == 1 ? ask_default_stream() : ask_stream(table.streams[index], context);
    if (work == Work::kUnfinished) {
      if (k > 1) last_busy_stream.store(index, std::memory_order_relaxed);
      return work;
    }
    if (work == Work::kUnknown) answer = work;
  }
  return answer;
}

Work ask_context(ContextPlace& place, int gpu) {
  const uint64_t context = place.handle.load();
  if (context <= kFilling) return Work::kNone;
  const Device* device = device_of(place.ordinal.load());
  if (device == nullptr || device->gpu != gpu) return Work::kNone;
  table.asked_context.store(context);
  Work answer = Work::kNone;
  if (place.handle.load() == context) {
    CUcontext popped = nullptr;
    if (place.ending.load() != 0) {
      answer = Work::kUnknown;
    } else if (real::cuCtxPushCurrent_v2(reinterpret_cast<CUcontext>(context)) == CUDA_SUCCESS) {
      ask_markers(context);
      answer = ask_streams_of(context);
      const bool all = last_per_thread_submission() == 0 && submissions_under_way() == 0;
      if (answer == Work::kNone && all) nothing_in_flight(context);
      real::cuCtxPopCurrent_v2(&popped);
    }
  }
  table.asked_context.store(0);
  return answer;
}

bool context_on(int gpu) {
  const uint32_t end = table.contexts_high.load();
  for (uint32_t i = 0; i < end; ++i) {
    if (table.contexts[i].handle.load() <= kFilling) continue;
    const Device* device = device_of(table.contexts[i].ordinal.load());
    if (device != nullptr && device->gpu == gpu) return true;
  }
  return false;
}

Work ask_contexts(int gpu) {
  Work answer = Work::kNone;
  const uint32_t end = table.contexts_high.load();
  const uint32_t first = last_busy_context.load(std::memory_order_relaxed);
  for (uint32_t k = 0; k <= end; ++k) {
    const uint32_t index = k == 0 ? first : k - 1;
    const Work work = ask_context(table.contexts[index], gpu);
    if (work == Work::kUnfinished) {
      last_busy_context.store(index, std::memory_order_relaxed);
      return work;
    }
    if (work == Work::kUnknown) answer = work;
  }
  return answer;
}

}  // namespace

Work unfinished_work(int gpu) {
  const bool certain = all_streams_are_known();
  if (!context_on(gpu)) return certain ? Work::kNone : Work::kUnknown;
  if (submissions_under_way() != 0) return Work::kUnfinished;
  const OwnCall ours;
  if (!mode_relaxed) {
    relax_capture_mode();
    mode_relaxed = true;
  }
  const Work answer = ask_contexts(gpu);
  if (answer != Work::kNone) return answer;
  const uint64_t own = last_per_thread_submission();
  if (own != 0 && sys::monotonic_ns() - own < kOwnStreamNs) return Work::kUnknown;
  return certain ? Work::kNone : Work::kUnknown;
}

void context_made(CUcontext context, CUdevice ordinal) {
  add_context(number(context), 0, ordinal);
}

void context_ends(CUcontext context) {
  if (ContextPlace* place = find_context(number(context))) end_begins(*place);
}

void context_gone(CUcontext context) {
  if (ContextPlace* place = find_context(number(context))) forget_context(*place);
}

void context_kept(CUcontext context) {
  if (ContextPlace* place = find_context(number(context))) end_fails(*place);
}

bool has_context_on(CUdevice ordinal) {
  if (table.overflowed.load() != 0) return true;
  const uint32_t end = table.contexts_high.load();
  for (uint32_t i = 0; i < end; ++i) {
    const ContextPlace& place = table.contexts[i];
    if (place.handle.load() > kFilling && place.ordinal.load() == ordinal) return true;
  }
  return false;
}

bool room_for_context() {
  for (const ContextPlace& place : table.contexts) {
    if (place.handle.load(std::memory_order_relaxed) == 0) return true;
  }
  return false;
}

bool all_streams_are_known() {
  return table.overflowed.load() == 0;
}

void green_context_made(CUgreenCtx green, CUdevice ordinal) {
  CUcontext context = nullptr;
  if (real::cuCtxFromGreenCtx(&context, green) != CUDA_SUCCESS) return;
  add_context(number(context), number(green), ordinal);
}

void green_context_ends(CUgreenCtx green) {
  each_of_green(green, end_begins);
}

void green_context_gone(CUgreenCtx green) {
  each_of_green(green, forget_context);
}

CUstreamCaptureMode relax_capture_mode() {
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
  real::cuThreadExchangeStreamCaptureMode(&mode);
  return mode;
}

void restore_capture_mode(CUstreamCaptureMode mode) {
  real::cuThreadExchangeStreamCaptureMode(&mode);
}

}  // namespace allot::shim
