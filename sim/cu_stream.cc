// Entries of streams: making, waiting, callbacks, waits for events and for values in memory.
#include <string.h>

#include <algorithm>

#include "both_streams.h"
#include "memory.h"
#include "runtime.h"

using namespace allot::sim;

namespace {

CUstream handle_of(Stream* s) {
  return reinterpret_cast<CUstream>(s);
}

CUresult create(CUstream* out, unsigned flags, int priority) {
  Context* c = nullptr;
  if (const CUresult r = current_context(&c); r != CUDA_SUCCESS) return r;
  if (out == nullptr || (flags & ~1u) != 0) return CUDA_ERROR_INVALID_VALUE;
  *out = handle_of(make_stream(c, flags, priority));
  return CUDA_SUCCESS;
}

CUresult sync_stream(CUstream handle, bool ptds) {
  Stream* s = nullptr;
  if (const CUresult r = find_stream(handle, ptds, &s); r != CUDA_SUCCESS) return r;
  if (const CUresult r = refuse_in_capture(s); r != CUDA_SUCCESS) return r;
  return synchronize(s);
}

CUresult query(CUstream handle, bool ptds) {
  Stream* s = nullptr;
  if (const CUresult r = find_stream(handle, ptds, &s); r != CUDA_SUCCESS) return r;
  if (const CUresult r = refuse_in_capture(s); r != CUDA_SUCCESS) return r;
  return s->completed.load() >= s->submitted.load() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult wait_event(CUstream handle, CUevent event_handle, unsigned flags, bool ptds) {
  Stream* s = nullptr;
  if (const CUresult r = find_stream(handle, ptds, &s); r != CUDA_SUCCESS) return r;
  Event* e = to_event(event_handle);
  if (e == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if ((flags & ~1u) != 0) return CUDA_ERROR_INVALID_VALUE;
  bool done = false;
  if (const CUresult r = capture_wait(s, e, &done); done || r != CUDA_SUCCESS) return r;
  const uint64_t number =
      e->state->shared != nullptr ? e->state->shared->recorded.load() : e->state->recorded.load();
  if (number == 0) return CUDA_SUCCESS;
  return submit(s, WaitBody{e->state, number});
}

CUresult host_function(CUstream handle, CUhostFn function, void* data, bool ptds) {
  Stream* s = nullptr;
  if (const CUresult r = find_stream(handle, ptds, &s); r != CUDA_SUCCESS) return r;
  if (function == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return submit(s, HostBody{function, data});
}

using Callback = void (*)(CUstream, CUresult, void*);

CUresult callback(CUstream handle, Callback function, void* data, unsigned flags, bool ptds) {
  Stream* s = nullptr;
  if (const CUresult r = find_stream(handle, ptds, &s); r != CUDA_SUCCESS) return r;
  if (function == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (const CUresult r = refuse_in_capture(s); r != CUDA_SUCCESS) return r;
  return submit(s, CallbackBody{function, handle, data});
}

CUresult value_op(CUstream handle, const ValueBody& body, bool ptds) {
  Stream* s = nullptr;
  if (const CUresult r = find_stream(handle, ptds, &s); r != CUDA_SUCCESS) return r;
  const unsigned bytes = body.wide ? 8 : 4;
  if (body.address % bytes != 0 || !device_reaches(body.address, bytes))
    return CUDA_ERROR_INVALID_VALUE;
  return submit(s, ValueBody(body));
}

CUresult batch(CUstream handle, unsigned count, CUstreamBatchMemOpParams* ops, bool ptds) {
  if (ops == nullptr || count == 0 || count > 256) return CUDA_ERROR_INVALID_VALUE;
  for (unsigned i = 0; i < count; i++) {
    const auto& op = ops[i];
    CUresult r = CUDA_SUCCESS;
    switch (op.operation) {
      case CU_STREAM_MEM_OP_WAIT_VALUE_32:
      case CU_STREAM_MEM_OP_WAIT_VALUE_64: {
        const bool wide = op.operation == CU_STREAM_MEM_OP_WAIT_VALUE_64;
        r = value_op(handle,
                     {true, wide, op.waitValue.address,
                      wide ? op.waitValue.value64 : op.waitValue.value, op.waitValue.flags},
                     ptds);
        break;
      }
      case CU_STREAM_MEM_OP_WRITE_VALUE_32:
      case CU_STREAM_MEM_OP_WRITE_VALUE_64: {
        const bool wide = op.operation == CU_STREAM_MEM_OP_WRITE_VALUE_64;
        r = value_op(handle,
                     {false, wide, op.writeValue.address,
                      wide ? op.writeValue.value64 : op.writeValue.value, op.writeValue.flags},
                     ptds);
        break;
      }
      case CU_STREAM_MEM_OP_BARRIER:
        break;  // everything in a stream is ordered here
      default:
        r = CUDA_ERROR_NOT_SUPPORTED;
    }
    if (r != CUDA_SUCCESS) return r;
  }
  return CUDA_SUCCESS;
}

CUresult of_stream(CUstream handle, bool ptds, Stream** out, const void* result) {
  if (const CUresult r = find_stream(handle, ptds, out); r != CUDA_SUCCESS) return r;
  return result != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult get_attribute(CUstream handle, int which, CUlaunchAttributeValue* value, bool ptds) {
  Stream* s = nullptr;
  if (const CUresult r = of_stream(handle, ptds, &s, value); r != CUDA_SUCCESS) return r;
  memset(value, 0, sizeof *value);
  if (which == CU_STREAM_ATTRIBUTE_PRIORITY) {
    value->priority = s->priority;
    return CUDA_SUCCESS;
  }
  for (const auto& [id, bytes] : s->attributes) {
    if (id == which) memcpy(value, bytes.data(), bytes.size());
  }
  return CUDA_SUCCESS;
}

// Hints for caches and memory domains: kept, and of no effect.
CUresult set_attribute(CUstream handle, int which, const CUlaunchAttributeValue* value, bool ptds) {
  Stream* s = nullptr;
  if (const CUresult r = of_stream(handle, ptds, &s, value); r != CUDA_SUCCESS) return r;
  if (which == CU_STREAM_ATTRIBUTE_PRIORITY) {
    s->priority = std::clamp(value->priority, -5, 0);
    return CUDA_SUCCESS;
  }
  std::array<char, 64> bytes;
  memcpy(bytes.data(), value, bytes.size());
  std::erase_if(s->attributes, [&](const auto& a) { return a.first == which; });
  s->attributes.emplace_back(which, bytes);
  return CUDA_SUCCESS;
}

CUresult copy_attributes(CUstream to, CUstream from, bool ptds) {
  Stream *t = nullptr, *f = nullptr;
  if (const CUresult r = find_stream(to, ptds, &t); r != CUDA_SUCCESS) return r;
  if (const CUresult r = find_stream(from, ptds, &f); r != CUDA_SUCCESS) return r;
  t->attributes = f->attributes;
  return CUDA_SUCCESS;
}

CUresult get_priority(CUstream h, int* out, bool ptds) {
  Stream* s = nullptr;
  if (const CUresult r = of_stream(h, ptds, &s, out); r != CUDA_SUCCESS) return r;
  *out = s->priority;
  return CUDA_SUCCESS;
}
CUresult get_flags(CUstream h, unsigned* out, bool ptds) {
  Stream* s = nullptr;
  if (const CUresult r = of_stream(h, ptds, &s, out); r != CUDA_SUCCESS) return r;
  *out = s->flags;
  return CUDA_SUCCESS;
}
CUresult get_id(CUstream h, unsigned long long* out, bool ptds) {
  Stream* s = nullptr;
  if (const CUresult r = of_stream(h, ptds, &s, out); r != CUDA_SUCCESS) return r;
  *out = s->id;
  return CUDA_SUCCESS;
}
CUresult get_device(CUstream h, CUdevice* out, bool ptds) {
  Stream* s = nullptr;
  if (const CUresult r = of_stream(h, ptds, &s, out); r != CUDA_SUCCESS) return r;
  *out = s->context->device;
  return CUDA_SUCCESS;
}
CUresult get_context(CUstream h, CUcontext* out, CUgreenCtx* green, bool ptds) {
  Stream* s = nullptr;
  if (const CUresult r = of_stream(h, ptds, &s, out); r != CUDA_SUCCESS) return r;
  *out = reinterpret_cast<CUcontext>(s->context);
  if (green != nullptr) *green = nullptr;
  return CUDA_SUCCESS;
}

}  // namespace

SIM_API cuStreamCreate(CUstream* out, unsigned flags) {
  SIM_ENTER();
  return create(out, flags, 0);
}
SIM_API cuStreamCreateWithPriority(CUstream* out, unsigned flags, int priority) {
  SIM_ENTER();
  return create(out, flags, priority);
}
SIM_API cuStreamDestroy_v2(CUstream handle) {
  SIM_ENTER();
  auto* s = reinterpret_cast<Stream*>(handle);
  if (handle == nullptr || handle == CU_STREAM_LEGACY || handle == CU_STREAM_PER_THREAD ||
      s->magic != kStreamMagic) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  destroy_stream(s);
  return CUDA_SUCCESS;
}
SIM_API cuStreamDestroy(CUstream handle) {
  return cuStreamDestroy_v2(handle);
}

BOTH(cuStreamSynchronize, ARGS(CUstream s), sync_stream(s, kPtds))
BOTH(cuStreamQuery, ARGS(CUstream s), query(s, kPtds))
BOTH(cuStreamWaitEvent, ARGS(CUstream s, CUevent e, unsigned flags), wait_event(s, e, flags, kPtds))
BOTH(cuLaunchHostFunc, ARGS(CUstream s, CUhostFn f, void* data), host_function(s, f, data, kPtds))
BOTH(cuStreamAddCallback, ARGS(CUstream s, Callback f, void* data, unsigned flags),
     callback(s, f, data, flags, kPtds))
BOTH(cuStreamGetPriority, ARGS(CUstream s, int* out), get_priority(s, out, kPtds))
BOTH(cuStreamGetFlags, ARGS(CUstream s, unsigned* out), get_flags(s, out, kPtds))
BOTH(cuStreamGetId, ARGS(CUstream s, unsigned long long* out), get_id(s, out, kPtds))
BOTH(cuStreamGetDevice, ARGS(CUstream s, CUdevice* out), get_device(s, out, kPtds))
BOTH(cuStreamGetCtx, ARGS(CUstream s, CUcontext* out), get_context(s, out, nullptr, kPtds))
BOTH(cuStreamGetCtx_v2, ARGS(CUstream s, CUcontext* out, CUgreenCtx* green),
     get_context(s, out, green, kPtds))
BOTH(cuStreamGetAttribute, ARGS(CUstream s, int which, CUlaunchAttributeValue* value),
     get_attribute(s, which, value, kPtds))
BOTH(cuStreamSetAttribute, ARGS(CUstream s, int which, const CUlaunchAttributeValue* value),
     set_attribute(s, which, value, kPtds))
BOTH(cuStreamCopyAttributes, ARGS(CUstream to, CUstream from), copy_attributes(to, from, kPtds))
BOTH(cuStreamWaitValue32_v2, ARGS(CUstream s, CUdeviceptr at, cuuint32_t v, unsigned flags),
     value_op(s, {true, false, at, v, flags}, kPtds))
BOTH(cuStreamWaitValue64_v2, ARGS(CUstream s, CUdeviceptr at, cuuint64_t v, unsigned flags),
     value_op(s, {true, true, at, v, flags}, kPtds))
BOTH(cuStreamWriteValue32_v2, ARGS(CUstream s, CUdeviceptr at, cuuint32_t v, unsigned flags),
     value_op(s, {false, false, at, v, flags}, kPtds))
BOTH(cuStreamWriteValue64_v2, ARGS(CUstream s, CUdeviceptr at, cuuint64_t v, unsigned flags),
     value_op(s, {false, true, at, v, flags}, kPtds))
BOTH(cuStreamWaitValue32, ARGS(CUstream s, CUdeviceptr at, cuuint32_t v, unsigned flags),
     value_op(s, {true, false, at, v, flags}, kPtds))
BOTH(cuStreamWaitValue64, ARGS(CUstream s, CUdeviceptr at, cuuint64_t v, unsigned flags),
     value_op(s, {true, true, at, v, flags}, kPtds))
BOTH(cuStreamWriteValue32, ARGS(CUstream s, CUdeviceptr at, cuuint32_t v, unsigned flags),
     value_op(s, {false, false, at, v, flags}, kPtds))
BOTH(cuStreamWriteValue64, ARGS(CUstream s, CUdeviceptr at, cuuint64_t v, unsigned flags),
     value_op(s, {false, true, at, v, flags}, kPtds))
BOTH(cuStreamBatchMemOp_v2, ARGS(CUstream s, unsigned n, CUstreamBatchMemOpParams* ops, unsigned),
     batch(s, n, ops, kPtds))
BOTH(cuStreamBatchMemOp, ARGS(CUstream s, unsigned n, CUstreamBatchMemOpParams* ops, unsigned),
     batch(s, n, ops, kPtds))
