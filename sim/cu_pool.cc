// Entries of stream-ordered memory and pools.
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ipc.h"
#include "memory.h"
#include "pool_state.h"
#include "runtime.h"

using namespace allot::sim;

static CUresult allocate_async(CUdeviceptr* out, size_t bytes, Pool* pool, CUstream stream,
                               bool ptds) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Stream* s = nullptr;
  if (const CUresult r = find_stream(stream, ptds, &s); r != CUDA_SUCCESS) return r;
  if (pool == nullptr) pool = current_pool(s->context->device);
  if (pool->imported) return CUDA_ERROR_INVALID_VALUE;
  if (capturing(s)) return capture_allocation(s, pool->device, bytes, out);
  uint64_t at = 0;
  const CUresult r = allocate_in_pool(pool, s, bytes, &at);
  if (r == CUDA_SUCCESS) *out = at;
  return r;
}

static CUresult free_async(CUdeviceptr at, CUstream stream, bool ptds) {
  Stream* s = nullptr;
  if (const CUresult r = find_stream(stream, ptds, &s); r != CUDA_SUCCESS) return r;
  if (capturing(s)) return capture_free(s, at);
  if (region_at(at) != nullptr) {
    return submit(s, TaskBody{[at] { free_graph_memory(at); }});
  }
  Area area;
  if (!find_area(at, &area)) return CUDA_ERROR_INVALID_VALUE;
  if (area.kind == Kind::kIpc) return close_memory(at);
  if (area.kind == Kind::kLinear && area.base == at) {  // cuMemAlloc's memory may be freed so too
    return submit(s,
                  TaskBody{[area] { area.block->context->heap->release(area.base, area.block); }});
  }
  return free_in_pool(at, s);
}

