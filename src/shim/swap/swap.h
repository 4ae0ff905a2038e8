// `--swap fast`: memory keeps its addresses while its backing moves to the host and back.
//
//     cuMemAlloc of more than 1 MiB ---> reserve addresses, create, map    (memory/movable.cc)
//     allot evict    hold: submissions wait, work drains                   (swap.cc; swap_gate.h)
//                    out:  copy all to the host, unmap all                 (move.cc, copy.cc)
//     allot restore  in:   create all, map at the same addresses, copy back
//                    run:  the gate opens
//
// A command writes an order into the slice's file (AllotSwap) and a thread of the process obeys it.
// Everything else that the process has on the GPU stays there. docs/adr/0008 says why.
//
// What must not happen here: a call of the program reaches memory that is not there; a process
// stays held although its memory is on the GPU and no command holds it; a step that fails loses
// contents. So a step first does everything that may fail, and undoes it in the opposite order.
#pragma once

#include <cstdint>

#include "abi/region.h"
#include "driver/cuda_abi.h"
#include "shim/memory/movable_blocks.h"

namespace allot::shim {

// ---- moves (move.cc), for the one thread, with the gate closed ---------------------------------

struct SwapOutcome {
  AllotSwapResult result = ALLOT_SWAP_OK;
  CUresult cuda = CUDA_SUCCESS;
};
SwapOutcome swap_move_out();
SwapOutcome swap_move_in();
bool swap_anything_out();

// Copies all blocks that have host memory to it or from it (copy.cc). Stops when the process ends.
CUresult swap_copy(SwapBlock* blocks, uint32_t count, bool to_host);
void swap_stop_copying();

// ---- the thread (swap.cc) ----------------------------------------------------------------------

// Called once the process is in its slice and the driver is initialised, before hooks charge.
void start_swap();
void forget_swap();  // in a forked child that starts afresh

}  // namespace allot::shim
