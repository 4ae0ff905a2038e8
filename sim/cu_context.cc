// Entries of contexts: primary ones, created ones, the current one, limits and flags.
#include "context.h"
#include "memory.h"
#include "runtime.h"

using namespace allot::sim;

namespace {

CUcontext handle_of(Context* c) {
  return reinterpret_cast<CUcontext>(c);
}

CUresult create(CUcontext* out, unsigned flags, CUdevice device) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  Context* c = new_context();
  c->attached = 1;
  if (const CUresult r = open_context(c, device, flags); r != CUDA_SUCCESS) return r;
  if (!push_context(c)) {
    close_context(c);
    return CUDA_ERROR_INVALID_CONTEXT;
  }
  *out = handle_of(c);
  return CUDA_SUCCESS;
}

}  // namespace

SIM_API cuDevicePrimaryCtxRetain(CUcontext* out, CUdevice device) {
  SIM_ENTER();
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  std::lock_guard<std::mutex> lock(primary_lock());
  Context* c = primary_context(device);
  if (!c->alive) {
    if (const CUresult r = open_context(c, device, c->flags); r != CUDA_SUCCESS) return r;
    c->retained = 0;
  }
  c->retained++;
  *out = handle_of(c);
  return CUDA_SUCCESS;
}

SIM_API cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  SIM_ENTER();
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  std::lock_guard<std::mutex> lock(primary_lock());
  Context* c = primary_context(device);
  if (!c->alive || c->retained == 0) return CUDA_ERROR_INVALID_CONTEXT;
  if (--c->retained == 0) close_context(c);
  return CUDA_SUCCESS;
}
SIM_API cuDevicePrimaryCtxRelease(CUdevice device) {
  return cuDevicePrimaryCtxRelease_v2(device);
}

SIM_API cuDevicePrimaryCtxReset_v2(CUdevice device) {
  SIM_ENTER();
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  std::lock_guard<std::mutex> lock(primary_lock());
  Context* c = primary_context(device);
  if (!c->alive) return CUDA_SUCCESS;
  c->retained = 0;
  close_context(c);
  return CUDA_SUCCESS;
}
SIM_API cuDevicePrimaryCtxReset(CUdevice device) {
  return cuDevicePrimaryCtxReset_v2(device);
}

SIM_API cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* active) {
  SIM_ENTER();
  if (flags == nullptr || active == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  std::lock_guard<std::mutex> lock(primary_lock());
  Context* c = primary_context(device);
  *flags = c->flags;
  *active = c->alive ? 1 : 0;
  return CUDA_SUCCESS;
}

SIM_API cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned flags) {
  SIM_ENTER();
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  if ((flags & ~0xffu) != 0) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard<std::mutex> lock(primary_lock());
  primary_context(device)->flags = flags;
  return CUDA_SUCCESS;
}
SIM_API cuDevicePrimaryCtxSetFlags(CUdevice device, unsigned flags) {
  return cuDevicePrimaryCtxSetFlags_v2(device, flags);
}

SIM_API cuCtxCreate_v2(CUcontext* out, unsigned flags, CUdevice device) {
  SIM_ENTER();
  return create(out, flags, device);
}

SIM_API cuCtxCreate_v3(CUcontext* out, CUexecAffinityParam*, int count, unsigned flags,
                       CUdevice device) {
  SIM_ENTER();
  if (count != 0) return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
  return create(out, flags, device);
}

SIM_API cuCtxCreate_v4(CUcontext* out, CUctxCreateParams* params, unsigned flags, CUdevice device) {
  SIM_ENTER();
  if (params != nullptr) {
    if (params->numExecAffinityParams != 0) return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
    if (params->cigParams != nullptr) return CUDA_ERROR_NOT_SUPPORTED;
  }
  return create(out, flags, device);
}

SIM_API cuCtxDestroy_v2(CUcontext handle) {
  SIM_ENTER();
  Context* c = to_context(handle);
  if (c == nullptr || c->primary || c->green) return CUDA_ERROR_INVALID_CONTEXT;
  if (current_or_null() == c) pop_context();
  close_context(c);
  return CUDA_SUCCESS;
}
SIM_API cuCtxDestroy(CUcontext handle) {
  return cuCtxDestroy_v2(handle);
}

