// Memory by the ways that programs of today seldom go: the entries of before CUDA 3.2, memory of
// other APIs.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/shim/harness.h"

namespace allot::shim_test {
namespace {

SLICE_TEST(EntriesOfBeforeCuda32AreChargedAsTheirSuccessors, "1G") {
  const Cuda cuda;
  start_cuda(cuda);
  const uint64_t physical = physical_used();
  const uint64_t ledger = ledger_used();
  const auto grown = [&] {
    EXPECT_EQ(ledger_used() - ledger, physical_used() - physical);
    return ledger_used() - ledger;
  };
  CUdeviceptr_v1 small = 0;
  CUdeviceptr_v1 large = 0;
  CUdeviceptr_v1 pitched = 0;
  unsigned pitch = 0;
  ASSERT_EQ(cuda.cuMemAlloc(&small, 1000), CUDA_SUCCESS);
  EXPECT_EQ(grown(), 2 * kMiB);
  ASSERT_EQ(cuda.cuMemAlloc(&large, 100 * kMiB + 1), CUDA_SUCCESS);
  EXPECT_EQ(grown(), 104 * kMiB);
  ASSERT_EQ(cuda.cuMemAllocPitch(&pitched, &pitch, 5000, 3000, 16), CUDA_SUCCESS);
  EXPECT_EQ(pitch, 5120u);
  EXPECT_EQ(grown(), 120 * kMiB);
  CUdeviceptr_v1 refused = 0;
  EXPECT_EQ(cuda.cuMemAlloc(&refused, kGiB), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(cuda.cuMemAllocPitch(&refused, &pitch, 65536, 16384, 4), CUDA_ERROR_OUT_OF_MEMORY);
  const uint64_t word = 0x1122334455667788;
  uint64_t back = 0;
  EXPECT_EQ(cuda.cuMemcpyHtoD_v2(large, &word, sizeof word), CUDA_SUCCESS);
  EXPECT_EQ(cuda.cuMemcpyDtoH_v2(&back, large, sizeof back), CUDA_SUCCESS);
  EXPECT_EQ(back, word);
  EXPECT_EQ(cuda.cuMemFree(large), CUDA_SUCCESS);
  EXPECT_EQ(cuda.cuMemFree(pitched), CUDA_SUCCESS);
  EXPECT_EQ(grown(), 2 * kMiB);
  EXPECT_EQ(cuda.cuMemFree_v2(small), CUDA_SUCCESS) << "either entry frees it";
  EXPECT_EQ(grown(), 0u);
  EXPECT_EQ(cuda.cuMemAlloc(nullptr, 1), bare().cuMemAlloc(nullptr, 1));
  EXPECT_EQ(cuda.cuMemFree(small), bare().cuMemFree(small));
}

SLICE_TEST(ArraysOfBeforeCuda32AreCharged, "1G") {
  const Cuda cuda;
  start_cuda(cuda);
  const uint64_t ledger = ledger_used();
  CUarray array = nullptr;
  const CUDA_ARRAY_DESCRIPTOR_v1 flat = {4096, 1024, CU_AD_FORMAT_FLOAT, 4};
  ASSERT_EQ(cuda.cuArrayCreate(&array, &flat), CUDA_SUCCESS);
  EXPECT_EQ(ledger_used() - ledger, 64 * kMiB);
  ASSERT_EQ(cuda.cuArrayDestroy(array), CUDA_SUCCESS);
  const CUDA_ARRAY3D_DESCRIPTOR_v1 deep = {256, 256, 64, CU_AD_FORMAT_FLOAT, 4, 0};
  ASSERT_EQ(cuda.cuArray3DCreate(&array, &deep), CUDA_SUCCESS);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_ARRAY), ledger_used() - ledger);
  EXPECT_GE(ledger_used() - ledger, 64 * kMiB);
  ASSERT_EQ(cuda.cuArrayDestroy(array), CUDA_SUCCESS);
  EXPECT_EQ(ledger_used(), ledger);
  const CUDA_ARRAY3D_DESCRIPTOR_v1 vast = {1024, 1024, 1024, CU_AD_FORMAT_FLOAT, 4, 0};
  EXPECT_EQ(cuda.cuArray3DCreate(&array, &vast), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(ledger_used(), ledger);
}

// What does not fit into 32 bits is the largest that does.
SLICE_TEST(QueriesOfBeforeCuda32AnswerForTheSlice, "3G") {
  const Cuda cuda;
  start_cuda(cuda);
  unsigned total = 0;
  unsigned free_bytes = 0;
  ASSERT_EQ(cuda.cuDeviceTotalMem(&total, 0), CUDA_SUCCESS);
  EXPECT_EQ(total, 3 * kGiB);
  ASSERT_EQ(cuda.cuMemGetInfo(&free_bytes, &total), CUDA_SUCCESS);
  EXPECT_EQ(total, 3 * kGiB);
  EXPECT_EQ(free_bytes, 3 * kGiB - ledger_used());
  ASSERT_EQ(bare().cuDeviceTotalMem(&total, 0), CUDA_SUCCESS);
  EXPECT_EQ(total, UINT32_MAX);
}

CUDA_EXTERNAL_MEMORY_HANDLE_DESC memory_of_another_api(uint64_t bytes) {
  CUDA_EXTERNAL_MEMORY_HANDLE_DESC desc = {};
  desc.type = CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD;
  desc.handle.fd = memfd_create("external", MFD_CLOEXEC);
  desc.size = bytes;
  EXPECT_EQ(ftruncate(desc.handle.fd, static_cast<off_t>(bytes)), 0);
  EXPECT_EQ(pwrite(desc.handle.fd, "mark", 4, 4096), 4);
  return desc;
}

SLICE_TEST(ImportedMemoryOfAnotherApiIsChargedUntilItsEnd, "1G") {
  const Cuda cuda;
  start_cuda(cuda);
  const uint64_t physical = physical_used();
  const uint64_t ledger = ledger_used();
  const auto desc = memory_of_another_api(100 * kMiB + 1);
  CUexternalMemory memory = nullptr;
  ASSERT_EQ(cuda.cuImportExternalMemory(&memory, &desc), CUDA_SUCCESS);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_IMPORT), 102 * kMiB);
  EXPECT_EQ(ledger_used() - ledger, physical_used() - physical);
  CUDA_EXTERNAL_MEMORY_BUFFER_DESC buffer = {};
  buffer.offset = 4096;
  buffer.size = kMiB;
  CUdeviceptr mapped = 0;
  char mark[5] = {};
  ASSERT_EQ(cuda.cuExternalMemoryGetMappedBuffer(&mapped, memory, &buffer), CUDA_SUCCESS);
  EXPECT_EQ(cuda.cuMemcpyDtoH_v2(mark, mapped, 4), CUDA_SUCCESS);
  EXPECT_STREQ(mark, "mark");
  EXPECT_EQ(cuda.cuMemFree_v2(mapped), CUDA_SUCCESS);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_IMPORT), 102 * kMiB) << "the mapping went, not the memory";
  ASSERT_EQ(cuda.cuDestroyExternalMemory(memory), CUDA_SUCCESS);
  EXPECT_EQ(ledger_used(), ledger);
  EXPECT_EQ(physical_used(), physical);
  EXPECT_NE(cuda.cuDestroyExternalMemory(memory), CUDA_SUCCESS);
  EXPECT_EQ(ledger_used(), ledger);
}

