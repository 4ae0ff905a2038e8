// See guest_shares.h.
#include "guest_shares.h"

#include <cstdio>

namespace allot::kernel_test {

void run_shares(uint64_t, int) {
  std::printf("DONE shares=0\n");
}

}  // namespace allot::kernel_test
