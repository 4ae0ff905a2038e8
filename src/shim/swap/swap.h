// `--swap fast`: memory that keeps its addresses while what stands behind them goes to the host and back.
//
//     cuMemAlloc of more than 1 MiB ---> reserve addresses, create, map        (swap_memory.cc)
//     allot evict    hold: submissions wait, work drains                       (swap.cc, swap_gate.h)
//                    out:  copy all to the host, unmap all                     (swap_move.cc, swap_copy.cc)
//     allot restore  in:   create all, map at the same addresses, copy back
//                    run:  the gate opens
//
// A command writes an order into the slice's file (AllotSwap) and a thread of the process obeys. What else the
// process has on the card stays there. Why so: docs/adr/0008.
//
// What must not happen here: a call of the program that reaches memory which is not there; a process that stays
// held although its memory is on the card and nobody holds it; contents lost by a step that fails: a step first
// does all that may fail, and what it has done is undone in the opposite order.
#pragma once

#include <cstdint>

#include "driver/cuda_abi.h"
#include "shim/memory/movable_blocks.h"
#include "shim/process/process.h"
#include "shim/process/swap_gate.h"
#include "shim/time/submit.h"

namespace allot::shim {

// Whether this process's slice swaps fast. One load.
inline bool swap_on() {
  return (submit_watch.load(std::memory_order_relaxed) & kSwap) != 0;
}

// Stands behind the Scope of a hook whose call may touch such memory, or take or free it: waits while an eviction
// is on. Nothing in slices that do not swap. A thread that is cancelled inside the driver stays counted: such a
// process can be evicted by the driver's way only.
class SwapPass {
 public:
  SwapPass() : passed_(hook_depth == 1 && swap_on() && !forked_child()) {
    if (passed_) swap_enter();
  }
  ~SwapPass() {
    if (passed_) swap_leave();
  }
  SwapPass(const SwapPass&) = delete;
  SwapPass& operator=(const SwapPass&) = delete;

 private:
  bool passed_;
};

// ---- memory (swap_memory.cc) -------------------------------------------------------------------------

// cuMemAlloc on the current context by VMM, with a SwapPass held. NOT_SUPPORTED: the driver's own way is to be
// gone, for there is nothing to swap, the block is small, or the driver would not have it. Else SUCCESS with the
// bytes really taken, or OUT_OF_MEMORY. The charge is the caller's.
CUresult swap_alloc(CUdeviceptr* out, uint64_t bytes, uint64_t* taken);

// The block that begins at `address` is of swap_alloc() / `address` lies in such a block.
bool swap_owns(CUdeviceptr address);
bool swap_covers(CUdeviceptr address);

// cuMemFree of a block that swap_owns(), with a SwapPass held: waits for the context's work, as the driver's does.
CUresult swap_free(CUdeviceptr address);

// A context has ended, and with it what was allocated in it.
void swap_context_gone(CUcontext context);

// All blocks; the peers that reach into each device's (a bit per CUDA ordinal).
extern constinit SwapBlocks swap_blocks;
extern constinit std::atomic<uint64_t> swap_peers[kMaxDevices];

// The two halves of backing a block, and their opposite: create() sets its handle, map() maps it at the block's
// addresses for all that may reach it and lets the handle go.
CUresult swap_create(SwapBlock& block);
CUresult swap_map(SwapBlock& block);

// Blocks that were freed while a graph was captured go, if nothing is captured now.
void swap_reap();

// The process's own entry in the file.
AllotSwap& swap_entry();

// ---- moves (swap_move.cc), for the one thread, with the gate closed ----------------------------------

struct SwapOutcome {
  AllotSwapResult result = ALLOT_SWAP_OK;
  CUresult cuda = CUDA_SUCCESS;
};
SwapOutcome swap_move_out();
SwapOutcome swap_move_in();
bool swap_anything_out();

// Copies all blocks that have host memory, to it or from it (swap_copy.cc). Stops when the process ends.
CUresult swap_copy(SwapBlock* blocks, uint32_t count, bool to_host);
void swap_stop_copying();

// ---- the thread (swap.cc) ----------------------------------------------------------------------------

// Called once the process is in its slice and the driver is initialised, before hooks charge.
void start_swap();
void forget_swap();  // in a forked child that starts afresh

}  // namespace allot::shim
