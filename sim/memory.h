// Device memory of this process: which address belongs to what, and cuMemAlloc's heap.
//
// Measured on an H100 (580.159.04): sizes up to 1 MiB are cut, 512-byte aligned, from slabs of 2
// MiB that stand at 2 MiB boundaries; larger ones are whole 2 MiB pages; a slab goes back to the
// card with its last block. The heap here takes and gives exactly these amounts.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "driver/cuda_abi.h"
#include "slab.h"
#include "vram.h"

namespace allot::sim {

struct Context;
struct Pool;

enum class Kind : uint8_t {
  kSlab,
  kLinear,
  kArray,
  kPool,
  kVmm,
  kIpc,
  kGraph,
  kExternal,
  kManaged,
  kHost,
  kRegistered
};

// A range of addresses and what stands there. Guarded by memory_lock() once registered.
struct Block {
  uint64_t base = 0;
  uint64_t bytes = 0;  // as asked for
  uint64_t span = 0;   // addresses used
  Kind kind = Kind::kLinear;
  uint32_t gpu = 0;
  CUdevice device = 0;
  Context* context = nullptr;
  Runs pages;
  bool own_range = false;  // addresses from reserve_va, not the GPU's own mapping
  uint32_t share = UINT32_MAX;
  uint64_t share_generation = 0;
  unsigned flags = 0;
  uint64_t id = 0;
  Pool* pool = nullptr;
  std::map<uint64_t, uint64_t> parts;  // of a pool's chunk: live allocations, address -> bytes
  std::unique_ptr<Slab> slab;
};

std::mutex& memory_lock();
void register_block(Block* block);    // memory_lock() held
void unregister_block(Block* block);  // memory_lock() held
Block* block_at(uint64_t address);    // memory_lock() held; null = nothing of ours

// What the application allocated around `address`.
struct Area {
  uint64_t base, bytes;
  Kind kind;
  CUdevice device;
  Context* context;
  uint64_t id;
  unsigned flags;
  Block* block;
};
bool find_area(uint64_t address, Area* out);
// [address, +bytes) lies in memory the device may touch (device, managed, registered host).
bool device_reaches(uint64_t address, uint64_t bytes);
// `address` belongs to a graph's allocation that has no memory yet.
bool not_backed(uint64_t address);

// Any memory of this process is managed.
bool has_managed_memory();

// Whole pages of the card, registered under `kind`; null = the card is full. `wish` as for VA only.
Block* allocate_block(uint32_t gpu, CUdevice device, Context* context, Kind kind, uint64_t bytes);
void release_block(Block* block);
uint64_t next_id();

class Heap {
 public:
  Heap(Context* context, uint32_t gpu, CUdevice device)
      : context_(context), gpu_(gpu), device_(device) {}
  ~Heap();
  CUresult allocate(uint64_t bytes, uint64_t* address);
  // The address is a block's base and `block` its block. INVALID_VALUE for anything else.
  CUresult release(uint64_t address, Block* block);

 private:
  CUresult allocate_small(uint64_t bytes, uint64_t* address);
  void file_slab(Block* slab, uint32_t room);

  Context* context_;
  uint32_t gpu_;
  CUdevice device_;
  std::array<std::vector<Block*>, 13> by_room_;  // slabs by log2 of their longest free stretch
};

}  // namespace allot::sim
