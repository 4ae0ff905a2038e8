// A program with many thread-local variables, whose room glibc takes out of every thread's stack.
// Prints what it got; built in several sizes.
#include <unistd.h>

#include <cstdio>

#include "tests/shim/driver.h"

static thread_local char many[ALLOT_TEST_TLS_BYTES];

int main() {
  many[5] = 1;
  const allot::shim_test::Cuda cuda;
  CUcontext context = nullptr;
  CUdeviceptr block = 0;
  const CUresult init = cuda.cuInit(0);
  const CUresult made = cuda.cuCtxCreate_v2(&context, 0, 0);
  const CUresult first = cuda.cuMemAlloc_v2(&block, size_t{4} << 20);
  for (int i = 0; i < 20; ++i) {  // the agent and the prober run their rounds
    cuda.cuCtxSynchronize();
    usleep(10'000);
  }
  CUdeviceptr refused = 0;
  const CUresult second = cuda.cuMemAlloc_v2(&refused, size_t{8} << 30);
  std::printf("init %d context %d allocation %d too much %d\n", init, made, first, second);
  return many[5] == 1 ? 0 : 1;
}
