// This process's places among the clients of its slice: one for each GPU on which it has, or is
// making, a context.
//
// A slice's file has ALLOT_MAX_CLIENTS places. A process that only looks at a GPU, as frameworks do
// with all they see, takes none; its place goes back when its last context there has ended. Work
// without a place is known to nobody, so its time cannot be held, and the closed rule decides. With
// `--fail closed`, where GPU time is limited, making a context is refused; if the limit comes
// later, all work of the process is. With `open` the process runs, and its slot says on which GPUs
// it is not held. The same goes for a context that finds no place in the table of streams.h, and
// for a slice that is not among the oldest core::kMaxSlicesOnGpu with work on a GPU: the others do
// not weigh it.
//
// What must not happen here: a wait for the driver; a place that two processes write.
#pragma once

#include <cstdint>

#include "abi/region.h"
#include "driver/cuda_abi.h"

namespace allot::shim {

// Before a context is made there, with a MakingContextOn alive: takes the place. False: there is
// none, and the closed rule refuses. Any thread of the program. Blocks while another thread takes a
// place; reads /proc, once a second at most, when all places are taken.
bool ready_for_context(CUdevice ordinal);

// The process's place on that GPU; null when it has none. `channels`: channels of the process are
// known there. Takes one where there is a context or a channel and gives it back 0.5 s after the
// last is gone; to be asked in each round. The agent's thread only.
AllotGpuClient* client_on(uint32_t ordinal, bool channels);

// Whether the slice has work there and is not weighed by the others. The agent's thread only.
void say_crowded_out(uint32_t ordinal, bool crowded);

// No agent can run, or it is lost: every place says so from now on, and a context that has none yet
// takes one that does. Again and again while it is so: an agent may end between any two steps of
// its own. Where none can be had, the starting thread; else the prober. The other: one runs again.
void say_nobody_holds(AllotLevelReason reason);
void say_agent_holds();

// In a forked child that starts afresh.
void forget_gpu_clients();

}  // namespace allot::shim
