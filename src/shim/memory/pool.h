// Stream-ordered pools: what other files need of pool.cc.
#pragma once

#include "shim/process/pointer_table.h"
#include "shim/process/process.h"

namespace allot::shim {

// The driver has freed a block of a pool: settles the pool's charge.
void pool_block_freed(const Entry& block);

// Gives unused memory of this process's pools on `device` back to the GPU, as the driver itself
// does when the GPU is full, and settles their charges. Called before a request is refused.
void trim_pools(const Device& device);

// Settles the charges of all pools to the driver's figures. `only_dirty`: only pools of which
// blocks have been freed since, because only they may have given memory back at a wait for the GPU.
void settle_pools(bool only_dirty);

// A context on `device` has ended; `last`: the process has none left there. The blocks of pools
// whose memory went with it leave the table, so that they do not swallow the frees of later blocks
// at their addresses.
void pools_after_context(const Device& device, bool last);

// Forgets all pools without asking anybody: for a forked child.
void abandon_pools();

}  // namespace allot::shim