SIM_API cuMemAllocAsync(CUdeviceptr* out, size_t bytes, CUstream stream) {
  SIM_ENTER();
  return allocate_async(out, bytes, nullptr, stream, false);
}
SIM_API cuMemAllocAsync_ptsz(CUdeviceptr* out, size_t bytes, CUstream stream) {
  SIM_ENTER();
  return allocate_async(out, bytes, nullptr, stream, true);
}
SIM_API cuMemAllocFromPoolAsync(CUdeviceptr* out, size_t bytes, CUmemoryPool pool,
                                CUstream stream) {
  SIM_ENTER();
  if (to_pool(pool) == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return allocate_async(out, bytes, to_pool(pool), stream, false);
}
SIM_API cuMemAllocFromPoolAsync_ptsz(CUdeviceptr* out, size_t bytes, CUmemoryPool pool,
                                     CUstream stream) {
  SIM_ENTER();
  if (to_pool(pool) == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return allocate_async(out, bytes, to_pool(pool), stream, true);
}
SIM_API cuMemFreeAsync(CUdeviceptr at, CUstream stream) {
  SIM_ENTER();
  return free_async(at, stream, false);
}
SIM_API cuMemFreeAsync_ptsz(CUdeviceptr at, CUstream stream) {
  SIM_ENTER();
  return free_async(at, stream, true);
}

SIM_API cuDeviceGetDefaultMemPool(CUmemoryPool* out, CUdevice device) {
  SIM_ENTER();
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  *out = pool_handle(default_pool(device));
  return CUDA_SUCCESS;
}

SIM_API cuDeviceGetMemPool(CUmemoryPool* out, CUdevice device) {
  SIM_ENTER();
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  *out = pool_handle(current_pool(device));
  return CUDA_SUCCESS;
}

SIM_API cuDeviceSetMemPool(CUdevice device, CUmemoryPool handle) {
  SIM_ENTER();
  Pool* pool = to_pool(handle);
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  if (pool == nullptr || pool->device != device) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard<std::mutex> lock(pools().mutex);
  pools().current[device] = pool;
  return CUDA_SUCCESS;
}

static CUresult pool_by_location(CUmemoryPool* out, const CUmemLocation* at,
                                 CUmemAllocationType type, bool current) {
  if (out == nullptr || at == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (type != CU_MEM_ALLOCATION_TYPE_PINNED && type != CU_MEM_ALLOCATION_TYPE_MANAGED)
    return CUDA_ERROR_INVALID_VALUE;
  if (at->type != CU_MEM_LOCATION_TYPE_DEVICE) return CUDA_ERROR_NOT_SUPPORTED;
  if (!valid_device(at->id)) return CUDA_ERROR_INVALID_DEVICE;
  if (type == CU_MEM_ALLOCATION_TYPE_MANAGED) {  // a pool of its own, all of it on the device here
    std::lock_guard<std::mutex> lock(pools().mutex);
    Pool*& pool = pools().managed[at->id];
    if (pool == nullptr) pool = make_pool(at->id, true);
    pool->props.allocType = type;
    *out = pool_handle(pool);
    return CUDA_SUCCESS;
  }
  *out = pool_handle(current ? current_pool(at->id) : default_pool(at->id));
  return CUDA_SUCCESS;
}
SIM_API cuMemGetDefaultMemPool(CUmemoryPool* out, CUmemLocation* at, CUmemAllocationType type) {
  SIM_ENTER();
  return pool_by_location(out, at, type, false);
}
SIM_API cuMemGetMemPool(CUmemoryPool* out, CUmemLocation* at, CUmemAllocationType type) {
  SIM_ENTER();
  return pool_by_location(out, at, type, true);
}
SIM_API cuMemSetMemPool(CUmemLocation* at, CUmemAllocationType type, CUmemoryPool handle) {
  SIM_ENTER();
  CUmemoryPool old = nullptr;
  if (const CUresult r = pool_by_location(&old, at, type, true); r != CUDA_SUCCESS) return r;
  Pool* pool = to_pool(handle);
  if (pool == nullptr || pool->device != at->id) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard<std::mutex> lock(pools().mutex);
  pools().current[at->id] = pool;
  return CUDA_SUCCESS;
}

SIM_API cuMemPoolCreate(CUmemoryPool* out, const CUmemPoolProps* props) {
  SIM_ENTER();
  if (out == nullptr || props == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (props->allocType != CU_MEM_ALLOCATION_TYPE_PINNED) return CUDA_ERROR_INVALID_VALUE;
  if (props->location.type != CU_MEM_LOCATION_TYPE_DEVICE) return CUDA_ERROR_NOT_SUPPORTED;
  if (!valid_device(props->location.id)) return CUDA_ERROR_INVALID_DEVICE;
  if ((props->handleTypes & ~CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) != 0)
    return CUDA_ERROR_NOT_SUPPORTED;
  std::lock_guard<std::mutex> lock(pools().mutex);
  Pool* pool = make_pool(props->location.id, false);
  pool->props = *props;
  pool->max_bytes = props->maxSize != 0 ? round_up(props->maxSize, kPoolStep) : 0;
  *out = pool_handle(pool);
  return CUDA_SUCCESS;
}

SIM_API cuMemPoolDestroy(CUmemoryPool handle) {
  SIM_ENTER();
  Pool* pool = to_pool(handle);
  if (pool == nullptr || pool->is_default) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard<std::mutex> lock(pools().mutex);
  pool->magic = 0;
  if (pools().current[pool->device] == pool) pools().current[pool->device] = nullptr;
  pool->threshold = 0;  // live allocations stay usable; their chunks go when they are freed
  trim_pool(pool, 0);
  return CUDA_SUCCESS;
}

SIM_API cuMemPoolTrimTo(CUmemoryPool handle, size_t keep) {
  SIM_ENTER();
  Pool* pool = to_pool(handle);
  if (pool == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard<std::mutex> lock(pools().mutex);
  trim_pool(pool, keep);
  return CUDA_SUCCESS;
}

SIM_API cuMemPoolGetAttribute(CUmemoryPool handle, CUmemPool_attribute which, void* out) {
  SIM_ENTER();
  const Pool* pool = to_pool(handle);
  if (pool == nullptr || out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard<std::mutex> lock(pools().mutex);
  auto* wide = static_cast<cuuint64_t*>(out);
  switch (which) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
      *static_cast<int*>(out) = pool->reuse[which - 1];
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
      *wide = pool->threshold;
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
      *wide = pool->reserved;
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
      *wide = pool->reserved_high;
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
      *wide = pool->used;
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
      *wide = pool->used_high;
      return CUDA_SUCCESS;
  }
  return CUDA_ERROR_INVALID_VALUE;
}

SIM_API cuMemPoolSetAttribute(CUmemoryPool handle, CUmemPool_attribute which, void* in) {
  SIM_ENTER();
  Pool* pool = to_pool(handle);
  if (pool == nullptr || in == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard<std::mutex> lock(pools().mutex);
  const auto* wide = static_cast<const cuuint64_t*>(in);
  switch (which) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
      pool->reuse[which - 1] = *static_cast<const int*>(in);
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
      pool->threshold = *wide;
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
      if (*wide != 0) return CUDA_ERROR_INVALID_VALUE;
      pool->reserved_high = pool->reserved;
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
      if (*wide != 0) return CUDA_ERROR_INVALID_VALUE;
      pool->used_high = pool->used;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

// A pool that went to another process by a descriptor: pointers of its blocks can be opened there.
SIM_API cuMemPoolExportToShareableHandle(void* out, CUmemoryPool handle,
                                         CUmemAllocationHandleType type, unsigned long long flags) {
  SIM_ENTER();
  const Pool* pool = to_pool(handle);
  if (out == nullptr || pool == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || (pool->props.handleTypes & type) == 0 ||
      pool->imported) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const int fd = memfd_create("allot-sim-pool", MFD_CLOEXEC);
  const uint32_t gpu = pool->gpu;
  if (fd < 0 || write(fd, &gpu, sizeof gpu) != sizeof gpu) {
    if (fd >= 0) close(fd);
    return CUDA_ERROR_OPERATING_SYSTEM;
  }
  *static_cast<int*>(out) = fd;
  return CUDA_SUCCESS;
}
SIM_API cuMemPoolImportFromShareableHandle(CUmemoryPool* out, void* os_handle,
                                           CUmemAllocationHandleType type, unsigned long long) {
  SIM_ENTER();
  uint32_t gpu = 0;
  const int fd = static_cast<int>(reinterpret_cast<intptr_t>(os_handle));
  if (out == nullptr || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR ||
      pread(fd, &gpu, sizeof gpu, 0) != sizeof gpu) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  for (CUdevice d = 0; d < device_count(); d++) {
    if (gpu_of(d) != gpu) continue;
    std::lock_guard<std::mutex> lock(pools().mutex);
    Pool* pool = make_pool(d, false);
    pool->imported = true;
    *out = pool_handle(pool);
    return CUDA_SUCCESS;
  }
  return CUDA_ERROR_INVALID_DEVICE;
}
SIM_API cuMemPoolExportPointer(CUmemPoolPtrExportData* out, CUdeviceptr at) {
  SIM_CONTEXT(c);
  static_cast<void>(c);
  CUipcMemHandle handle;
  if (out == nullptr || !name_memory(at, Kind::kPool, &handle)) return CUDA_ERROR_INVALID_VALUE;
  memcpy(out->reserved, handle.reserved, sizeof out->reserved);
  return CUDA_SUCCESS;
}
SIM_API cuMemPoolImportPointer(CUdeviceptr* out, CUmemoryPool handle,
                               CUmemPoolPtrExportData* data) {
  SIM_ENTER();
  const Pool* pool = to_pool(handle);
  if (pool == nullptr || !pool->imported || data == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUipcMemHandle name;
  memcpy(name.reserved, data->reserved, sizeof name.reserved);
  return open_memory(out, name);
}

SIM_API cuMemPoolSetAccess(CUmemoryPool handle, const CUmemAccessDesc*, size_t) {
  SIM_ENTER();
  return to_pool(handle) != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API cuMemPoolGetAccess(CUmemAccess_flags* flags, CUmemoryPool handle, CUmemLocation* at) {
  SIM_ENTER();
  if (flags == nullptr || at == nullptr || to_pool(handle) == nullptr)
    return CUDA_ERROR_INVALID_VALUE;
  *flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  return CUDA_SUCCESS;
}
