// Any block that a program may pass to cuMemFree or cuMemFreeAsync: linear, managed or of a pool.
//
// A block leaves the tables before the driver frees it, because the driver may give its address to
// another thread as soon as it is free. It returns if the driver refuses.
#pragma once

#include "driver/cuda_abi.h"
#include "shim/process/pointer_table.h"

namespace allot::shim {

// True if the block at `address` is ours; it has left the tables then. Any thread; waits only for
// other threads of this process.
bool take_block(CUdeviceptr address, Entry* block);

// The driver refused to free it.
void put_block_back(const Entry& block);

// The driver has freed it: gives back its charge.
void block_freed(const Entry& block);

}  // namespace allot::shim
