// Pools and graph memory. Everything is guarded by one lock: it is held for bookkeeping only.
//
// A freed allocation passes through two states. In the stream that freed it, it can be used again at
// once (order within a stream makes that safe); for other streams it becomes free when that stream has
// got past the free, which a TaskBody queued there tells.
#include "pool.h"

#include <sys/mman.h>

#include <algorithm>

#include "memory.h"
#include "runtime.h"

namespace allot::sim {

namespace {
constexpr uint64_t kStep = 32ull << 20;
constexpr uint64_t kAlign = 512;
constexpr uint32_t kPoolMagic = 0x504f4f4c;
uint64_t round_up(uint64_t n, uint64_t to) {
  return (n + to - 1) / to * to;
}
}  // namespace

struct PendingFree {
  uint64_t address, bytes;
  Stream* stream;
  Block* chunk;
  bool reused = false;  // taken again by the same stream before its turn came
};

struct Chunk {
  Block* block;
  std::map<uint64_t, uint64_t> free;  // address -> bytes
  uint64_t pending = 0;               // frees that are queued in streams
  bool whole() const {
    return pending == 0 && free.size() == 1 && free.begin()->second == block->span;
  }
};

struct Pool {
  uint32_t magic = kPoolMagic;
  CUdevice device = 0;
  uint32_t gpu = 0;
  bool is_default = false, destroyed = false;
  CUmemPoolProps props{};
  uint64_t threshold = 0, max_bytes = 0;
  uint64_t reserved = 0, reserved_high = 0, used = 0, used_high = 0;
  int reuse[3] = {1, 1, 1};
  std::vector<std::unique_ptr<Chunk>> chunks;
  std::vector<std::shared_ptr<PendingFree>> pending;
};

struct GraphRegion {
  Block* block;  // its pages come with the first launch
  bool in_use = false, dropped = false;
};

namespace {

struct Pools {
  std::mutex mutex;
  std::vector<Pool*> all;
  Pool* defaults[kMaxGpus] = {};
  Pool* current[kMaxGpus] = {};
  std::atomic<bool> dirty[kMaxGpus] = {};  // something was freed since the last synchronisation
  std::vector<GraphRegion*> regions;
  uint64_t graph_used[kMaxGpus] = {}, graph_used_high[kMaxGpus] = {};
  uint64_t graph_reserved[kMaxGpus] = {}, graph_reserved_high[kMaxGpus] = {};
};

Pools& pools() {
  static Pools& state = *new Pools;
  return state;
}

// Returns `bytes` at `address` to its chunk, joined with its neighbours. Lock held.
void give_back(Chunk* chunk, uint64_t address, uint64_t bytes) {
  auto next = chunk->free.lower_bound(address);
  if (next != chunk->free.end() && address + bytes == next->first) {
    bytes += next->second;
    next = chunk->free.erase(next);
  }
  if (next != chunk->free.begin()) {
    auto before = std::prev(next);
    if (before->first + before->second == address) {
      before->second += bytes;
      return;
    }
  }
  chunk->free[address] = bytes;
}

Chunk* chunk_of(Pool* pool, const Block* block) {
  for (auto& chunk : pool->chunks) {
    if (chunk->block == block) return chunk.get();
  }
  return nullptr;
}

// Lock held. Gives whole free chunks back until no more than `keep` is reserved.
void trim(Pool* pool, uint64_t keep) {
  for (size_t i = pool->chunks.size(); i-- > 0 && pool->reserved > keep;) {
    if (!pool->chunks[i]->whole()) continue;
    Block* block = pool->chunks[i]->block;
    pool->reserved -= block->span;
    pool->chunks.erase(pool->chunks.begin() + static_cast<std::ptrdiff_t>(i));
    release_block(block);
  }
}

bool take_from(Chunk* chunk, uint64_t bytes, uint64_t* address) {
  for (auto it = chunk->free.begin(); it != chunk->free.end(); ++it) {
    if (it->second < bytes) continue;
    *address = it->first;
    const uint64_t rest = it->second - bytes;
    chunk->free.erase(it);
    if (rest > 0) chunk->free[*address + bytes] = rest;
    return true;
  }
  return false;
}

void note_use(Pool* pool, uint64_t address, uint64_t asked, Block* block) {
  {
    std::lock_guard<std::mutex> lock(memory_lock());
    block->parts[address] = asked;
  }
  pool->used += asked;
  pool->used_high = std::max(pool->used_high, pool->used);
}

Pool* make_pool(CUdevice device, bool is_default) {
  auto* pool = new Pool;
  pool->device = device;
  pool->gpu = gpu_of(device);
  pool->is_default = is_default;
  pool->props.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  pool->props.location = CUmemLocation{CU_MEM_LOCATION_TYPE_DEVICE, device};
  pools().all.push_back(pool);
  return pool;
}

Pool* to_pool(CUmemoryPool handle) {
  auto* pool = reinterpret_cast<Pool*>(handle);
  return pool != nullptr && pool->magic == kPoolMagic ? pool : nullptr;
}

Pool* default_locked(CUdevice device) {
  Pool*& pool = pools().defaults[device];
  if (pool == nullptr) pool = make_pool(device, true);
  return pool;
}

Pool* current_pool(CUdevice device) {
  std::lock_guard<std::mutex> lock(pools().mutex);
  Pool* pool = pools().current[device];
  return pool != nullptr ? pool : default_locked(device);
}

// The stream got past a free. Runs on the executor.
void complete_free(Pool* pool, const std::shared_ptr<PendingFree>& item) {
  std::lock_guard<std::mutex> lock(pools().mutex);
  std::erase(pool->pending, item);
  Chunk* chunk = chunk_of(pool, item->chunk);
  if (chunk == nullptr) return;
  chunk->pending--;
  if (!item->reused) give_back(chunk, item->address, item->bytes);
  pools().dirty[pool->gpu] = true;
}

}  // namespace

CUmemoryPool pool_handle(Pool* pool) {
  return reinterpret_cast<CUmemoryPool>(pool);
}

Pool* default_pool(CUdevice device) {
  std::lock_guard<std::mutex> lock(pools().mutex);
  return default_locked(device);
}

CUresult allocate_in_pool(Pool* pool, Stream* stream, uint64_t asked, uint64_t* address) {
  if (asked == 0) return CUDA_ERROR_INVALID_VALUE;
  const uint64_t bytes = round_up(asked, kAlign);
  std::lock_guard<std::mutex> lock(pools().mutex);
  for (auto& item : pool->pending) {
    if (item->stream != stream || item->reused || item->bytes != bytes) continue;
    item->reused = true;
    *address = item->address;
    note_use(pool, *address, asked, item->chunk);
    return CUDA_SUCCESS;
  }
  for (auto& chunk : pool->chunks) {
    if (!take_from(chunk.get(), bytes, address)) continue;
    note_use(pool, *address, asked, chunk->block);
    return CUDA_SUCCESS;
  }
  const uint64_t span = round_up(bytes, kStep);
  if (pool->max_bytes != 0 && pool->reserved + span > pool->max_bytes)
    return CUDA_ERROR_OUT_OF_MEMORY;
  Block* block = allocate_block(pool->gpu, pool->device, nullptr, Kind::kPool, span);
  if (block == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  block->pool = pool;
  auto chunk = std::make_unique<Chunk>();
  chunk->block = block;
  chunk->free[block->base] = span;
  take_from(chunk.get(), bytes, address);
  pool->chunks.push_back(std::move(chunk));
  pool->reserved += span;
  pool->reserved_high = std::max(pool->reserved_high, pool->reserved);
  note_use(pool, *address, asked, block);
  return CUDA_SUCCESS;
}

CUresult free_in_pool(uint64_t address, Stream* stream) {
  std::shared_ptr<PendingFree> item;
  Pool* pool = nullptr;
  {
    std::lock_guard<std::mutex> lock(pools().mutex);
    std::lock_guard<std::mutex> memory(memory_lock());
    Block* block = block_at(address);
    if (block == nullptr || block->kind != Kind::kPool) return CUDA_ERROR_INVALID_VALUE;
    auto it = block->parts.find(address);
    if (it == block->parts.end()) return CUDA_ERROR_INVALID_VALUE;
    pool = block->pool;
    pool->used -= it->second;
    item = std::make_shared<PendingFree>(
        PendingFree{address, round_up(it->second, kAlign), stream, block});
    block->parts.erase(it);
    chunk_of(pool, block)->pending++;
    if (stream != nullptr) pool->pending.push_back(item);
  }
  if (stream != nullptr) {
    return submit(stream, TaskBody{[pool, item] { complete_free(pool, item); }});
  }
  complete_free(pool, item);
  pools_after_sync(pool->gpu);
  return CUDA_SUCCESS;
}

void pools_after_sync(uint32_t gpu) {
  if (!pools().dirty[gpu].load(std::memory_order_relaxed)) return;
  std::lock_guard<std::mutex> lock(pools().mutex);
  if (!pools().dirty[gpu].exchange(false)) return;
  for (Pool* pool : pools().all) {
    if (pool->gpu == gpu && pool->reserved > pool->threshold) trim(pool, pool->threshold);
  }
}

// The last context of a device takes its pools' memory with it.
void drop_context_pools(Context* context) {
  for (Context* other : living_contexts()) {
    if (other != context && other->gpu == context->gpu) return;
  }
  std::lock_guard<std::mutex> lock(pools().mutex);
  for (Pool* pool : pools().all) {
    if (pool->gpu != context->gpu) continue;
    pool->pending.clear();
    for (auto& chunk : pool->chunks) release_block(chunk->block);
    pool->chunks.clear();
    pool->reserved = pool->used = 0;
  }
}

// The addresses go. Lock held.
void forget_region(GraphRegion* region) {
  {
    std::lock_guard<std::mutex> memory(memory_lock());
    unregister_block(region->block);
  }
  release_va(region->block->base, region->block->span);
  std::erase(pools().regions, region);
  delete region->block;
  delete region;
}

// ---- graph memory -------------------------------------------------------------------------------

GraphRegion* make_region(CUdevice device, uint64_t bytes, uint64_t* address) {
  const uint64_t span = round_up(bytes, kStep);
  const uint64_t base = reserve_va(span, kPageBytes, 0);
  if (base == 0) return nullptr;
  auto* block = new Block;
  block->base = base;
  block->bytes = bytes;
  block->span = span;
  block->kind = Kind::kGraph;
  block->gpu = gpu_of(device);
  block->device = device;
  block->own_range = true;
  auto* region = new GraphRegion{block};
  std::lock_guard<std::mutex> lock(pools().mutex);
  pools().regions.push_back(region);
  std::lock_guard<std::mutex> memory(memory_lock());
  register_block(block);
  *address = base;
  return region;
}

CUresult back_region(GraphRegion* region) {
  Pools& state = pools();
  Block* block = region->block;
  const uint32_t gpu = block->gpu;
  std::lock_guard<std::mutex> lock(state.mutex);
  if (block->pages.empty()) {
    if (!open_vram(gpu)) return CUDA_ERROR_OPERATING_SYSTEM;
    Runs pages = take_pages(gpu, static_cast<uint32_t>(block->span / kPageBytes));
    if (pages.empty()) return CUDA_ERROR_OUT_OF_MEMORY;
    if (!map_runs(gpu, pages, block->base, PROT_READ | PROT_WRITE)) {
      give_pages(gpu, pages, false);
      return CUDA_ERROR_MAP_FAILED;
    }
    {
      std::lock_guard<std::mutex> memory(memory_lock());
      block->pages = std::move(pages);
    }
    state.graph_used[gpu] += block->span;
    state.graph_used_high[gpu] = std::max(state.graph_used_high[gpu], state.graph_used[gpu]);
    state.graph_reserved[gpu] += block->span;
    state.graph_reserved_high[gpu] =
        std::max(state.graph_reserved_high[gpu], state.graph_reserved[gpu]);
  }
  region->in_use = true;
  return CUDA_SUCCESS;
}

// The figures of a card keep counting the memory as used until it is trimmed; only that it may be
// trimmed is noted here.
void end_region_use(GraphRegion* region) {
  std::lock_guard<std::mutex> lock(pools().mutex);
  region->in_use = false;
}

void drop_region(GraphRegion* region) {
  std::lock_guard<std::mutex> lock(pools().mutex);
  region->dropped = true;
  if (region->block->pages.empty()) forget_region(region);
}

GraphRegion* region_at(uint64_t address) {
  std::lock_guard<std::mutex> lock(pools().mutex);
  for (GraphRegion* region : pools().regions) {
    if (region->block->base == address) return region;
  }
  return nullptr;
}

CUresult free_graph_memory(uint64_t address) {
  GraphRegion* region = region_at(address);
  if (region == nullptr || !region->in_use) return CUDA_ERROR_INVALID_VALUE;
  end_region_use(region);
  return CUDA_SUCCESS;
}

}  // namespace allot::sim

// ---- entries --------------------------------------------------------------------------------------

using namespace allot::sim;

static CUresult allocate_async(CUdeviceptr* out, size_t bytes, Pool* pool, CUstream stream,
                               bool ptds) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Stream* s = nullptr;
  if (const CUresult r = find_stream(stream, ptds, &s); r != CUDA_SUCCESS) return r;
  if (pool == nullptr) pool = current_pool(s->context->device);
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
  if (out == nullptr || at == nullptr || type != CU_MEM_ALLOCATION_TYPE_PINNED)
    return CUDA_ERROR_INVALID_VALUE;
  if (at->type != CU_MEM_LOCATION_TYPE_DEVICE) return CUDA_ERROR_NOT_SUPPORTED;
  if (!valid_device(at->id)) return CUDA_ERROR_INVALID_DEVICE;
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
  if (props->handleTypes != CU_MEM_HANDLE_TYPE_NONE) return CUDA_ERROR_NOT_SUPPORTED;  // see README
  std::lock_guard<std::mutex> lock(pools().mutex);
  Pool* pool = make_pool(props->location.id, false);
  pool->props = *props;
  pool->max_bytes = props->maxSize != 0 ? round_up(props->maxSize, kStep) : 0;
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
  trim(pool, 0);
  return CUDA_SUCCESS;
}

