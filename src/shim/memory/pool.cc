// Stream-ordered memory: cuMemAllocAsync, cuMemAllocFromPoolAsync, cuMemFreeAsync and the pools.
//
// The charge is what a pool has reserved, not what is in use: freed blocks stay with the pool.
// Measured on an H100, driver 580: pools grow in steps of 32 MiB,
// CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT says how far, and NVML shows the same. So an allocation
// first reserves the possible growth (the request rounded up to 32 MiB) and then settles the pool's
// charge to the driver's figure. Calls that may give memory back (frees, trims, waits, attribute
// changes) settle it again. During a capture the driver reserves nothing, and settling shows that
// by itself.
//
// At the limit a request may still fit into the unused memory of its pool: then the driver is
// called, and if the pool has grown all the same, the block is freed and the call returns
// OUT_OF_MEMORY.
#include "shim/memory/pool.h"
#include "shim/memory/charge.h"
#include "shim/memory/driver_memory.h"
#include "shim/memory/linear.h"
#include "shim/memory/movable.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/hook_lists.h"
#include "shim/process/process.h"
#include "shim/process/spin.h"
#include "shim/process/swap_pass.h"

namespace allot::shim {
namespace {

constexpr uint64_t kStep = 32 * kMiB;
constexpr uint32_t kMaxPools = 256;

// One pool from which memory was requested. `handle` is set last and never changes while a block of
// the pool lives.
struct Pool {
  std::atomic<CUmemoryPool> handle{nullptr};
  std::atomic<int> device{-1};
  std::atomic<uint32_t> blocks{0};
  std::atomic<bool> destroyed{false};
  std::atomic<bool> dirty{false};
  SettledCharge reserved;
};

constinit Pool pools[kMaxPools];
constinit SpinLock noting;
constinit std::atomic<uint32_t> pools_used{0};  // pools[] from this one on were never used

Pool* find_pool(CUmemoryPool handle) {
  const uint32_t used = pools_used.load(std::memory_order_acquire);
  for (uint32_t i = 0; i < used; ++i) {
    if (pools[i].handle.load(std::memory_order_acquire) == handle && !pools[i].destroyed.load()) {
      return &pools[i];
    }
  }
  return nullptr;
}

// The entry for `handle`; makes it if it is missing. Null when all 256 are in use.
Pool* note_pool(CUmemoryPool handle, const Device& device) {
  if (Pool* known = find_pool(handle)) return known;
  // Two threads may use a pool for the first time at once; it must not get two entries.
  noting.lock();
  Pool* pool = find_pool(handle);
  for (uint32_t i = 0; pool == nullptr && i < kMaxPools; ++i) {
    if (pools[i].handle.load(std::memory_order_relaxed) != nullptr) continue;
    pool = &pools[i];
    pool->destroyed.store(false, std::memory_order_relaxed);
    pool->device.store(ordinal_of(device), std::memory_order_relaxed);
    pool->handle.store(handle, std::memory_order_release);
    if (pools_used.load() < i + 1) pools_used.store(i + 1);
  }
  noting.unlock();
  return pool;
}

Device* device_of_pool(const Pool& pool) {
  return device_of(pool.device.load(std::memory_order_acquire));
}

bool reserved_now(CUmemoryPool handle, uint64_t* bytes) {
  cuuint64_t value = 0;
  if (real::cuMemPoolGetAttribute(handle, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &value) !=
      CUDA_SUCCESS) {
    return false;
  }
  *bytes = value;
  return true;
}

// Settles the charge. A destroyed pool has no figure any more: it keeps its last one until its last
// block is freed.
void settle(Pool& pool, uint64_t prepaid) {
  Device* device = device_of_pool(pool);
  if (device == nullptr) return;
  const uint32_t gpu = static_cast<uint32_t>(device->gpu);
  const CUmemoryPool handle = pool.handle.load(std::memory_order_acquire);
  const bool told =
      pool.reserved.settle(gpu, ALLOT_KIND_POOL, prepaid, [&](uint64_t before, uint64_t* now) {
        if (!pool.destroyed.load(std::memory_order_acquire)) return reserved_now(handle, now);
        *now = pool.blocks.load(std::memory_order_acquire) == 0 ? 0 : before;
        return true;
      });
  if (!told) release(*device, ALLOT_KIND_POOL, prepaid);
  if (pool.destroyed.load() && pool.blocks.load() == 0) pool.handle.store(nullptr);
}

// Room in the pool without growth, as far as is known.
bool pool_has_room(CUmemoryPool handle, uint64_t bytes) {
  uint64_t reserved = 0;
  cuuint64_t used = 0;
  if (!reserved_now(handle, &reserved)) return false;
  if (real::cuMemPoolGetAttribute(handle, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used) !=
      CUDA_SUCCESS) {
    return false;
  }
  return reserved >= used && reserved - used >= bytes;
}

// The device whose context the stream belongs to.
Device* device_of_stream(CUstream stream) {
  CUcontext context = nullptr;
  const bool default_stream = reinterpret_cast<uintptr_t>(stream) <= 2;
  if (default_stream || process.device_count == 1) return current_device(&context);
  CUcontext before = nullptr;
  if (real::cuStreamGetCtx(stream, &context) != CUDA_SUCCESS) return nullptr;
  if (real::cuCtxGetCurrent(&before) == CUDA_SUCCESS && before == context)
    return current_device(&context);
  if (real::cuCtxPushCurrent_v2(context) != CUDA_SUCCESS) return nullptr;
  Device* device = current_device(&context);
  real::cuCtxPopCurrent_v2(&before);
  return device;
}

// The device of a pool that cuMemPoolCreate did not make: the default pool of some device. Looked
// up once per pool.
Device* device_of_default_pool(CUmemoryPool handle) {
  for (uint32_t i = 0; i < process.device_count; ++i) {
    CUmemoryPool pool = nullptr;
    const CUdevice ordinal = static_cast<CUdevice>(i);
    if (real::cuDeviceGetDefaultMemPool(&pool, ordinal) == CUDA_SUCCESS && pool == handle) {
      return device_of(ordinal);
    }
  }
  return nullptr;
}

template <class Call, class Free>
CUresult allocate(Device& device, CUmemoryPool handle, CUdeviceptr* out, size_t bytes, Call call,
                  Free free) {
  keep_accounts(device);
  const uint32_t gpu = static_cast<uint32_t>(device.gpu);
  Pool* pool = note_pool(handle, device);
  if (pool == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;  // more than 256 pools cannot be accounted
  const InFlight in_flight;
  const uint64_t growth = round_up(bytes, kStep);
  uint64_t prepaid = growth;
  if (!reserve(device, ALLOT_KIND_POOL, growth)) {
    if (!pool_has_room(handle, bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
    prepaid = 0;
  }
  const uint64_t before = pool->reserved.bytes();
  const CUresult result = call();
  settle(*pool, prepaid);
  if (result != CUDA_SUCCESS) return result;
  const bool grew_unpaid = prepaid == 0 && pool->reserved.bytes() > before && over_limit(device);
  const Entry entry = {*out,
                       0,
                       0,
                       0,
                       static_cast<uint16_t>(pool - pools),
                       Tag::kPointer,
                       Entry::pack(gpu, ALLOT_KIND_POOL)};
  if (!grew_unpaid && process.table.put(entry)) {
    pool->blocks.fetch_add(1, std::memory_order_acq_rel);
    return CUDA_SUCCESS;
  }
  free();
  *out = 0;
  pool->dirty.store(true, std::memory_order_release);
  trim_pools(device);
  return CUDA_ERROR_OUT_OF_MEMORY;
}

template <auto& Alloc, auto& Free>
CUresult mem_alloc_async(CUdeviceptr* out, size_t bytes, CUstream stream) {
  const Scope scope;
  if (scope.refusing()) return CUDA_ERROR_NOT_PERMITTED;
  Device* device =
      scope.tracking() && out != nullptr && bytes != 0 ? device_of_stream(stream) : nullptr;
  CUmemoryPool pool = nullptr;
  if (device == nullptr || real::cuDeviceGetMemPool(&pool, ordinal_of(*device)) != CUDA_SUCCESS) {
    return Alloc(out, bytes, stream);
  }
  return allocate(
      *device, pool, out, bytes, [&] { return Alloc(out, bytes, stream); },
      [&] { Free(*out, stream); });
}

template <auto& Alloc, auto& Free>
CUresult mem_alloc_from_pool_async(CUdeviceptr* out, size_t bytes, CUmemoryPool pool,
                                   CUstream stream) {
  const Scope scope;
  if (scope.refusing()) return CUDA_ERROR_NOT_PERMITTED;
  if (!scope.tracking() || out == nullptr || bytes == 0 || pool == nullptr) {
    return Alloc(out, bytes, pool, stream);
  }
  Pool* known = find_pool(pool);
  Device* device = known ? device_of_pool(*known) : device_of_default_pool(pool);
  if (device == nullptr) return Alloc(out, bytes, pool, stream);
  return allocate(
      *device, pool, out, bytes, [&] { return Alloc(out, bytes, pool, stream); },
      [&] { Free(*out, stream); });
}

// A block of cuMemAlloc: freed when the stream has reached this point; none of it goes to a pool.
CUresult free_swapped(CUdeviceptr address, CUstream stream) {
  const CUresult result = real::cuStreamSynchronize(stream);
  return result == CUDA_SUCCESS ? swap_free(address) : result;
}

template <auto& Free>
CUresult mem_free_async(CUdeviceptr address, CUstream stream) {
  const Scope scope;
  const SwapPass pass;
  Entry block;
  if (!scope.tracking() || !take_block(address, &block)) return Free(address, stream);
  const InFlight in_flight;
  const CUresult result =
      swap_owns(address) ? free_swapped(address, stream) : Free(address, stream);
  if (result != CUDA_SUCCESS) {
    put_block_back(block);
  } else {
    block_freed(block);
  }
  return result;
}

CUresult pool_create(CUmemoryPool* out, const CUmemPoolProps* props) {
  const Scope scope;
  if (scope.refusing()) return CUDA_ERROR_NOT_PERMITTED;
  const CUresult result = real::cuMemPoolCreate(out, props);
  if (result != CUDA_SUCCESS || !scope.tracking()) return result;
  // Pools of host memory take no GPU memory: their device stays unknown and they are not charged.
  Device* device =
      props->location.type == CU_MEM_LOCATION_TYPE_DEVICE ? device_of(props->location.id) : nullptr;
  if (device != nullptr) {
    note_pool(*out, *device);
  } else if (Pool* host = note_pool(*out, process.devices[0])) {
    host->device.store(-1, std::memory_order_release);
  }
  return result;
}

CUresult pool_destroy(CUmemoryPool handle) {
  const Scope scope;
  Pool* pool = scope.tracking() ? find_pool(handle) : nullptr;
  if (pool == nullptr) return real::cuMemPoolDestroy(handle);
  // Marked first, because another thread may create a pool at the same address once this one is
  // gone.
  pool->destroyed.store(true, std::memory_order_release);
  const CUresult result = real::cuMemPoolDestroy(handle);
  if (result != CUDA_SUCCESS) pool->destroyed.store(false, std::memory_order_release);
  if (device_of_pool(*pool) == nullptr && result == CUDA_SUCCESS) {
    pool->handle.store(nullptr);
    pool->destroyed.store(false);
    return result;
  }
  settle(*pool, 0);
  if (pool->handle.load() == nullptr) pool->destroyed.store(false);
  return result;
}

CUresult pool_trim_to(CUmemoryPool handle, size_t keep) {
  const Scope scope;
  const CUresult result = real::cuMemPoolTrimTo(handle, keep);
  Pool* pool = scope.tracking() ? find_pool(handle) : nullptr;
  if (pool != nullptr) settle(*pool, 0);
  return result;
}

CUresult pool_set_attribute(CUmemoryPool handle, CUmemPool_attribute attribute, void* value) {
  const Scope scope;
  const CUresult result = real::cuMemPoolSetAttribute(handle, attribute, value);
  Pool* pool = scope.tracking() ? find_pool(handle) : nullptr;
  if (pool != nullptr && attribute == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD) settle(*pool, 0);
  return result;
}

// A pool gives memory back when the program waits for the GPU.
template <auto& Wait, class... A>
CUresult wait(A... arguments) {
  const Scope scope;
  const CUresult result = Wait(arguments...);
  if (result == CUDA_SUCCESS && pools_used.load(std::memory_order_relaxed) != 0 &&
      scope.tracking()) {
    settle_pools(true);
  }
  return result;
}

}  // namespace

void pool_block_freed(const Entry& block) {
  if (block.extra >= kMaxPools) return;
  Pool& pool = pools[block.extra];
  pool.blocks.fetch_sub(1, std::memory_order_acq_rel);
  pool.dirty.store(true, std::memory_order_release);
  settle(pool, 0);
  if (pool.handle.load() == nullptr) pool.destroyed.store(false);
}

void settle_pools(bool only_dirty) {
  const uint32_t used = pools_used.load(std::memory_order_acquire);
  for (uint32_t i = 0; i < used; ++i) {
    Pool& pool = pools[i];
    if (pool.handle.load(std::memory_order_acquire) == nullptr) continue;
    if (only_dirty && !pool.dirty.load(std::memory_order_acquire)) continue;
    // Stays dirty while freed blocks may still be on their way back to the pool.
    settle(pool, 0);
    if (pool.reserved.bytes() == 0) pool.dirty.store(false, std::memory_order_release);
  }
}

void trim_pools(const Device& device) {
  const uint32_t used = pools_used.load(std::memory_order_acquire);
  for (uint32_t i = 0; i < used; ++i) {
    Pool& pool = pools[i];
    const CUmemoryPool handle = pool.handle.load(std::memory_order_acquire);
    if (handle == nullptr || pool.destroyed.load() || device_of_pool(pool) != &device) continue;
    if (pool.reserved.bytes() > 0) real::cuMemPoolTrimTo(handle, 0);
    settle(pool, 0);
  }
}

void abandon_pools() {
  for (Pool& pool : pools) {
    pool.handle.store(nullptr);
    pool.destroyed.store(false);
    pool.dirty.store(false);
    pool.blocks.store(0);
    pool.device.store(-1);
    pool.reserved.abandon();
  }
  pools_used.store(0);
  noting.abandon();
}

std::span<const Hook> pool_hooks() {
  static constexpr Hook hooks[] = {
      hook<mem_alloc_async<real::cuMemAllocAsync, real::cuMemFreeAsync>>("cuMemAllocAsync"),
      hook<mem_alloc_async<real::cuMemAllocAsync_ptsz, real::cuMemFreeAsync_ptsz>>(
          "cuMemAllocAsync_ptsz"),
      hook<mem_alloc_from_pool_async<real::cuMemAllocFromPoolAsync, real::cuMemFreeAsync>>(
          "cuMemAllocFromPoolAsync"),
      hook<
          mem_alloc_from_pool_async<real::cuMemAllocFromPoolAsync_ptsz, real::cuMemFreeAsync_ptsz>>(
          "cuMemAllocFromPoolAsync_ptsz"),
      hook<mem_free_async<real::cuMemFreeAsync>>("cuMemFreeAsync"),
      hook<mem_free_async<real::cuMemFreeAsync_ptsz>>("cuMemFreeAsync_ptsz"),
      hook<pool_create>("cuMemPoolCreate"),
      hook<pool_destroy>("cuMemPoolDestroy"),
      hook<pool_trim_to>("cuMemPoolTrimTo"),
      hook<pool_set_attribute>("cuMemPoolSetAttribute"),
      hook<wait<real::cuStreamSynchronize, CUstream>>("cuStreamSynchronize"),
      hook<wait<real::cuStreamSynchronize_ptsz, CUstream>>("cuStreamSynchronize_ptsz"),
      hook<wait<real::cuEventSynchronize, CUevent>>("cuEventSynchronize"),
      hook<wait<real::cuCtxSynchronize>>("cuCtxSynchronize"),
      hook<wait<real::cuCtxSynchronize_v2, CUcontext>>("cuCtxSynchronize_v2"),
  };
  return hooks;
}

}  // namespace allot::shim