SLICE_TEST(AnImportThatDoesNotFitLeavesTheFileToTheCaller, "1G") {
  const Cuda cuda;
  start_cuda(cuda);
  const uint64_t ledger = ledger_used();
  const auto desc = memory_of_another_api(kGiB);
  CUexternalMemory memory = nullptr;
  EXPECT_EQ(cuda.cuImportExternalMemory(&memory, &desc), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_NE(fcntl(desc.handle.fd, F_GETFD), -1);
  CUDA_EXTERNAL_MEMORY_HANDLE_DESC short_one = desc;
  short_one.handle.fd = -1;
  short_one.size = kMiB;
  EXPECT_EQ(cuda.cuImportExternalMemory(&memory, &short_one),
            bare().cuImportExternalMemory(&memory, &short_one));
  EXPECT_EQ(ledger_used(), ledger);
}

SLICE_TEST(TheEndOfAContextReturnsWhatWasImportedInIt, "4G") {
  const Cuda cuda;
  start_cuda(cuda);
  const uint64_t ledger = ledger_used();
  CUcontext context = nullptr;
  CUexternalMemory memory = nullptr;
  const auto desc = memory_of_another_api(100 * kMiB);
  ASSERT_EQ(cuda.cuCtxCreate_v2(&context, 0, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuImportExternalMemory(&memory, &desc), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuCtxDestroy_v2(context), CUDA_SUCCESS);
  EXPECT_EQ(ledger_used(), ledger);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_IMPORT), 0u);
}

}  // namespace
}  // namespace allot::shim_test
