// Time shares of random pinned loads, measured in the guest beside the model's prediction.
#pragma once

#include <cstdint>

namespace allot::kernel_test {

// Runs `cases` random loads of spinning tasks and prints "SHARE case task predicted measured"
// lines.
void run_shares(uint64_t seed, int cases);

}  // namespace allot::kernel_test
