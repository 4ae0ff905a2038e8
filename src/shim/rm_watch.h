// Looks on while the driver talks to the kernel. For now it only counts; the part that enforces GPU time
// learns the handles of this process's channel groups here.
#pragma once

#include <cstdint>

namespace allot::shim {

// After every RM call of the process, with the kernel's answer in *argument. Must not change it, block,
// allocate or call the driver. Any thread.
void watch_rm_call(int fd, unsigned long request, const void* argument, int result);

// RM calls seen so far, by this process.
uint64_t rm_calls_seen();

}  // namespace allot::shim
