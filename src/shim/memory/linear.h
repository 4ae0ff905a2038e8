// Any block that cuMemFree or cuMemFreeAsync may be given: linear, managed or of a pool.
//
// A block leaves the tables before the driver frees it, because the driver may hand its address to another
// thread as soon as it is free, and comes back if the driver refuses.
#pragma once

#include "driver/cuda_abi.h"
#include "shim/process/pointer_table.h"

namespace allot::shim {

// True if the block at `address` is ours; it is out of the tables then. Any thread; spins for others only.
bool take_block(CUdeviceptr address, Entry* block);

// The driver refused to free it.
void put_block_back(const Entry& block);

// The driver has freed it: returns its charge.
void block_freed(const Entry& block);

}  // namespace allot::shim
