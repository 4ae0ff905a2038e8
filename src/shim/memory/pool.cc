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
#include "shim/memory/exported.h"
#include "shim/memory/linear.h"
#include "shim/memory/movable.h"
#include "shim/process/burst_counter.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/hook_guard.h"
#include "shim/process/hook_lists.h"
#include "shim/process/process.h"
#include "shim/process/spin.h"
#include "sys/file.h"

namespace allot::shim {
namespace {

constexpr uint64_t kStep = 32 * kMiB;

// Places for pools come in groups that are mapped as they are needed, because they must not move.
// The 65,537th pool at once cannot be made: nobody could account it.
constexpr uint32_t kGroup = 256;
constexpr uint32_t kGroups = 256;
constexpr uint32_t kMaxPools = kGroup * kGroups;
constexpr uint32_t kNoPlace = UINT32_MAX;

// Where the memory of a pool is: a CUDA ordinal, or one of these.
constexpr int kOnHost = -1;
constexpr int kWhereItIsUsed = -2;  // managed memory without a device of its own

// One pool from which memory was requested. `handle` is set last and never changes while a block of
// the pool lives.
struct Pool {
  std::atomic<CUmemoryPool> handle;
  std::atomic<int> device;
  std::atomic<uint32_t> blocks;
  std::atomic<bool> destroyed;
  std::atomic<bool> dirty;
  uint32_t next_free;  // 1 + the next free place; under `noting`
  SettledCharge reserved;
};
static_assert(kMaxPools <= UINT16_MAX + 1u, "Entry::extra holds a pool's place");

constinit std::atomic<Pool*> groups[kGroups] = {};
constinit SpinLock noting;
constinit std::atomic<uint32_t> pools_used{0};  // places from here on were never used
constinit uint32_t first_free = 0;              // 1 + a free place; under `noting`

Pool* pool_at(uint32_t place) {
  if (place >= pools_used.load(std::memory_order_acquire)) return nullptr;
  return &groups[place / kGroup].load(std::memory_order_acquire)[place % kGroup];
}

Pool* find_pool(CUmemoryPool handle, uint32_t* place = nullptr) {
  Entry known;
  if (!process.table.find(Tag::kPool, reinterpret_cast<uint64_t>(handle), &known)) return nullptr;
  if (place != nullptr) *place = known.extra;
  return pool_at(known.extra);
}

// A place that nobody uses, or kNoPlace. `noting` is held.
uint32_t take_place() {
  if (first_free != 0) {
    const uint32_t place = first_free - 1;
    first_free = pool_at(place)->next_free;
    return place;
  }
  const uint32_t place = pools_used.load(std::memory_order_relaxed);
  if (place == kMaxPools) return kNoPlace;
  std::atomic<Pool*>& group = groups[place / kGroup];
  if (group.load(std::memory_order_relaxed) == nullptr) {
    const Result<void*> memory = sys::map_memory(kGroup * sizeof(Pool));
    if (!memory) return kNoPlace;
    group.store(static_cast<Pool*>(*memory), std::memory_order_release);
  }
  pools_used.store(place + 1, std::memory_order_release);
  return place;
}

// The entry for `handle`, made if missing. Null when there is no place for it.
Pool* note_pool(CUmemoryPool handle, int where) {
  if (Pool* known = find_pool(handle)) return known;
  // Two threads may use a pool for the first time at once; it must not get two entries.
  noting.lock();
  Pool* pool = find_pool(handle);
  if (pool == nullptr) {
    const uint32_t place = take_place();
    pool = place == kNoPlace ? nullptr : pool_at(place);
    if (pool != nullptr) {
      pool->destroyed.store(false, std::memory_order_relaxed);
      pool->device.store(where, std::memory_order_relaxed);
      pool->handle.store(handle, std::memory_order_release);
      const Entry name = {reinterpret_cast<uint64_t>(handle), 0,          0, 0,
                          static_cast<uint16_t>(place),       Tag::kPool, 0};
      if (!process.table.put(name)) {
        pool->handle.store(nullptr, std::memory_order_relaxed);
        pool->next_free = first_free;
        first_free = place + 1;
        pool = nullptr;
      }
    }
  }
  noting.unlock();
  return pool;
}

// A destroyed pool whose last block is gone gives its place to another. Its name went when it was
// destroyed.
void leave_if_gone(Pool& pool) {
  if (!pool.destroyed.load() || pool.blocks.load() != 0) return;
  noting.lock();
  if (pool.destroyed.load() && pool.blocks.load() == 0 && pool.handle.load() != nullptr) {
    pool.handle.store(nullptr);
    for (uint32_t g = 0; g < kGroups; ++g) {
      Pool* group = groups[g].load(std::memory_order_relaxed);
      if (group == nullptr || &pool < group || &pool >= group + kGroup) continue;
      pool.next_free = first_free;
      first_free = g * kGroup + static_cast<uint32_t>(&pool - group) + 1;
    }
  }
  noting.unlock();
}

template <class Visit>
void each_pool(Visit visit) {
  const uint32_t used = pools_used.load(std::memory_order_acquire);
  for (uint32_t i = 0; i < used; ++i) {
    Pool& pool = *pool_at(i);
    if (pool.handle.load(std::memory_order_acquire) != nullptr) visit(pool, i);
  }
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
  leave_if_gone(pool);
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

// A pool that no call of this process has named so far: a device's own, or one that came by a way
// we do not know. Asked once a pool; memory of a way we do not know is charged where it is used.
Pool* meet_pool(CUmemoryPool handle) {
  for (uint32_t i = 0; i < process.device_count; ++i) {
    const CUdevice ordinal = static_cast<CUdevice>(i);
    for (auto* own : {&real::cuDeviceGetDefaultMemPool, &real::cuDeviceGetMemPool}) {
      CUmemoryPool pool = nullptr;
      if ((*own)(&pool, ordinal) == CUDA_SUCCESS && pool == handle) {
        return note_pool(handle, ordinal);
      }
    }
  }
  return note_pool(handle, kWhereItIsUsed);
}

template <class Make, class Free>
CUresult allocate(const Call& guard, Device& device, Pool* pool, CUdeviceptr* out, size_t bytes,
                  Make call, Free free) {
  if (pool == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;  // what cannot be accounted cannot be given
  keep_accounts(device);
  const uint32_t gpu = static_cast<uint32_t>(device.gpu);
  const CUmemoryPool handle = pool->handle.load(std::memory_order_acquire);
  uint32_t place = 0;
  if (find_pool(handle, &place) != pool) return call();  // destroyed meanwhile: the driver's error
  const InFlight in_flight(guard);
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
                       static_cast<uint16_t>(place),
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
CUresult mem_alloc_async(const Taking& guard, CUdeviceptr* out, size_t bytes, CUstream stream) {
  Device* device =
      guard.tracking() && out != nullptr && bytes != 0 ? device_of_stream(stream) : nullptr;
  CUmemoryPool pool = nullptr;
  if (device == nullptr || real::cuDeviceGetMemPool(&pool, ordinal_of(*device)) != CUDA_SUCCESS) {
    return Alloc(out, bytes, stream);
  }
  return allocate(
      guard, *device, note_pool(pool, ordinal_of(*device)), out, bytes,
      [&] { return Alloc(out, bytes, stream); }, [&] { Free(*out, stream); });
}

template <auto& Alloc, auto& Free>
CUresult mem_alloc_from_pool_async(const Taking& guard, CUdeviceptr* out, size_t bytes,
                                   CUmemoryPool pool, CUstream stream) {
  if (!guard.tracking() || out == nullptr || bytes == 0 || pool == nullptr) {
    return Alloc(out, bytes, pool, stream);
  }
  Pool* known = find_pool(pool);
  if (known == nullptr) known = meet_pool(pool);
  if (known == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  if (known->device.load(std::memory_order_acquire) == kWhereItIsUsed) {
    Device* here = device_of_stream(stream);
    if (here != nullptr) known->device.store(ordinal_of(*here), std::memory_order_release);
  }
  Device* device = device_of_pool(*known);
  if (device == nullptr && refused_gpu(known->device.load())) return CUDA_ERROR_NOT_PERMITTED;
  if (device == nullptr) return Alloc(out, bytes, pool, stream);
  return allocate(
      guard, *device, known, out, bytes, [&] { return Alloc(out, bytes, pool, stream); },
      [&] { Free(*out, stream); });
}

// A block of cuMemAlloc: freed when the stream has reached this point; none of it goes to a pool.
CUresult free_swapped(CUdeviceptr address, CUstream stream) {
  const CUresult result = real::cuStreamSynchronize(stream);
  return result == CUDA_SUCCESS ? swap_free(address) : result;
}

template <auto& Free>
CUresult mem_free_async(const Moving& guard, CUdeviceptr address, CUstream stream) {
  Entry block;
  if (!guard.tracking() || !take_block(address, &block)) return Free(address, stream);
  const InFlight in_flight(guard);
  const CUresult result =
      swap_owns(address) ? free_swapped(address, stream) : Free(address, stream);
  if (result != CUDA_SUCCESS) {
    put_block_back(block);
  } else {
    block_freed(block);
  }
  return result;
}

// Where the memory of a pool at `location` counts.
int place_of(const CUmemLocation& location, CUmemAllocationType type) {
  if (location.type == CU_MEM_LOCATION_TYPE_DEVICE) return location.id;
  return type == CU_MEM_ALLOCATION_TYPE_MANAGED ? kWhereItIsUsed : kOnHost;
}

CUresult pool_create(const Taking& guard, CUmemoryPool* out, const CUmemPoolProps* props) {
  const CUresult result = real::cuMemPoolCreate(out, props);
  if (result != CUDA_SUCCESS || !guard.tracking()) return result;
  // A pool of host memory takes nothing of the card, and is noted so that it stays uncharged.
  if (note_pool(*out, place_of(props->location, props->allocType)) != nullptr) return result;
  real::cuMemPoolDestroy(*out);
  *out = nullptr;
  return CUDA_ERROR_OUT_OF_MEMORY;
}

// The pools that every location has of itself, and the one that is set for it.
template <auto& Get>
CUresult pool_of_location(const Observing& guard, CUmemoryPool* out, CUmemLocation* location,
                          CUmemAllocationType type) {
  const CUresult result = Get(out, location, type);
  if (result == CUDA_SUCCESS && guard.tracking()) note_pool(*out, place_of(*location, type));
  return result;
}

CUresult pool_destroy(const Observing& guard, CUmemoryPool handle) {
  Pool* pool = guard.tracking() ? find_pool(handle) : nullptr;
  if (pool == nullptr) return real::cuMemPoolDestroy(handle);
  // Its name goes first: another thread may create a pool at the same address once this one is
  // gone.
  Entry name;
  if (!process.table.take(Tag::kPool, reinterpret_cast<uint64_t>(handle), &name)) {
    return real::cuMemPoolDestroy(handle);
  }
  pool->destroyed.store(true, std::memory_order_release);
  const CUresult result = real::cuMemPoolDestroy(handle);
  if (result != CUDA_SUCCESS) {
    pool->destroyed.store(false, std::memory_order_release);
    process.table.put(name);
    return result;
  }
  if (device_of_pool(*pool) == nullptr) {
    leave_if_gone(*pool);
  } else {
    settle(*pool, 0);
  }
  return result;
}

CUresult pool_trim_to(const Observing& guard, CUmemoryPool handle, size_t keep) {
  const CUresult result = real::cuMemPoolTrimTo(handle, keep);
  Pool* pool = guard.tracking() ? find_pool(handle) : nullptr;
  if (pool != nullptr) settle(*pool, 0);
  return result;
}

CUresult pool_set_attribute(const Observing& guard, CUmemoryPool handle,
                            CUmemPool_attribute attribute, void* value) {
  const CUresult result = real::cuMemPoolSetAttribute(handle, attribute, value);
  Pool* pool = guard.tracking() ? find_pool(handle) : nullptr;
  if (pool != nullptr && attribute == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD) settle(*pool, 0);
  return result;
}

// A pool gives memory back when the program waits for the GPU.
template <auto& Wait, class... A>
CUresult wait(const Observing& guard, A... arguments) {
  const CUresult result = Wait(arguments...);
  if (bursts_are_counted()) burst_ends();
  if (result == CUDA_SUCCESS && pools_used.load(std::memory_order_relaxed) != 0 &&
      guard.tracking()) {
    settle_pools(true);
  }
  return result;
}

}  // namespace

void pool_block_freed(const Entry& block) {
  Pool* pool = pool_at(block.extra);
  if (pool == nullptr) return;
  pool->blocks.fetch_sub(1, std::memory_order_acq_rel);
  pool->dirty.store(true, std::memory_order_release);
  settle(*pool, 0);
}

void settle_pools(bool only_dirty) {
  each_pool([only_dirty](Pool& pool, uint32_t) {
    const bool dirty = pool.dirty.load(std::memory_order_acquire);
    if (!dirty && (only_dirty || (pool.blocks.load() == 0 && pool.reserved.bytes() == 0))) return;
    // Stays dirty while freed blocks may still be on their way back.
    settle(pool, 0);
    if (pool.reserved.bytes() == 0) pool.dirty.store(false, std::memory_order_release);
  });
}

void trim_pools(const Device& device) {
  each_pool([&device](Pool& pool, uint32_t) {
    if (pool.destroyed.load() || device_of_pool(pool) != &device) return;
    if (pool.reserved.bytes() == 0) return;
    real::cuMemPoolTrimTo(pool.handle.load(std::memory_order_acquire), 0);
    settle(pool, 0);
  });
}

void pools_after_context(const Device& device, bool last) {
  each_pool([&device, last](Pool& pool, uint32_t place) {
    if (device_of_pool(pool) != &device || pool.blocks.load() == 0) return;
    uint64_t reserved = 0;
    const bool emptied =
        pool.destroyed.load() ? last : reserved_now(pool.handle.load(), &reserved) && reserved == 0;
    if (!emptied) return;
    process.table.drop(
        [place](const Entry& e) {
          return e.tag == Tag::kPointer && e.kind() == ALLOT_KIND_POOL && e.extra == place;
        },
        [&pool](const Entry& e) {
          exported_block_gone(e.key);
          pool.blocks.fetch_sub(1, std::memory_order_acq_rel);
        });
    settle(pool, 0);
  });
}

void abandon_pools() {
  for (std::atomic<Pool*>& group : groups) group.store(nullptr);
  pools_used.store(0);
  first_free = 0;
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
      hook<pool_of_location<real::cuMemGetDefaultMemPool>>("cuMemGetDefaultMemPool"),
      hook<pool_of_location<real::cuMemGetMemPool>>("cuMemGetMemPool"),
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
