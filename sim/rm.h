// The resource manager's side: objects that contexts own in the kernel driver, as libcuda makes them.
#pragma once

#include "driver/cuda_abi.h"

namespace allot::sim {

struct Context;

// Allocates client, device, subdevice, channel groups and channels for a context, by ioctl(), in the
// order libcuda does it on a card. NOT_PERMITTED when a call is refused.
CUresult rm_open_context(Context* context);
void rm_close_context(Context* context);

}  // namespace allot::sim
