// What the CUDA side asks of NVML: how much of a card this process holds, as the driver sees it.
#pragma once

#include <cstdint>

#include "shim/process/process.h"

namespace allot::shim {

// NVML's used bytes of this process on the device. False when NVML is not there, does not know the device,
// or has never listed this process under the pid that it has here (no context yet, or another pid
// namespace); once it has, not being listed means 0. First use opens NVML (10-30 ms on a card); later ones take 17-83 us.
// Any thread; calls NVML; holds no lock.
bool nvml_used_by_me(Device& device, uint64_t* bytes);

}  // namespace allot::shim
