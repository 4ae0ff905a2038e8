// Memory of cuMemCreate: what other files need of vmm.cc and vmm_bound.cc.
#pragma once

#include <cstdint>

#include "driver/cuda_abi.h"
#include "shim/process/pointer_table.h"
#include "shim/process/process.h"

namespace allot::shim {

// Adds a reference (of a handle, a mapping, a binding) to the allocation behind a handle. False
// when the handle is not one of ours. Any thread.
bool add_vmm_reference(uint64_t handle, uint64_t* serial);

// Takes one off; the last ends the allocation and returns its charge. `handle`: its name, or 0.
void drop_vmm_reference(uint64_t serial, uint64_t handle);

// What holds memory without an address: a multicast object or a sparse array, `holder` its handle.
// A binding is known by its holder, device and place (an offset, or a hash of the subresource), and
// replaces one that is there. It takes over one reference to `serial`. False when no memory can be
// had to remember it.
bool bind_memory(uint64_t holder, CUdevice device, uint64_t place, uint64_t bytes, uint64_t serial);

// Bindings of `device` in [place, place + bytes) go, and so do all when their holder is gone.
void unbind_memory(uint64_t holder, CUdevice device, uint64_t place, uint64_t bytes);
void holder_of_memory_gone(uint64_t holder);

// Returns the charges of allocations that only exported descriptors had kept, as far as these are
// closed in this process now. One load while there are none.
void settle_exported_allocations();
// Whether there are such allocations: NVML may not count them as ours.
bool descriptors_keep_memory();

// In a forked child that starts afresh.
void abandon_vmm();
void abandon_bound_memory();

}  // namespace allot::shim
