// Stream-ordered pools: what other files need of pool.cc.
#pragma once

#include "shim/process/pointer_table.h"
#include "shim/process/process.h"

namespace allot::shim {

// The driver has freed a block that came from a pool: follows the pool's reserved bytes.
void pool_block_freed(const Entry& block);

// Gives unused memory of this process's pools on `device` back to the card, as the driver itself does
// when the card is full, and follows. Called before a request is refused.
void trim_pools(const Device& device);

// Makes the charges of all pools follow the driver. `only_dirty`: those from which blocks have been freed
// since, which is what a wait for the GPU may have given back.
void settle_pools(bool only_dirty);

// Forgets all pools without asking anybody: for a forked child.
void abandon_pools();

}  // namespace allot::shim
