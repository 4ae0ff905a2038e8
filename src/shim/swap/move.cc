// Moves all blocks of the process to the host, and back.
//
// Out: first host memory for all blocks, then all copies, then all unmaps. Only an unmap can leave
// the move half done; then the unmapped blocks are mapped again and filled from their copies. In:
// first GPU memory for all blocks, so that a full GPU is an error and not a half-done move; the
// copies on the host go last.
#include <sys/mman.h>

#include "shim/memory/movable.h"
#include "shim/process/cuda_calls.h"
#include "shim/swap/swap.h"
#include "sys/file.h"
#include "sys/keep_errno.h"

namespace allot::shim {
namespace {

void drop_host(SwapBlock& block) {
  if (block.host != nullptr) sys::unmap(block.host, block.span);
  block.host = nullptr;
}

void drop_all_host(std::span<SwapBlock> blocks) {
  for (SwapBlock& block : blocks) {
    if (!block.out) drop_host(block);
  }
}

bool take_host(SwapBlock& block) {
  const Result<void*> memory = sys::map_memory(block.span);
  if (!memory) return false;
  block.host = *memory;
  const sys::KeepErrno keep;
  madvise(block.host, block.span, MADV_HUGEPAGE);  // a hint: a fault for each 2 MiB, not 4 KiB
  return true;
}

void unmap(SwapBlock& block) {
  real::cuMemUnmap(block.base, block.span);
}

// Backs the blocks that are out, without their contents. After an error none of them is backed.
CUresult back_all(std::span<SwapBlock> blocks) {
  CUresult result = CUDA_SUCCESS;
  for (SwapBlock& block : blocks) {
    if (block.out) result = swap_create(block);
    if (result != CUDA_SUCCESS) break;
  }
  for (SwapBlock& block : blocks) {
    if (block.handle == 0) continue;
    if (result != CUDA_SUCCESS) {
      real::cuMemRelease(block.handle);
      block.handle = 0;
    } else if ((result = swap_map(block)) != CUDA_SUCCESS) {
      for (SwapBlock* before = blocks.data(); before != &block; ++before) {
        if (before->out) unmap(*before);
      }
    }
  }
  return result;
}

// Brings back the blocks that are out, with their contents. After an error they are as they were.
CUresult bring_back(std::span<SwapBlock> blocks) {
  CUresult result = back_all(blocks);
  if (result != CUDA_SUCCESS) return result;
  result = swap_copy(blocks.data(), static_cast<uint32_t>(blocks.size()), false);
  for (SwapBlock& block : blocks) {
    if (!block.out) continue;
    if (result == CUDA_SUCCESS) {
      block.out = false;
      drop_host(block);
    } else {
      unmap(block);
    }
  }
  return result;
}

}  // namespace

bool swap_anything_out() {
  for (const SwapBlock& block : swap_blocks.all()) {
    if (block.out) return true;
  }
  return false;
}

SwapOutcome swap_move_out() {
  const std::span<SwapBlock> blocks = swap_blocks.all();
  if (__atomic_load_n(&swap_entry().pins, __ATOMIC_ACQUIRE) != 0) return {ALLOT_SWAP_PINNED};
  for (SwapBlock& block : blocks) {
    if (block.out || take_host(block)) continue;
    drop_all_host(blocks);
    return {ALLOT_SWAP_NO_HOST};
  }
  CUresult result = swap_copy(blocks.data(), static_cast<uint32_t>(blocks.size()), true);
  if (result != CUDA_SUCCESS) {
    drop_all_host(blocks);
    return {ALLOT_SWAP_DRIVER, result};
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    SwapBlock& block = blocks[i];
    if (block.out) continue;
    result = real::cuMemUnmap(block.base, block.span);
    if (result == CUDA_SUCCESS) {
      block.out = true;
      continue;
    }
    drop_all_host(blocks.subspan(i));
    bring_back(blocks.first(i));  // a block that does not come back is marked out
    return {ALLOT_SWAP_DRIVER, result};
  }
  return {};
}

SwapOutcome swap_move_in() {
  const CUresult result = bring_back(swap_blocks.all());
  if (result == CUDA_SUCCESS) return {};
  return {result == CUDA_ERROR_OUT_OF_MEMORY ? ALLOT_SWAP_NO_CARD : ALLOT_SWAP_DRIVER, result};
}

}  // namespace allot::shim
