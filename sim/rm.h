// The resource manager's side: objects that contexts own in the kernel driver, as libcuda makes
// them.
#pragma once

#include "driver/cuda_abi.h"

namespace allot::sim {

struct Context;

// Allocates client, device, subdevice, channel groups and channels for a context, by ioctl(), in
// the order libcuda does it on a card. NOT_PERMITTED when a call is refused. `again`: it is
// restored.
CUresult rm_open_context(Context* context, bool again = false);
void rm_close_context(Context* context);

// An eviction: client, devices and the descriptor go; the next rm_open_context makes them anew.
// Whether the descriptor was the last of its file: what a client has lives until that one is
// closed.
bool rm_let_go();

}  // namespace allot::sim
