// What the NVML entries share: whether it is initialised, and devices behind handles.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "driver/nvml_abi.h"
#include "machine.h"

#define SIM_NVML extern "C" __attribute__((visibility("default"))) nvmlReturn_t

namespace allot::sim {

bool nvml_ready();
// A handle is its GPU's index in the machine plus one. INVALID_ARGUMENT for anything else.
inline nvmlDevice_t handle_of(uint32_t gpu) {
  return reinterpret_cast<nvmlDevice_t>(uintptr_t{gpu} + 1);
}
nvmlReturn_t find_gpu(nvmlDevice_t device, uint32_t* gpu);  // UNINITIALIZED, INVALID_ARGUMENT
nvmlReturn_t give_text(const std::string& text, char* out, unsigned size);  // INSUFFICIENT_SIZE
std::string uuid_of(uint32_t gpu);

}  // namespace allot::sim

// First lines of an entry that takes a device; declares the GPU's index.
#define SIM_NVML_GPU(device, name)                                     \
  uint32_t name = 0;                                                   \
  do {                                                                 \
    const nvmlReturn_t found_ = ::allot::sim::find_gpu(device, &name); \
    if (found_ != NVML_SUCCESS) return found_;                         \
  } while (0)
