// Entries of linear, pitched, managed and host memory, and what a pointer is.
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "ipc.h"
#include "memory.h"
#include "pool.h"
#include "runtime.h"

using namespace allot::sim;

namespace {

uint64_t round_up(uint64_t n, uint64_t to) {
  return (n + to - 1) / to * to;
}

// Host and managed memory: pages of this process that only the register of addresses knows.
Block* register_host(uint64_t base, uint64_t bytes, uint64_t span, Kind kind, Context* c,
                     unsigned flags) {
  auto* block = new Block;
  block->base = base;
  block->bytes = bytes;
  block->span = span;
  block->kind = kind;
  block->gpu = c->gpu;
  block->device = c->device;
  block->context = c;
  block->flags = flags;
  std::lock_guard<std::mutex> lock(memory_lock());
  register_block(block);
  return block;
}

Block* take_host(uint64_t base, Kind kind) {
  std::lock_guard<std::mutex> lock(memory_lock());
  Block* block = block_at(base);
  if (block == nullptr || block->kind != kind || block->base != base) return nullptr;
  unregister_block(block);
  return block;
}

CUresult allocate_host(void** out, size_t bytes, unsigned flags, Context* c) {
  if (out == nullptr || bytes == 0 || (flags & ~7u) != 0) return CUDA_ERROR_INVALID_VALUE;
  const uint64_t span = round_up(bytes, static_cast<uint64_t>(sysconf(_SC_PAGESIZE)));
  void* at = mmap(nullptr, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
  register_host(reinterpret_cast<uint64_t>(at), bytes, span, Kind::kHost, c, flags);
  *out = at;
  return CUDA_SUCCESS;
}

bool is_device_kind(Kind kind) {
  return kind != Kind::kManaged && kind != Kind::kHost && kind != Kind::kRegistered;
}

}  // namespace

SIM_API cuMemGetInfo_v2(size_t* free, size_t* total) {
  SIM_CONTEXT(c);
  const size_t left = free_bytes(c->gpu);
  if (free != nullptr) *free = left;
  if (total != nullptr) *total = machine()->gpus[c->gpu].bytes;
  return CUDA_SUCCESS;
}

SIM_API cuMemAlloc_v2(CUdeviceptr* out, size_t bytes) {
  SIM_CONTEXT(c);
  if (out == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if (const CUresult r = refuse_unsafe(); r != CUDA_SUCCESS) return r;
  uint64_t at = 0;
  const CUresult r = c->heap->allocate(bytes, &at);
  if (r == CUDA_SUCCESS) *out = at;
  return r;
}

SIM_API cuMemAllocPitch_v2(CUdeviceptr* out, size_t* pitch, size_t width, size_t height,
                           unsigned element) {
  SIM_CONTEXT(c);
  if (out == nullptr || pitch == nullptr || width == 0 || height == 0)
    return CUDA_ERROR_INVALID_VALUE;
  if (element != 4 && element != 8 && element != 16) return CUDA_ERROR_INVALID_VALUE;
  const size_t row = round_up(width, 512);
  if (height > (1ull << 47) / row) return CUDA_ERROR_OUT_OF_MEMORY;
  uint64_t at = 0;
  const CUresult r = c->heap->allocate(row * height, &at);
  if (r != CUDA_SUCCESS) return r;
  *out = at;
  *pitch = row;
  return CUDA_SUCCESS;
}

SIM_API cuMemFree_v2(CUdeviceptr address) {
  SIM_CONTEXT(c);
  if (address == 0) return CUDA_SUCCESS;
  Block* block;
  {
    std::lock_guard<std::mutex> lock(memory_lock());
    block = block_at(address);
  }
  if (block == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Context* owner = block->context != nullptr ? block->context : c;
  if (!idle(owner)) {  // as the driver does: work that may use the memory ends first
    if (const CUresult r = synchronize(owner); r != CUDA_SUCCESS) return r;
  }
  switch (block->kind) {
    case Kind::kSlab:
    case Kind::kLinear:
      return block->context->heap->release(address, block);
    case Kind::kPool:
      return free_in_pool(address, nullptr);
    case Kind::kIpc:  // a block of an imported pool
      return close_memory(address);
    case Kind::kGraph:
      return free_graph_memory(address);
    case Kind::kExternal:  // a buffer mapped from it
      return CUDA_SUCCESS;
    case Kind::kManaged:
      if (address != block->base || take_host(address, Kind::kManaged) == nullptr) {
        return CUDA_ERROR_INVALID_VALUE;
      }
      munmap(reinterpret_cast<void*>(block->base), block->span);
      delete block;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

SIM_API cuMemGetAddressRange_v2(CUdeviceptr* base, size_t* bytes, CUdeviceptr address) {
  SIM_CONTEXT(c);
  static_cast<void>(c);
  Area area;
  if (!find_area(address, &area)) return CUDA_ERROR_NOT_FOUND;
  if (base != nullptr) *base = area.base;
  if (bytes != nullptr) *bytes = area.bytes;
  return CUDA_SUCCESS;
}

// Managed memory is host memory: on the GPU measured it appears in no process's figure either.
SIM_API cuMemAllocManaged(CUdeviceptr* out, size_t bytes, unsigned flags) {
  SIM_CONTEXT(c);
  if (out == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST) return CUDA_ERROR_INVALID_VALUE;
  const uint64_t span = round_up(bytes, kPageBytes);
  const uint64_t at = reserve_va(span, kPageBytes, 0);
  if (at == 0) return CUDA_ERROR_OUT_OF_MEMORY;
  mprotect(reinterpret_cast<void*>(at), span, PROT_READ | PROT_WRITE);
  register_host(at, bytes, span, Kind::kManaged, c, flags);
  *out = at;
  return CUDA_SUCCESS;
}

SIM_API cuMemAllocHost_v2(void** out, size_t bytes) {
  SIM_CONTEXT(c);
  return allocate_host(out, bytes, 0, c);
}

SIM_API cuMemHostAlloc(void** out, size_t bytes, unsigned flags) {
  SIM_CONTEXT(c);
  return allocate_host(out, bytes, flags, c);
}

SIM_API cuMemFreeHost(void* at) {
  SIM_CONTEXT(c);
  if (!idle(c)) {
    if (const CUresult r = synchronize(c); r != CUDA_SUCCESS) return r;
  }
  Block* block = take_host(reinterpret_cast<uint64_t>(at), Kind::kHost);
  if (block == nullptr) return CUDA_ERROR_INVALID_VALUE;
  munmap(at, block->span);
  delete block;
  return CUDA_SUCCESS;
}

SIM_API cuMemHostRegister_v2(void* at, size_t bytes, unsigned flags) {
  SIM_CONTEXT(c);
  if (at == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  {
    std::lock_guard<std::mutex> lock(memory_lock());
    if (block_at(reinterpret_cast<uint64_t>(at)) != nullptr)
      return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
  }
  register_host(reinterpret_cast<uint64_t>(at), bytes, bytes, Kind::kRegistered, c, flags);
  return CUDA_SUCCESS;
}

SIM_API cuMemHostUnregister(void* at) {
  SIM_CONTEXT(c);
  static_cast<void>(c);
  Block* block = take_host(reinterpret_cast<uint64_t>(at), Kind::kRegistered);
  if (block == nullptr) return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
  delete block;
  return CUDA_SUCCESS;
}

SIM_API cuMemHostGetDevicePointer_v2(CUdeviceptr* out, void* at, unsigned flags) {
  SIM_CONTEXT(c);
  static_cast<void>(c);
  Area area;
  if (out == nullptr || flags != 0 || !find_area(reinterpret_cast<uint64_t>(at), &area) ||
      is_device_kind(area.kind)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *out = reinterpret_cast<CUdeviceptr>(at);
  return CUDA_SUCCESS;
}

SIM_API cuMemHostGetFlags(unsigned* flags, void* at) {
  SIM_CONTEXT(c);
  static_cast<void>(c);
  Area area;
  if (flags == nullptr || !find_area(reinterpret_cast<uint64_t>(at), &area) ||
      area.kind != Kind::kHost) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *flags = area.flags | CU_MEMHOSTALLOC_DEVICEMAP;
  return CUDA_SUCCESS;
}

// Where managed memory stands and who uses it makes no difference here: advice is checked and
// taken.
static CUresult managed_only(CUdeviceptr at, size_t bytes) {
  Area area;
  if (bytes == 0 || !find_area(at, &area) || area.kind != Kind::kManaged)
    return CUDA_ERROR_INVALID_VALUE;
  return CUDA_SUCCESS;
}

SIM_API cuMemAdvise(CUdeviceptr at, size_t bytes, CUmem_advise, CUdevice) {
  SIM_CONTEXT(c);
  static_cast<void>(c);
  return managed_only(at, bytes);
}
SIM_API cuMemAdvise_v2(CUdeviceptr at, size_t bytes, CUmem_advise, CUmemLocation) {
  SIM_CONTEXT(c);
  static_cast<void>(c);
  return managed_only(at, bytes);
}

static CUresult prefetch(CUdeviceptr at, size_t bytes, CUstream stream, bool ptds) {
  if (const CUresult r = managed_only(at, bytes); r != CUDA_SUCCESS) return r;
  Stream* s = nullptr;
  if (const CUresult r = find_stream(stream, ptds, &s); r != CUDA_SUCCESS) return r;
  return submit(s, EmptyBody{});
}
SIM_API cuMemPrefetchAsync(CUdeviceptr at, size_t n, CUdevice, CUstream s) {
  SIM_ENTER();
  return prefetch(at, n, s, false);
}
SIM_API cuMemPrefetchAsync_ptsz(CUdeviceptr at, size_t n, CUdevice, CUstream s) {
  SIM_ENTER();
  return prefetch(at, n, s, true);
}
SIM_API cuMemPrefetchAsync_v2(CUdeviceptr at, size_t n, CUmemLocation, unsigned, CUstream s) {
  SIM_ENTER();
  return prefetch(at, n, s, false);
}
SIM_API cuMemPrefetchAsync_v2_ptsz(CUdeviceptr at, size_t n, CUmemLocation, unsigned, CUstream s) {
  SIM_ENTER();
  return prefetch(at, n, s, true);
}
SIM_API cuStreamAttachMemAsync(CUstream s, CUdeviceptr at, size_t, unsigned) {
  SIM_ENTER();
  return prefetch(at, 1, s, false);
}
SIM_API cuStreamAttachMemAsync_ptsz(CUstream s, CUdeviceptr at, size_t, unsigned) {
  SIM_ENTER();
  return prefetch(at, 1, s, true);
}

namespace {

template <class T>
CUresult give(void* out, T value) {
  memcpy(out, &value, sizeof(T));
  return CUDA_SUCCESS;
}

CUresult pointer_attribute(void* out, CUpointer_attribute which, CUdeviceptr address) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Area area;
  if (!find_area(address, &area)) return CUDA_ERROR_INVALID_VALUE;
  const bool device = is_device_kind(area.kind);
  switch (which) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      return give(out, reinterpret_cast<CUcontext>(area.context));
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      return give(
          out, device || area.kind == Kind::kManaged ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST);
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
      return give(out, address);
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
      return device ? CUDA_ERROR_INVALID_VALUE : give(out, reinterpret_cast<void*>(address));
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
      return give(out, 0);
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
    case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
      return give(out, static_cast<unsigned long long>(area.id));
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
      return give(out, static_cast<unsigned>(area.kind == Kind::kManaged));
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      return give(out, static_cast<int>(area.device));
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
      return give(out, static_cast<unsigned>(area.kind == Kind::kLinear));
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
    case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
      return give(out, area.base);
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
    case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
      return give(out, static_cast<size_t>(area.bytes));
    case CU_POINTER_ATTRIBUTE_MAPPED:
      return give(out, 1u);
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
      return give(out, static_cast<unsigned long long>(area.kind == Kind::kVmm ? area.flags : 0));
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
    case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
      return give(out, 0u);
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
      return give(out, static_cast<unsigned>(CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE));
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
      return give(out, area.kind == Kind::kPool ? pool_handle(area.block->pool) : nullptr);
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

}  // namespace

SIM_API cuPointerGetAttribute(void* out, CUpointer_attribute which, CUdeviceptr address) {
  SIM_ENTER();
  return pointer_attribute(out, which, address);
}

SIM_API cuPointerGetAttributes(unsigned count, CUpointer_attribute* which, void** out,
                               CUdeviceptr address) {
  SIM_ENTER();
  if (which == nullptr || out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Area area;
  const bool known = find_area(address, &area);
  for (unsigned i = 0; i < count; i++) {
    if (out[i] == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (known && pointer_attribute(out[i], which[i], address) == CUDA_SUCCESS) continue;
    // For a pointer the driver does not know, or an attribute without sense, the plural form
    // answers zero.
    switch (which[i]) {
      case CU_POINTER_ATTRIBUTE_CONTEXT:
      case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
      case CU_POINTER_ATTRIBUTE_HOST_POINTER:
      case CU_POINTER_ATTRIBUTE_BUFFER_ID:
      case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
      case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
      case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
      case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
      case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
      case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
      case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
        give(out[i], uint64_t{0});
        break;
      case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        give(out[i], -2);
        break;
      default:
        give(out[i], 0u);
    }
  }
  return CUDA_SUCCESS;
}

SIM_API cuPointerSetAttribute(const void* value, CUpointer_attribute which, CUdeviceptr address) {
  SIM_ENTER();
  Area area;
  if (value == nullptr || which != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS || !find_area(address, &area)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}
