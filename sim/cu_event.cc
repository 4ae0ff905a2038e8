// Entries of events. Times are those of the GPU's timeline, not of the moment somebody looked.
#include <time.h>

#include "handles.h"
#include "ipc.h"
#include "runtime.h"

using namespace allot::sim;

namespace {

CUresult record(CUevent handle, CUstream stream, bool ptds, unsigned flags) {
  Stream* s = nullptr;
  if (const CUresult r = find_stream(stream, ptds, &s); r != CUDA_SUCCESS) return r;
  Event* e = to_event(handle);
  if (e == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if ((flags & ~1u) != 0) return CUDA_ERROR_INVALID_VALUE;
  if (e->state->context != nullptr && e->state->context != s->context)
    return CUDA_ERROR_INVALID_HANDLE;
  if (capturing(s) && (flags & CU_EVENT_RECORD_EXTERNAL) == 0) return capture_record(s, e);
  e->capture.reset();
  e->capture_nodes.clear();
  const uint64_t number =
      e->state->shared != nullptr ? ++e->state->shared->recorded : ++e->state->recorded;
  if (e->state->shared != nullptr) e->state->recorded = number;
  return submit(s, RecordBody{e->state, number});
}

bool done(const Event* e) {
  if (e->state->shared != nullptr) return e->state->shared->done >= e->state->shared->recorded;
  return e->state->completed >= e->state->recorded;
}

int64_t time_of(const Event* e) {
  return e->state->shared != nullptr ? e->state->shared->time_ns.load() : e->state->time_ns.load();
}

CUresult sticky(const Event* e) {
  return e->state->context != nullptr ? e->state->context->error.load() : CUDA_SUCCESS;
}

CUresult elapsed(float* ms, CUevent from_handle, CUevent to_handle) {
  const Event *from = to_event(from_handle), *to = to_event(to_handle);
  if (ms == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (from == nullptr || to == nullptr ||
      ((from->flags | to->flags) & CU_EVENT_DISABLE_TIMING) != 0 || time_of(from) == 0 ||
      (time_of(to) == 0 && done(to))) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  if (!done(from) || !done(to)) return CUDA_ERROR_NOT_READY;
  *ms = static_cast<float>(static_cast<double>(time_of(to) - time_of(from)) / 1e6);
  return CUDA_SUCCESS;
}

}  // namespace

SIM_API cuEventCreate(CUevent* out, unsigned flags) {
  SIM_CONTEXT(c);
  if (out == nullptr || (flags & ~7u) != 0) return CUDA_ERROR_INVALID_VALUE;
  if ((flags & CU_EVENT_INTERPROCESS) != 0 && (flags & CU_EVENT_DISABLE_TIMING) == 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  auto* e = Handles<Event>::make();
  e->flags = flags;
  e->state->context = c;
  if ((flags & CU_EVENT_INTERPROCESS) != 0) {
    e->state->shared = take_ipc_event();
    if (e->state->shared == nullptr) {
      Handles<Event>::bury(e);
      return CUDA_ERROR_OUT_OF_MEMORY;
    }
  }
  *out = reinterpret_cast<CUevent>(e);
  return CUDA_SUCCESS;
}

SIM_API cuEventDestroy_v2(CUevent handle) {
  SIM_ENTER();
  Event* e = to_event(handle);
  if (e == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (e->state->shared != nullptr) drop_ipc_event(e->state->shared);
  Handles<Event>::bury(e);  // queued work keeps its own reference to the state
  return CUDA_SUCCESS;
}
SIM_API cuEventDestroy(CUevent handle) {
  return cuEventDestroy_v2(handle);
}

SIM_API cuEventRecord(CUevent e, CUstream s) {
  SIM_ENTER();
  return record(e, s, false, 0);
}
SIM_API cuEventRecord_ptsz(CUevent e, CUstream s) {
  SIM_ENTER();
  return record(e, s, true, 0);
}
SIM_API cuEventRecordWithFlags(CUevent e, CUstream s, unsigned flags) {
  SIM_ENTER();
  return record(e, s, false, flags);
}
SIM_API cuEventRecordWithFlags_ptsz(CUevent e, CUstream s, unsigned flags) {
  SIM_ENTER();
  return record(e, s, true, flags);
}

SIM_API cuEventQuery(CUevent handle) {
  SIM_ENTER();
  const Event* e = to_event(handle);
  if (e == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (e->capture != nullptr) return CUDA_ERROR_CAPTURED_EVENT;
  if (const CUresult r = sticky(e); r != CUDA_SUCCESS) return r;
  return done(e) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

SIM_API cuEventSynchronize(CUevent handle) {
  SIM_ENTER();
  const Event* e = to_event(handle);
  if (e == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (e->capture != nullptr) return CUDA_ERROR_CAPTURED_EVENT;
  auto state = e->state;
  Context* c = state->context;
  if (state->shared != nullptr) {  // another process may record it: nobody here would be told
    const uint64_t number = state->shared->recorded;
    while (state->shared->done < number && sticky(e) == CUDA_SUCCESS) {
      timespec t{0, 50'000};
      nanosleep(&t, nullptr);
    }
    return sticky(e);
  }
  const uint64_t number = state->recorded;
  hub().wait([&] {
    return state->completed >= number || (c != nullptr && (c->error != CUDA_SUCCESS || c->quit));
  });
  if (c != nullptr) pools_after_sync(c->gpu);
  return sticky(e);
}

SIM_API cuEventElapsedTime(float* ms, CUevent from, CUevent to) {
  SIM_ENTER();
  return elapsed(ms, from, to);
}
SIM_API cuEventElapsedTime_v2(float* ms, CUevent from, CUevent to) {
  SIM_ENTER();
  return elapsed(ms, from, to);
}
