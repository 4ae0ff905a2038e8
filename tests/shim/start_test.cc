// Whoever comes while the process starts, or before, is held to the slice like everybody else.
#include <thread>
#include <vector>

#include "abi/env.h"
#include "tests/shim/harness.h"

namespace allot::shim_test {
namespace {

CUresult create_memory(const Cuda& cuda, uint64_t bytes) {
  CUmemAllocationProp prop = {};
  prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  prop.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  CUmemGenericAllocationHandle handle = 0;
  return cuda.cuMemCreate(&handle, bytes, &prop, 0ull);
}

CUresult make_pool(const Cuda& cuda) {
  CUmemPoolProps props = {};
  props.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  props.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  CUmemoryPool pool = nullptr;
  return cuda.cuMemPoolCreate(&pool, &props);
}

// What a second thread may try while the first is in cuInit; each call wants more than the slice
// has, or shows what it has.
void comes_meanwhile(const Cuda& cuda, int which) {
  CUcontext context = nullptr;
  CUdeviceptr block = 0;
  size_t free_bytes = 0, total_bytes = 0;
  switch (which) {
    case 0:
      EXPECT_EQ(cuda.cuInit(0), CUDA_SUCCESS);
      ASSERT_EQ(cuda.cuCtxCreate_v2(&context, 0, 0), CUDA_SUCCESS);
      EXPECT_EQ(cuda.cuMemAlloc_v2(&block, 3 * kGiB), CUDA_ERROR_OUT_OF_MEMORY);
      break;
    case 1:
      EXPECT_EQ(create_memory(cuda, 3 * kGiB), CUDA_ERROR_OUT_OF_MEMORY);
      break;
    case 2:
      ASSERT_EQ(cuda.cuDevicePrimaryCtxRetain(&context, 0), CUDA_SUCCESS);
      ASSERT_EQ(cuda.cuCtxSetCurrent(context), CUDA_SUCCESS);
      ASSERT_EQ(cuda.cuMemGetInfo_v2(&free_bytes, &total_bytes), CUDA_SUCCESS);
      EXPECT_EQ(total_bytes, 2 * kGiB);
      break;
    case 3:
      EXPECT_EQ(cuda.cuDeviceTotalMem_v2(&total_bytes, 0), CUDA_SUCCESS);
      EXPECT_EQ(total_bytes, 2 * kGiB);
      break;
    default:
      EXPECT_EQ(make_pool(cuda), CUDA_SUCCESS);
      break;
  }
}

// `first` is under way when the others come: in the driver's cuInit, or behind it.
void others_wait() {
  const Cuda cuda;
  std::thread first([&] { EXPECT_EQ(cuda.cuInit(0), CUDA_SUCCESS); });
  // In cuInit by now: the process has a slot in its slice.
  ASSERT_TRUE(wait_until([] { return has_slot(); }));
  std::vector<std::thread> others;
  for (int i = 0; i < 5; ++i) {
    others.emplace_back([&cuda, i] { comes_meanwhile(cuda, i); });
  }
  for (std::thread& other : others) other.join();
  first.join();
}

SLICE_TEST(WhoComesDuringASlowFirstCuInitWaitsAndIsHeld, .memory = "2G",
           .more = {{ALLOT_ENV_SIM_FAULTS, "cuInit:nth=1:delay_us=400000"}}) {
  others_wait();
}

SLICE_TEST(WhoComesBetweenTheDriversStartAndTheLimitsWaitsAndIsHeld, .memory = "2G",
           .more = {{ALLOT_ENV_SIM_FAULTS, "cuDeviceTotalMem_v2:nth=1:delay_us=400000"}}) {
  others_wait();
}

SLICE_TEST(ADriverThatWasStartedPastUsIsHeldFromTheFirstCallThatTakes, "2G") {
  const Cuda cuda;
  EXPECT_EQ(create_memory(cuda, kGiB), CUDA_ERROR_NOT_INITIALIZED);
  ASSERT_EQ(bare().cuInit(0), CUDA_SUCCESS);
  EXPECT_EQ(create_memory(cuda, 3 * kGiB), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(create_memory(cuda, kGiB), CUDA_SUCCESS);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_VMM), kGiB);
}

}  // namespace
}  // namespace allot::shim_test