SIM_API cuMemPoolTrimTo(CUmemoryPool handle, size_t keep) {
  SIM_ENTER();
  Pool* pool = to_pool(handle);
  if (pool == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard<std::mutex> lock(pools().mutex);
  trim(pool, keep);
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

SIM_API cuDeviceGetGraphMemAttribute(CUdevice device, CUgraphMem_attribute which, void* out) {
  SIM_ENTER();
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  Pools& state = pools();
  std::lock_guard<std::mutex> lock(state.mutex);
  const uint32_t gpu = gpu_of(device);
  const uint64_t values[] = {state.graph_used[gpu], state.graph_used_high[gpu],
                             state.graph_reserved[gpu], state.graph_reserved_high[gpu]};
  if (which < 0 || which > 3) return CUDA_ERROR_INVALID_VALUE;
  *static_cast<cuuint64_t*>(out) = values[which];
  return CUDA_SUCCESS;
}

SIM_API cuDeviceSetGraphMemAttribute(CUdevice device, CUgraphMem_attribute which, void* in) {
  SIM_ENTER();
  if (in == nullptr || *static_cast<cuuint64_t*>(in) != 0) return CUDA_ERROR_INVALID_VALUE;
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  Pools& state = pools();
  std::lock_guard<std::mutex> lock(state.mutex);
  const uint32_t gpu = gpu_of(device);
  if (which == CU_GRAPH_MEM_ATTR_USED_MEM_HIGH) {
    state.graph_used_high[gpu] = state.graph_used[gpu];
  } else if (which == CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH) {
    state.graph_reserved_high[gpu] = state.graph_reserved[gpu];
  } else {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}

SIM_API cuDeviceGraphMemTrim(CUdevice device) {
  SIM_ENTER();
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  Pools& state = pools();
  std::lock_guard<std::mutex> lock(state.mutex);
  const uint32_t gpu = gpu_of(device);
  for (size_t i = state.regions.size(); i-- > 0;) {
    GraphRegion* region = state.regions[i];
    Block* block = region->block;
    if (block->gpu != gpu || region->in_use || block->pages.empty()) continue;
    Runs pages;
    {
      std::lock_guard<std::mutex> memory(memory_lock());
      pages.swap(block->pages);
    }
    clear_va(block->base, block->span);
    give_pages(gpu, pages);
    state.graph_reserved[gpu] -= block->span;
    state.graph_used[gpu] -= block->span;
    if (region->dropped) forget_region(region);
  }
  return CUDA_SUCCESS;
}
