// The compile-time signature check accepts what fits and refuses what would corrupt a caller.
#include "driver/signature.h"

#include <gtest/gtest.h>

#include "driver/cuda_abi.h"
#include "driver/nvml_abi.h"

namespace allot::driver {
namespace {

CUresult alloc(CUdeviceptr*, size_t) {
  return CUDA_SUCCESS;
}
CUresult alloc_v1(CUdeviceptr_v1*, unsigned) {
  return CUDA_SUCCESS;
}
CUresult alloc_and_more(CUdeviceptr*, size_t, unsigned) {
  return CUDA_SUCCESS;
}
CUresult synchronize() {
  return CUDA_SUCCESS;
}
CUresult set_float(CUfunction, int, float) {
  return CUDA_SUCCESS;
}
CUresult set_int(CUfunction, int, int) {
  return CUDA_SUCCESS;
}
CUresult open_ipc(CUdeviceptr*, CUipcMemHandle, unsigned) {
  return CUDA_SUCCESS;
}
CUresult open_ipc_by_pointer(CUdeviceptr*, const CUipcMemHandle*, unsigned) {
  return CUDA_SUCCESS;
}
CUresult prefetch(CUdeviceptr, size_t, CUmemLocation, unsigned, CUstream) {
  return CUDA_SUCCESS;
}
CUresult launch(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                CUstream, void**, void**) {
  return CUDA_SUCCESS;
}
nvmlReturn_t memory_info(nvmlDevice_t, nvmlMemory_t*) {
  return NVML_SUCCESS;
}

static_assert(fits_cuda<alloc>("cuMemAlloc_v2"));
static_assert(fits_cuda<alloc_v1>("cuMemAlloc"));
static_assert(fits_cuda<synchronize>("cuCtxSynchronize"));
static_assert(fits_cuda<set_float>("cuParamSetf"));
static_assert(fits_cuda<open_ipc>("cuIpcOpenMemHandle_v2"));
static_assert(fits_cuda<prefetch>("cuMemPrefetchAsync_v2_ptsz"));
static_assert(fits_cuda<launch>("cuLaunchKernel"));
static_assert(fits_nvml<memory_info>("nvmlDeviceGetMemoryInfo_v2"));

static_assert(!fits_cuda<alloc>("cuMemAlloc"));
static_assert(!fits_cuda<alloc_and_more>("cuMemAlloc_v2"));
static_assert(!fits_cuda<synchronize>("cuCtxSynchronize_v2"));
static_assert(!fits_cuda<set_int>("cuParamSetf"));
static_assert(!fits_cuda<open_ipc_by_pointer>("cuIpcOpenMemHandle"));
static_assert(!fits_cuda<prefetch>("cuMemPrefetchAsync"));
static_assert(!fits_cuda<alloc>("cuNothing"));
static_assert(!fits_nvml<memory_info>("nvmlDeviceGetCount_v2"));

// Nothing to run: the assertions above are the test. The functions are named once, or they were
// unused.
TEST(Signature, IsCheckedAtCompileTime) {
  EXPECT_EQ(alloc(nullptr, 0), CUDA_SUCCESS);
  EXPECT_EQ(memory_info(nullptr, nullptr), NVML_SUCCESS);
}

}  // namespace
}  // namespace allot::driver
