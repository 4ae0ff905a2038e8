// Pools. Everything is guarded by one lock: it is held for bookkeeping only.
//
// A freed allocation passes through two states. In the stream that freed it, it can be used again
// at once (order within a stream makes that safe); for other streams it becomes free when that
// stream has got past the free, which a TaskBody queued there tells.
#include "pool.h"

#include <algorithm>

#include "memory.h"
#include "pool_state.h"
#include "runtime.h"

namespace allot::sim {
namespace {

constexpr uint64_t kAlign = 512;

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

Pool* default_locked(CUdevice device) {
  Pool*& pool = pools().defaults[device];
  if (pool == nullptr) pool = make_pool(device, true);
  return pool;
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

Pools& pools() {
  static Pools& state = *new Pools;
  return state;
}

// Lock held. Gives whole free chunks back until no more than `keep` is reserved.
void trim_pool(Pool* pool, uint64_t keep) {
  for (size_t i = pool->chunks.size(); i-- > 0 && pool->reserved > keep;) {
    if (!pool->chunks[i]->whole()) continue;
    Block* block = pool->chunks[i]->block;
    pool->reserved -= block->span;
    pool->chunks.erase(pool->chunks.begin() + static_cast<std::ptrdiff_t>(i));
    release_block(block);
  }
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

Pool* current_pool(CUdevice device) {
  std::lock_guard<std::mutex> lock(pools().mutex);
  Pool* pool = pools().current[device];
  return pool != nullptr ? pool : default_locked(device);
}

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
  const uint64_t span = round_up(bytes, kPoolStep);
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
    if (pool->gpu == gpu && pool->reserved > pool->threshold) trim_pool(pool, pool->threshold);
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

}  // namespace allot::sim
