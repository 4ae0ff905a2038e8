// Launching kernels: what the entries and the graph nodes have in common.
#pragma once

#include "module.h"

namespace allot::sim {

struct Shape {
  unsigned grid[3], block[3], shared_bytes;
};

// Checks a launch and copies its parameters. INVALID_HANDLE, INVALID_VALUE, NOT_SUPPORTED (a kernel
// the software GPU does not know).
CUresult make_kernel(const void* function, const Shape& shape, void** arguments, void** extra,
                     KernelBody* out);

}  // namespace allot::sim
