// Memory that no call shows: contexts, modules, local memory, NCCL and everything else that the
// driver takes by itself. NVML measures it per process; the ledger holds it as ALLOT_KIND_DRIVER.
#pragma once

#include <cstdint>

#include "shim/process/process.h"

namespace allot::shim {

// Called on the slow path of hooks: reconciles at most every 100 ms (and at once for a device with
// a context that we did not see being made). Costs a clock reading when nothing is due, and an NVML
// query (17-83 us) otherwise. Any thread; calls the driver and NVML; holds no lock.
void keep_accounts(Device& device);

// The same where no device is known: after loading modules or instantiating graphs.
void keep_all_accounts();

// Reconciles one device now. The caller has reserved `prepaid` bytes of ALLOT_KIND_DRIVER for what
// may be found; this call uses them or gives them back. False when NVML has no answer; then the
// prepaid bytes stay charged, as the best estimate there is.
bool measure_driver_memory(Device& device, uint64_t prepaid);

// The size of the last context of this slice on this GPU; 0 = none seen yet. Allocates nothing.
uint64_t learned_context_bytes(const Device& device);
void learn_context_bytes(const Device& device, uint64_t bytes);

}  // namespace allot::shim
