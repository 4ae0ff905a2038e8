// What NVML says this process holds on a GPU: the figure outside the driver API, which no counting
// of calls can flatter.
#pragma once

#include <cstdint>
#include <optional>

#include "bench/gpu.h"

namespace allot::bench {

// Bytes of NVML's per-process figure for this process. Empty without NVML, without the per-process
// query, or when this process is not in the list (another pid namespace, or no context yet).
// One thread; allocates; blocks for the driver (17 to 83 us on an H100, more the first time).
std::optional<uint64_t> nvml_process_bytes(const Gpu& gpu);

}  // namespace allot::bench
