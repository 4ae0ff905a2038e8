// Memory that can move: what cuMemAlloc gives in a slice that swaps fast (swap/swap.h).
//
// The program keeps the addresses; their backing can move to the host and back.
#pragma once

#include <atomic>
#include <cstdint>

#include "abi/region.h"
#include "driver/cuda_abi.h"
#include "shim/memory/movable_blocks.h"
#include "shim/process/process.h"

namespace allot::shim {

// cuMemAlloc on the current context by VMM, with a SwapPass held. SUCCESS with the bytes really
// taken, or OUT_OF_MEMORY. NOT_SUPPORTED: the caller must fall back to the driver's allocator,
// because the slice does not swap, the block is small, or the device has no VMM. The charge is the
// caller's.
CUresult swap_alloc(CUdeviceptr* out, uint64_t bytes, uint64_t* taken);

// Whether a block of swap_alloc() begins at `address` / contains `address`.
bool swap_owns(CUdeviceptr address);
bool swap_covers(CUdeviceptr address);

// cuMemFree of a block that swap_owns(), with a SwapPass held: waits for the context's work, as the
// driver's does.
CUresult swap_free(CUdeviceptr address);

// A context has ended, and with it the blocks that were allocated in it.
void swap_context_gone(CUcontext context);

// All blocks, and for each device the peers that have access to its blocks (a bit per CUDA
// ordinal).
extern constinit SwapBlocks swap_blocks;
extern constinit std::atomic<uint64_t> swap_peers[kMaxDevices];

// The two halves of backing a block: swap_create() sets its handle; swap_map() maps it at the
// block's addresses for every device with access, and releases the handle.
CUresult swap_create(SwapBlock& block);
CUresult swap_map(SwapBlock& block);

// Frees the blocks that were freed during a capture, if nothing is captured now.
void swap_reap();

// The process's own entry in the file.
AllotSwap& swap_entry();

}  // namespace allot::shim
