// The state behind pool.cc, graph_memory.cc and cu_pool.cc. All of it is guarded by Pools::mutex,
// which is taken before memory_lock() and held for bookkeeping only.
#pragma once

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "machine.h"
#include "memory.h"
#include "pool.h"

namespace allot::sim {

inline constexpr uint64_t kPoolStep = 32ull << 20;  // what pools and graphs reserve at a time
inline constexpr uint32_t kPoolMagic = 0x504f4f4c;

inline uint64_t round_up(uint64_t n, uint64_t to) {
  return (n + to - 1) / to * to;
}

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
  bool imported = false;  // of another process: gives no memory, takes pointers
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

struct Pools {
  std::mutex mutex;
  std::vector<Pool*> all;
  Pool* defaults[kMaxGpus] = {};
  Pool* managed[kMaxGpus] = {};  // the default ones of managed memory
  Pool* current[kMaxGpus] = {};
  std::atomic<bool> dirty[kMaxGpus] = {};  // something was freed since the last synchronisation
  std::vector<GraphRegion*> regions;
  uint64_t graph_used[kMaxGpus] = {}, graph_used_high[kMaxGpus] = {};
  uint64_t graph_reserved[kMaxGpus] = {}, graph_reserved_high[kMaxGpus] = {};
};

Pools& pools();

// The lock is held.
Pool* make_pool(CUdevice device, bool is_default);
void trim_pool(Pool* pool,
               uint64_t keep);  // whole free chunks go until no more than `keep` is reserved

Pool* current_pool(CUdevice device);
inline Pool* to_pool(CUmemoryPool handle) {
  auto* pool = reinterpret_cast<Pool*>(handle);
  return pool != nullptr && pool->magic == kPoolMagic ? pool : nullptr;
}

}  // namespace allot::sim
