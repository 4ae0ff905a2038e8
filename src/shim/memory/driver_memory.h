// What no call shows: the memory of contexts, modules, local memory, NCCL and whatever else the driver
// takes by itself, measured per process through NVML and kept as ALLOT_KIND_DRIVER.
#pragma once

#include <cstdint>

#include "shim/process/process.h"

namespace allot::shim {

// Called on the slow path of hooks: reconciles at most every 100 ms (and at once for a device on which a
// context was made behind our back). Costs a clock reading when nothing is due, an NVML query (17-83 us)
// when something is.
// Any thread; calls the driver and NVML; holds no lock.
void keep_accounts(Device& device);

// The same where no device is at hand: after loading modules, instantiating graphs.
void keep_all_accounts();

// Reconciles one device now. `prepaid` bytes of ALLOT_KIND_DRIVER have been reserved for what may be found
// and are used up or returned. False when NVML could not tell; the prepaid bytes then stay charged, as
// the best estimate there is.
bool measure_driver_memory(Device& device, uint64_t prepaid);

// Allocates nothing; the last size of a context on this card in this slice, 0 = none seen yet.
uint64_t learned_context_bytes(const Device& device);
void learn_context_bytes(const Device& device, uint64_t bytes);

}  // namespace allot::shim
