// Small blocks by slab: which blocks of up to 1 MiB are in which of the driver's 2 MiB slabs.
//
// The driver cuts them out of slabs aligned to 2 MiB, at multiples of 512 bytes (docs/adr/0004). So
// a slab has 4,096 places and one bit for each: 512 bytes per slab. 100,000 blocks of 4 KiB are 200
// slabs, whose entries and bits stay in the cache; one entry per block would not.
//
// What must not happen here: a lock held while the driver runs (the bits change under the lock of
// the slab's entry in the pointer table).
#pragma once

#include "driver/cuda_abi.h"
#include "shim/process/pointer_table.h"
#include "shim/process/process.h"

namespace allot::shim {

enum class SlabAdd { kFirst, kMore, kNoMemory };

// Records a small block that the driver gave out. kFirst: its slab holds no other block, so charge
// the slab's 2 MiB; kMore: they are charged already. Any thread; may call mmap.
SlabAdd slab_add(const Device& device, CUcontext context, CUdeviceptr address);

// Called before the driver frees: true if the block is ours; then no other thread can free it any
// more. Any thread.
bool slab_take(CUdeviceptr address);

// After slab_take: the driver refused to free the block / has freed it (the last block takes the
// slab's charge with it).
void slab_put_back(CUdeviceptr address);
void slab_block_gone(CUdeviceptr address);

// The entry of a slab has left the table, because its context ended.
void slab_dropped(const Entry& slab);

// Forgets everything: for a forked child only.
void abandon_slabs();

}  // namespace allot::shim
