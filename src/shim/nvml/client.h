// What the CUDA side asks NVML: how much of a GPU this process holds, and how busy the GPU is.
#pragma once

#include <cstdint>

#include "shim/process/process.h"

namespace allot::shim {

// The bytes that NVML says this process uses on the device. False when there is no NVML, when it
// does not know the device, or when it has never listed this process under its pid here (no context
// yet, or another pid namespace); after it has listed the process once, a missing entry means 0.
// The first use opens NVML (10-30 ms on a GPU); later ones take 17-83 us. Any thread; calls NVML;
// holds no lock.
bool nvml_used_by_me(Device& device, uint64_t* bytes);

// Percent of the last sixth of a second to second in which the GPU ran kernels, whosever they were.
// False when NVML is not there or does not say. (H200: 47 where the kernels took 45.6 % of the
// time, 32 for 32.1.) Any thread; calls NVML; holds no lock.
bool nvml_busy_percent(Device& device, uint32_t* percent);

}  // namespace allot::shim
