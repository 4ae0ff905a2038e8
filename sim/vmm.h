// Memory of cuMemCreate that something without an address holds: sparse arrays, multicast objects.
#pragma once

#include <cstdint>

#include "driver/cuda_abi.h"

namespace allot::sim {

// The object with this handle is gone, and with it what was bound to it.
void unbind_all(uint64_t holder);

}  // namespace allot::sim
