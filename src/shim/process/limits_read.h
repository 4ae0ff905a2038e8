// Whether the limits in the environment can be read. A limit that cannot be read is no permission.
#pragma once

#include <cstdint>

namespace allot::shim {

// False when a variable that limits the process (ours or HAMi's) has a value that cannot be
// understood: `why` then says which, and what to write. Empty values count: `ALLOT_GPU_MEM=$UNSET`
// is an accident, not a wish. Any thread; allocates nothing.
bool limits_can_be_read(char* why, uint32_t size);

}  // namespace allot::shim
