// The hooks of the NVML library, by file.
#pragma once

#include <span>

#include "driver/nvml_abi.h"
#include "shim/process/driver_call.h"
#include "shim/process/hook.h"

namespace allot::shim {

// An NVML entry that our own code calls; see DriverCall.
template <class... A>
struct NvmlCall : BasicCall<nvmlReturn_t, A...> {
  constexpr explicit NvmlCall(const char* entry) noexcept
      : BasicCall<nvmlReturn_t, A...>{entry, find_in_nvml,
                                      [](A...) { return NVML_ERROR_FUNCTION_NOT_FOUND; }} {}
};

std::span<const Hook> nvml_memory_hooks();
std::span<const Hook> nvml_device_hooks();
std::span<const Hook> nvml_process_hooks();

}  // namespace allot::shim