// Usage counts, deprecated and there: a context is made with 1 and ends at 0, with all that is in
// it.
SIM_API cuCtxAttach(CUcontext* out, unsigned flags) {
  SIM_CONTEXT(c);
  if (out == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (c->primary) return CUDA_ERROR_INVALID_CONTEXT;
  c->attached++;
  *out = handle_of(c);
  return CUDA_SUCCESS;
}
SIM_API cuCtxDetach(CUcontext handle) {
  SIM_ENTER();
  Context* c = to_context(handle);
  if (c == nullptr || c->primary || c->green || current_or_null() != c)
    return CUDA_ERROR_INVALID_CONTEXT;
  if (--c->attached > 0) return CUDA_SUCCESS;
  pop_context();
  close_context(c);
  return CUDA_SUCCESS;
}

// Contexts for displays are contexts.
SIM_API cuGLCtxCreate_v2(CUcontext* out, unsigned flags, CUdevice device) {
  SIM_ENTER();
  return create(out, flags, device);
}
SIM_API cuGLCtxCreate(CUcontext* out, unsigned flags, CUdevice device) {
  SIM_ENTER();
  return create(out, flags, device);
}
SIM_API cuVDPAUCtxCreate_v2(CUcontext* out, unsigned flags, CUdevice device, unsigned, void*) {
  SIM_ENTER();
  return create(out, flags, device);
}
SIM_API cuVDPAUCtxCreate(CUcontext* out, unsigned flags, CUdevice device, unsigned, void*) {
  SIM_ENTER();
  return create(out, flags, device);
}

// Green contexts. A description of resources is only passed on; each green context holds the
// primary context of its device, and the last to go may end it.
SIM_API cuDevResourceGenerateDesc(CUdevResourceDesc* out, void* resources, unsigned count) {
  SIM_ENTER();
  if (out == nullptr || resources == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
  *out = reinterpret_cast<CUdevResourceDesc>(resources);
  return CUDA_SUCCESS;
}
SIM_API cuGreenCtxCreate(CUgreenCtx* out, CUdevResourceDesc desc, CUdevice device, unsigned flags) {
  SIM_ENTER();
  if (out == nullptr || desc == nullptr || flags != 1) return CUDA_ERROR_INVALID_VALUE;
  CUcontext primary = nullptr;
  if (const CUresult r = cuDevicePrimaryCtxRetain(&primary, device); r != CUDA_SUCCESS) return r;
  Context* c = new_context();
  c->green = true;
  if (const CUresult r = open_context(c, device, 0); r != CUDA_SUCCESS) {
    cuDevicePrimaryCtxRelease_v2(device);
    return r;
  }
  *out = reinterpret_cast<CUgreenCtx>(c);
  return CUDA_SUCCESS;
}
SIM_API cuGreenCtxDestroy(CUgreenCtx handle) {
  SIM_ENTER();
  Context* c = to_context(reinterpret_cast<CUcontext>(handle));
  if (c == nullptr || !c->green) return CUDA_ERROR_INVALID_CONTEXT;
  if (current_or_null() == c) pop_context();
  const CUdevice device = c->device;
  close_context(c);
  return cuDevicePrimaryCtxRelease_v2(device);
}
SIM_API cuCtxFromGreenCtx(CUcontext* out, CUgreenCtx handle) {
  SIM_ENTER();
  Context* c = to_context(reinterpret_cast<CUcontext>(handle));
  if (out == nullptr || c == nullptr || !c->green) return CUDA_ERROR_INVALID_VALUE;
  *out = handle_of(c);
  return CUDA_SUCCESS;
}

SIM_API cuCtxPushCurrent_v2(CUcontext handle) {
  SIM_ENTER();
  Context* c = to_context(handle);
  if (c == nullptr || !push_context(c)) return CUDA_ERROR_INVALID_CONTEXT;
  return CUDA_SUCCESS;
}
SIM_API cuCtxPushCurrent(CUcontext handle) {
  return cuCtxPushCurrent_v2(handle);
}

SIM_API cuCtxPopCurrent_v2(CUcontext* out) {
  SIM_ENTER();
  Context* c = pop_context();
  if (c == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (out != nullptr) *out = handle_of(c);
  return CUDA_SUCCESS;
}
SIM_API cuCtxPopCurrent(CUcontext* out) {
  return cuCtxPopCurrent_v2(out);
}

SIM_API cuCtxSetCurrent(CUcontext handle) {
  SIM_ENTER();
  Context* c = to_context(handle);
  if (handle != nullptr && c == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  set_context(c);
  return CUDA_SUCCESS;
}

SIM_API cuCtxGetCurrent(CUcontext* out) {
  SIM_ENTER();
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = handle_of(current_or_null());
  return CUDA_SUCCESS;
}

SIM_API cuCtxGetDevice(CUdevice* device) {
  SIM_ENTER();
  Context* c = current_or_null();
  if (c == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *device = c->device;
  return CUDA_SUCCESS;
}

SIM_API cuCtxGetDevice_v2(CUdevice* device, CUcontext handle) {
  SIM_ENTER();
  Context* c = handle != nullptr ? to_context(handle) : current_or_null();
  if (c == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *device = c->device;
  return CUDA_SUCCESS;
}

SIM_API cuCtxGetId(CUcontext handle, unsigned long long* id) {
  SIM_ENTER();
  Context* c = handle != nullptr ? to_context(handle) : current_or_null();
  if (c == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (id == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *id = c->id;
  return CUDA_SUCCESS;
}

SIM_API cuCtxGetFlags(unsigned* flags) {
  SIM_CONTEXT(c);
  if (flags == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *flags = c->flags;
  return CUDA_SUCCESS;
}

SIM_API cuCtxSetFlags(unsigned flags) {
  SIM_CONTEXT(c);
  c->flags = flags;
  return CUDA_SUCCESS;
}

SIM_API cuCtxGetApiVersion(CUcontext handle, unsigned* version) {
  SIM_ENTER();
  Context* c = handle != nullptr ? to_context(handle) : current_or_null();
  if (c == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (version == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *version = 3020;
  return CUDA_SUCCESS;
}

SIM_API cuCtxSynchronize(void) {
  SIM_CONTEXT(c);
  if (const CUresult r = refuse_in_capture(nullptr); r != CUDA_SUCCESS) return r;
  return synchronize(c);
}

SIM_API cuCtxSynchronize_v2(CUcontext handle) {
  SIM_ENTER();
  Context* c = handle != nullptr ? to_context(handle) : current_or_null();
  if (c == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (const CUresult r = refuse_in_capture(nullptr); r != CUDA_SUCCESS) return r;
  return synchronize(c);
}

SIM_API cuCtxGetLimit(size_t* value, CUlimit limit) {
  SIM_CONTEXT(c);
  if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (limit < 0 || limit > CU_LIMIT_PERSISTING_L2_CACHE_SIZE) return CUDA_ERROR_UNSUPPORTED_LIMIT;
  *value = c->limits[limit];
  return CUDA_SUCCESS;
}

SIM_API cuCtxSetLimit(CUlimit limit, size_t value) {
  SIM_CONTEXT(c);
  if (limit < 0 || limit > CU_LIMIT_PERSISTING_L2_CACHE_SIZE) return CUDA_ERROR_UNSUPPORTED_LIMIT;
  c->limits[limit] = value;
  return CUDA_SUCCESS;
}

SIM_API cuCtxGetCacheConfig(CUfunc_cache* config) {
  SIM_CONTEXT(c);
  if (config == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *config = static_cast<CUfunc_cache>(c->cache_config);
  return CUDA_SUCCESS;
}

SIM_API cuCtxSetCacheConfig(CUfunc_cache config) {
  SIM_CONTEXT(c);
  c->cache_config = config;
  return CUDA_SUCCESS;
}

SIM_API cuCtxGetSharedMemConfig(CUsharedconfig* config) {
  SIM_CONTEXT(c);
  if (config == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *config = static_cast<CUsharedconfig>(c->shared_config);
  return CUDA_SUCCESS;
}

SIM_API cuCtxSetSharedMemConfig(CUsharedconfig config) {
  SIM_CONTEXT(c);
  c->shared_config = config;
  return CUDA_SUCCESS;
}

SIM_API cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  SIM_CONTEXT(c);
  static_cast<void>(c);
  if (least != nullptr) *least = 0;
  if (greatest != nullptr) *greatest = -5;
  return CUDA_SUCCESS;
}

SIM_API cuCtxResetPersistingL2Cache(void) {
  SIM_CONTEXT(c);
  static_cast<void>(c);
  return CUDA_SUCCESS;
}

// Peer access: all memory is one address space here, so the calls only keep their own rules.
SIM_API cuCtxEnablePeerAccess(CUcontext handle, unsigned flags) {
  SIM_CONTEXT(c);
  Context* peer = to_context(handle);
  if (peer == nullptr || peer == c) return CUDA_ERROR_INVALID_CONTEXT;
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (peer->gpu == c->gpu) return CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
  std::lock_guard<std::mutex> lock(c->mutex);
  if (!c->peers.insert(peer).second) return CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
  return CUDA_SUCCESS;
}

SIM_API cuCtxDisablePeerAccess(CUcontext handle) {
  SIM_CONTEXT(c);
  Context* peer = to_context(handle);
  if (peer == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  std::lock_guard<std::mutex> lock(c->mutex);
  if (c->peers.erase(peer) == 0) return CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
  return CUDA_SUCCESS;
}
