// Whatever ends a context gives everything back; whatever allocates is charged before; loans come
// to an end.
#include <fcntl.h>
#include <unistd.h>

#include <fstream>
#include <vector>

#include "tests/shim/harness.h"

namespace allot::shim_test {
namespace {

constexpr uint64_t kContext = 512 * kMiB;

CUmemAllocationProp on_device(bool exported = false) {
  CUmemAllocationProp prop = {};
  prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  prop.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  if (exported) prop.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  return prop;
}

CUmemGenericAllocationHandle make(const Cuda& cuda, uint64_t bytes, bool exported = false) {
  const CUmemAllocationProp prop = on_device(exported);
  CUmemGenericAllocationHandle handle = 0;
  EXPECT_EQ(cuda.cuMemCreate(&handle, bytes, &prop, 0ull), CUDA_SUCCESS);
  return handle;
}

CUmemoryPool make_pool(const Cuda& cuda) {
  CUmemPoolProps props = {};
  props.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  props.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  CUmemoryPool pool = nullptr;
  EXPECT_EQ(cuda.cuMemPoolCreate(&pool, &props), CUDA_SUCCESS);
  return pool;
}

// ---- the ends of contexts ----------------------------------------------------------------------

SLICE_TEST(DetachingAContextReturnsWhatWasMadeInIt, "2G") {
  const Cuda cuda;
  ASSERT_EQ(cuda.cuInit(0), CUDA_SUCCESS);
  for (int round = 0; round < 3; ++round) {
    CUcontext context = nullptr;
    CUdeviceptr block = 0;
    ASSERT_EQ(cuda.cuCtxCreate_v2(&context, 0, 0), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuMemAlloc_v2(&block, kGiB), CUDA_SUCCESS);
    CUcontext again = nullptr;
    ASSERT_EQ(call(cuda, "cuCtxAttach", &again, 0u), CUDA_SUCCESS);
    ASSERT_EQ(call(cuda, "cuCtxDetach", context), CUDA_SUCCESS);
    EXPECT_EQ(ledger_used(), kContext + kGiB) << "it was attached once more";
    ASSERT_EQ(call(cuda, "cuCtxDetach", context), CUDA_SUCCESS);
    EXPECT_EQ(ledger_used(), 0u);
  }
}

SLICE_TEST(ContextsForDisplaysAreChargedAndRefused, "1200M") {
  const Cuda cuda;
  ASSERT_EQ(cuda.cuInit(0), CUDA_SUCCESS);
  CUcontext first = nullptr;
  CUcontext second = nullptr;
  CUcontext third = nullptr;
  ASSERT_EQ(call(cuda, "cuGLCtxCreate_v2", &first, 0u, 0), CUDA_SUCCESS);
  ASSERT_EQ(call(cuda, "cuVDPAUCtxCreate_v2", &second, 0u, 0, 1u, static_cast<void*>(nullptr)),
            CUDA_SUCCESS);
  EXPECT_EQ(ledger_used(), 2 * kContext);
  EXPECT_EQ(call(cuda, "cuGLCtxCreate", &third, 0u, 0), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(cuda.cuCtxDestroy_v2(first), CUDA_SUCCESS);
  EXPECT_EQ(cuda.cuCtxDestroy_v2(second), CUDA_SUCCESS);
  EXPECT_EQ(ledger_used(), 0u);
}

SLICE_TEST(AResetTakesLivePoolBlocksAndTheirEntriesWithIt, "2G") {
  const Cuda cuda;
  start_cuda(cuda);
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 64; ++i) {
      CUdeviceptr block = 0;
      ASSERT_EQ(cuda.cuMemAllocAsync(&block, 2 * kMiB, nullptr), CUDA_SUCCESS);
    }
    EXPECT_EQ(ledger_used(), kContext + 128 * kMiB);
    ASSERT_EQ(cuda.cuDevicePrimaryCtxReset_v2(0), CUDA_SUCCESS);
    EXPECT_EQ(ledger_used(), 0u);
    start_cuda(cuda);
    std::vector<CUdeviceptr> blocks(64);
    for (CUdeviceptr& block : blocks)
      ASSERT_EQ(cuda.cuMemAlloc_v2(&block, 600 << 10), CUDA_SUCCESS);
    for (CUdeviceptr block : blocks) ASSERT_EQ(cuda.cuMemFree_v2(block), CUDA_SUCCESS);
    EXPECT_EQ(ledger_used(), kContext);
    EXPECT_EQ(physical_used(), kContext);
  }
}

SLICE_TEST(PoolsThatWereDestroyedWithLiveBlocksEndWithTheLastContext, "2G") {
  const Cuda cuda;
  start_cuda(cuda);
  for (int round = 0; round < 3; ++round) {
    const CUmemoryPool pool = make_pool(cuda);
    CUdeviceptr block = 0;
    ASSERT_EQ(cuda.cuMemAllocFromPoolAsync(&block, 512 * kMiB, pool, nullptr), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuMemPoolDestroy(pool), CUDA_SUCCESS);
    EXPECT_EQ(ledger_used(), kContext + 512 * kMiB) << "until its blocks are freed";
    ASSERT_EQ(cuda.cuDevicePrimaryCtxReset_v2(0), CUDA_SUCCESS);
    EXPECT_EQ(ledger_used(), 0u);
    start_cuda(cuda);
  }
}

SLICE_TEST(TheLastGreenContextEndsThePrimaryOne, "2G") {
  const Cuda cuda;
  ASSERT_EQ(cuda.cuInit(0), CUDA_SUCCESS);
  CUdevResourceDesc desc = nullptr;
  int resource = 0;
  ASSERT_EQ(call(cuda, "cuDevResourceGenerateDesc", &desc, static_cast<void*>(&resource), 1u),
            CUDA_SUCCESS);
  for (int round = 0; round < 3; ++round) {
    CUgreenCtx green = nullptr;
    CUcontext context = nullptr;
    CUdeviceptr block = 0;
    ASSERT_EQ(call(cuda, "cuGreenCtxCreate", &green, desc, 0, 1u), CUDA_SUCCESS);
    ASSERT_EQ(call(cuda, "cuCtxFromGreenCtx", &context, green), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuCtxSetCurrent(context), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuMemAlloc_v2(&block, kGiB), CUDA_SUCCESS);
    ASSERT_EQ(call(cuda, "cuGreenCtxDestroy", green), CUDA_SUCCESS);
    EXPECT_EQ(ledger_used(), 0u);
  }
}

// ---- charged before it happens -----------------------------------------------------------------

SLICE_TEST(EveryPoolIsAccountedHoweverManyThereAre, "2G") {
  const Cuda cuda;
  start_cuda(cuda);
  std::vector<CUmemoryPool> pools;
  for (int i = 0; i < 600; ++i) pools.push_back(make_pool(cuda));
  CUdeviceptr block = 0;
  for (size_t i : {size_t{0}, size_t{255}, size_t{256}, size_t{599}}) {
    EXPECT_EQ(cuda.cuMemAllocFromPoolAsync(&block, 3 * kGiB, pools[i], nullptr),
              CUDA_ERROR_OUT_OF_MEMORY);
    ASSERT_EQ(cuda.cuMemAllocFromPoolAsync(&block, 100 * kMiB, pools[i], nullptr), CUDA_SUCCESS);
  }
  EXPECT_EQ(ledger_charged(ALLOT_KIND_POOL), 4 * 128 * kMiB);
  EXPECT_EQ(ledger_used(), physical_used());
  for (CUmemoryPool pool : pools) ASSERT_EQ(cuda.cuMemPoolDestroy(pool), CUDA_SUCCESS);
  for (int i = 0; i < 600; ++i) make_pool(cuda);  // places are used again
}

// One more than there are places for.
SLICE_TEST(APoolThatCannotBeAccountedCannotBeMade, "2G") {
  const Cuda cuda;
  start_cuda(cuda);
  CUmemPoolProps props = {};
  props.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  props.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  CUmemoryPool pool = nullptr;
  CUmemoryPool last = nullptr;
  uint32_t made = 0;
  while (made <= 65536 && cuda.cuMemPoolCreate(&pool, &props) == CUDA_SUCCESS) {
    last = pool;
    ++made;
  }
  EXPECT_EQ(made, 65536u);
  EXPECT_EQ(cuda.cuMemPoolCreate(&pool, &props), CUDA_ERROR_OUT_OF_MEMORY);
  CUdeviceptr block = 0;
  EXPECT_EQ(cuda.cuMemAllocFromPoolAsync(&block, 3 * kGiB, last, nullptr),
            CUDA_ERROR_OUT_OF_MEMORY);
  ASSERT_EQ(cuda.cuMemPoolDestroy(last), CUDA_SUCCESS);
  EXPECT_EQ(cuda.cuMemPoolCreate(&pool, &props), CUDA_SUCCESS);
}

SLICE_TEST(PoolsThatNobodyMadeAreAccounted, "2G") {
  const Cuda cuda;
  start_cuda(cuda);
  for (int type : {CU_MEM_ALLOCATION_TYPE_PINNED, CU_MEM_ALLOCATION_TYPE_MANAGED}) {
    for (const char* get : {"cuMemGetDefaultMemPool", "cuMemGetMemPool"}) {
      CUmemLocation location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
      CUmemoryPool pool = nullptr;
      ASSERT_EQ(call(cuda, get, &pool, &location, type), CUDA_SUCCESS);
      CUdeviceptr block = 0;
      EXPECT_EQ(cuda.cuMemAllocFromPoolAsync(&block, 3 * kGiB, pool, nullptr),
                CUDA_ERROR_OUT_OF_MEMORY);
      ASSERT_EQ(cuda.cuMemAllocFromPoolAsync(&block, 100 * kMiB, pool, nullptr), CUDA_SUCCESS);
      EXPECT_EQ(ledger_used(), physical_used());
      EXPECT_EQ(cuda.cuMemFree_v2(block), CUDA_SUCCESS);
    }
  }
  EXPECT_EQ(ledger_used(), kContext);
}

// A pool's handle that came by a way that no hook saw.
SLICE_TEST(APoolOfUnknownOriginIsAccountedWhereItIsUsed, "2G") {
  const Cuda cuda;
  start_cuda(cuda);
  const CUmemoryPool pool = make_pool(bare());
  CUdeviceptr block = 0;
  EXPECT_EQ(cuda.cuMemAllocFromPoolAsync(&block, 3 * kGiB, pool, nullptr),
            CUDA_ERROR_OUT_OF_MEMORY);
  ASSERT_EQ(cuda.cuMemAllocFromPoolAsync(&block, kGiB, pool, nullptr), CUDA_SUCCESS);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_POOL), kGiB);
}

SLICE_TEST(OneUnmapOverKnownAndUnknownMappingsReturnsTheKnown, "2G") {
  const Cuda cuda;
  start_cuda(cuda);
  CUdeviceptr at = 0;
  ASSERT_EQ(cuda.cuMemAddressReserve(&at, 96 * kMiB, 0, 0, 0ull), CUDA_SUCCESS);
  for (int first : {0, 1}) {  // the unknown one before the known, and behind
    const auto unknown = make(bare(), 32 * kMiB);
    const auto known = make(cuda, 64 * kMiB);
    ASSERT_EQ(bare().cuMemMap(at + (first ? 64 * kMiB : 0), 32 * kMiB, 0, unknown, 0ull),
              CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuMemMap(at + (first ? 0 : 32 * kMiB), 64 * kMiB, 0, known, 0ull), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuMemRelease(known), CUDA_SUCCESS);
    ASSERT_EQ(bare().cuMemRelease(unknown), CUDA_SUCCESS);
    EXPECT_EQ(ledger_charged(ALLOT_KIND_VMM), 64 * kMiB);
    ASSERT_EQ(cuda.cuMemUnmap(at, 96 * kMiB), CUDA_SUCCESS);
    EXPECT_EQ(ledger_charged(ALLOT_KIND_VMM), 0u);
  }
}

// The software GPU takes one mapping of the kernel's for each mapping of the program's.
uint64_t mappings_allowed() {
  uint64_t allowed = 0;
  std::ifstream("/proc/sys/vm/max_map_count") >> allowed;
  return allowed;
}

SLICE_TEST(AnAllocationMayBeMappedMoreOftenThan65535Times, "2G") {
  const Cuda cuda;
  start_cuda(cuda);
  constexpr uint64_t kTimes = 65537;
  if (mappings_allowed() < kTimes + 4096) {
    GTEST_SKIP() << "vm.max_map_count allows " << mappings_allowed() << " mappings a process";
  }
  const auto handle = make(cuda, 2 * kMiB);
  CUdeviceptr at = 0;
  ASSERT_EQ(cuda.cuMemAddressReserve(&at, kTimes * 2 * kMiB, 0, 0, 0ull), CUDA_SUCCESS);
  for (uint64_t i = 0; i < kTimes; ++i) {
    ASSERT_EQ(cuda.cuMemMap(at + i * 2 * kMiB, 2 * kMiB, 0, handle, 0ull), CUDA_SUCCESS) << i;
  }
  ASSERT_EQ(cuda.cuMemRelease(handle), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuMemUnmap(at, 2 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_VMM), 2 * kMiB);
}

SLICE_TEST(AnExportedDescriptorKeepsTheChargeAsItKeepsTheMemory, "2G") {
  const Cuda cuda;
  start_cuda(cuda);
  std::vector<int> descriptors;
  for (int i = 0; i < 8; ++i) {  // more than fits
    const CUmemAllocationProp prop = on_device(true);
    CUmemGenericAllocationHandle handle = 0;
    if (cuda.cuMemCreate(&handle, 256 * kMiB, &prop, 0ull) != CUDA_SUCCESS) break;
    int fd = -1;
    ASSERT_EQ(call(cuda, "cuMemExportToShareableHandle", static_cast<void*>(&fd), handle,
                   static_cast<int>(CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR), 0ull),
              CUDA_SUCCESS);
    descriptors.push_back(fd);
    ASSERT_EQ(cuda.cuMemRelease(handle), CUDA_SUCCESS);
    EXPECT_EQ(ledger_used(), physical_used());
  }
  EXPECT_EQ(descriptors.size(), 6u);
  for (int fd : descriptors) close(fd);
  CUdeviceptr block = 0;
  ASSERT_EQ(cuda.cuMemAlloc_v2(&block, kGiB + 512 * kMiB), CUDA_SUCCESS) << "all came back";
  EXPECT_EQ(ledger_used(), physical_used());
}

SLICE_TEST(MemoryInASparseArrayIsChargedUntilItIsTakenOut, "2G") {
  const Cuda cuda;
  start_cuda(cuda);
  CUDA_ARRAY3D_DESCRIPTOR d = {4096, 4096, 0, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_SPARSE};
  CUarray array = nullptr;
  ASSERT_EQ(cuda.cuArray3DCreate_v2(&array, &d), CUDA_SUCCESS);
  CUarrayMapInfo info = {};
  info.resourceType = CU_RESOURCE_TYPE_ARRAY;
  info.resource.array = array;
  info.subresource.sparseLevel.extentWidth = 512;
  const auto map = [&](CUmemOperationType what, CUmemGenericAllocationHandle handle, unsigned x) {
    info.memOperationType = what;
    info.memHandle.memHandle = handle;
    info.subresource.sparseLevel.offsetX = x;
    return call(cuda, "cuMemMapArrayAsync", &info, 1u, static_cast<CUstream>(nullptr));
  };
  for (unsigned x : {0u, 512u}) {
    const auto handle = make(cuda, 64 * kMiB);
    ASSERT_EQ(map(CU_MEM_OPERATION_TYPE_MAP, handle, x), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuMemRelease(handle), CUDA_SUCCESS);
  }
  EXPECT_EQ(ledger_charged(ALLOT_KIND_VMM), 128 * kMiB);
  ASSERT_EQ(map(CU_MEM_OPERATION_TYPE_UNMAP, 0, 0), CUDA_SUCCESS);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_VMM), 64 * kMiB);
  const auto other = make(cuda, 2 * kMiB);
  ASSERT_EQ(map(CU_MEM_OPERATION_TYPE_MAP, other, 512), CUDA_SUCCESS) << "in the place of another";
  EXPECT_EQ(ledger_charged(ALLOT_KIND_VMM), 2 * kMiB);
  ASSERT_EQ(cuda.cuMemRelease(other), CUDA_SUCCESS);
  EXPECT_EQ(ledger_used(), physical_used());
  ASSERT_EQ(cuda.cuArrayDestroy(array), CUDA_SUCCESS);
  EXPECT_EQ(ledger_used(), kContext);
}

SLICE_TEST(MemoryBoundToAMulticastObjectIsChargedUntilItIsUnbound, "2G") {
  const Cuda cuda;
  start_cuda(cuda);
  CUmulticastObjectProp prop = {};
  prop.numDevices = 1;
  prop.size = 256 * kMiB;
  CUmemGenericAllocationHandle multicast = 0;
  ASSERT_EQ(call(cuda, "cuMulticastCreate", &multicast, &prop), CUDA_SUCCESS);
  ASSERT_EQ(call(cuda, "cuMulticastAddDevice", multicast, 0), CUDA_SUCCESS);
  const uint64_t none = 0;
  for (uint64_t at : {uint64_t{0}, 64 * kMiB}) {
    const auto handle = make(cuda, 64 * kMiB);
    ASSERT_EQ(call(cuda, "cuMulticastBindMem", multicast, at, handle, none, 64 * kMiB, none),
              CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuMemRelease(handle), CUDA_SUCCESS);
  }
  const auto mapped = make(cuda, 64 * kMiB);
  CUdeviceptr address = 0;
  ASSERT_EQ(cuda.cuMemAddressReserve(&address, 64 * kMiB, 0, 0, 0ull), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuMemMap(address, 64 * kMiB, 0, mapped, 0ull), CUDA_SUCCESS);
  ASSERT_EQ(call(cuda, "cuMulticastBindAddr", multicast, 128 * kMiB, address, 64 * kMiB, none),
            CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuMemUnmap(address, 64 * kMiB), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuMemRelease(mapped), CUDA_SUCCESS);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_VMM), 192 * kMiB);
  EXPECT_EQ(ledger_used(), physical_used());
  ASSERT_EQ(call(cuda, "cuMulticastUnbind", multicast, 0, none, 64 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_VMM), 128 * kMiB);
  ASSERT_EQ(cuda.cuMemRelease(multicast), CUDA_SUCCESS);
  EXPECT_EQ(ledger_used(), kContext);
  EXPECT_EQ(physical_used(), kContext);
}

SLICE_TEST(AHeapForKernelsIsReservedWhenItIsAskedFor, "4G") {
  const Cuda cuda;
  start_cuda(cuda);
  const uint64_t heap = CU_LIMIT_MALLOC_HEAP_SIZE;
  const auto set = [&](uint64_t bytes) {
    return call(cuda, "cuCtxSetLimit", static_cast<int>(heap), bytes);
  };
  EXPECT_EQ(set(6 * kGiB), CUDA_ERROR_OUT_OF_MEMORY);
  ASSERT_EQ(set(2 * kGiB), CUDA_SUCCESS);
  EXPECT_EQ(ledger_used(), kContext + 2 * kGiB - 8 * kMiB);
  CUdeviceptr block = 0;
  EXPECT_EQ(cuda.cuMemAlloc_v2(&block, 2 * kGiB), CUDA_ERROR_OUT_OF_MEMORY);
  ASSERT_EQ(cuda.cuDevicePrimaryCtxReset_v2(0), CUDA_SUCCESS);
  EXPECT_EQ(ledger_used(), 0u);
}

// ---- loans -------------------------------------------------------------------------------------

uint32_t offers_in_region() {
  auto slice = shm::open_slice((machine_folder() + "/region/default.slice").c_str(), false);
  if (!slice) return UINT32_MAX;
  uint32_t count = 0;
  for (const AllotExport& offer : slice->file->exports) count += offer.handle_hash != 0 ? 1 : 0;
  shm::unmap(*slice);
  return count;
}

SLICE_TEST(HandlesOfFreedBlocksLeaveTheRegion, "2G") {
  const Cuda cuda;
  start_cuda(cuda);
  CUipcMemHandle handle;
  for (size_t bytes : {size_t{4096}, size_t{4 << 20}}) {
    for (int i = 0; i < 1500; ++i) {  // more than the region has room for
      CUdeviceptr block = 0;
      ASSERT_EQ(cuda.cuMemAlloc_v2(&block, bytes), CUDA_SUCCESS);
      ASSERT_EQ(cuda.cuIpcGetMemHandle(&handle, block), CUDA_SUCCESS);
      ASSERT_EQ(cuda.cuIpcGetMemHandle(&handle, block), CUDA_SUCCESS);
      ASSERT_EQ(cuda.cuMemFree_v2(block), CUDA_SUCCESS);
    }
    EXPECT_EQ(offers_in_region(), 0u);
  }
  CUcontext context = nullptr;
  CUdeviceptr block = 0;
  ASSERT_EQ(cuda.cuCtxCreate_v2(&context, 0, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuMemAlloc_v2(&block, 4 << 20), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuIpcGetMemHandle(&handle, block), CUDA_SUCCESS);
  EXPECT_EQ(offers_in_region(), 1u);
  ASSERT_EQ(cuda.cuCtxDestroy_v2(context), CUDA_SUCCESS);
  EXPECT_EQ(offers_in_region(), 0u);
}

std::string hex(const void* data, size_t bytes) {
  std::string text;
  for (size_t i = 0; i < bytes; ++i) {
    char digits[3];
    snprintf(digits, sizeof digits, "%02x", static_cast<const unsigned char*>(data)[i]);
    text += digits;
  }
  return text;
}
void unhex(const std::string& text, void* out) {
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    static_cast<unsigned char*>(out)[i / 2] =
        static_cast<unsigned char>(std::stoi(text.substr(i, 2), nullptr, 16));
  }
}

// Lends 1 GiB in the way of its argument, prints the handle and waits to be ended.
CASE(Lender) {
  const Cuda cuda;
  start_cuda(cuda);
  const std::string way = case_arguments().at(0);
  if (way == "ipc") {
    CUdeviceptr block = 0;
    CUipcMemHandle handle;
    ASSERT_EQ(cuda.cuMemAlloc_v2(&block, kGiB), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuIpcGetMemHandle(&handle, block), CUDA_SUCCESS);
    printf("lends %s\n", hex(&handle, sizeof handle).c_str());
  } else {
    const auto handle = make(cuda, kGiB, true);
    int fd = -1;
    ASSERT_EQ(call(cuda, "cuMemExportToShareableHandle", static_cast<void*>(&fd), handle,
                   static_cast<int>(CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR), 0ull),
              CUDA_SUCCESS);
    printf("lends /proc/%d/fd/%d\n", getpid(), fd);
  }
  fflush(stdout);
  char byte;
  while (read(0, &byte, 1) == 1) {
  }
}

// The line that says what is lent; behind what the test's frame prints.
std::string lent_by(Running& lender) {
  for (int i = 0; i < 50; ++i) {
    const std::string line = read_line(lender);
    if (line.starts_with("lends ")) return line.substr(6);
  }
  return "";
}

SLICE_TEST(WhatIsBorrowedByIpcIsChargedToTheBorrowerAfterItsLendersEnd, "3G") {
  Running lender = start_case("Lender", slice_environment({.memory = "3G"}), {"ipc"});
  CUipcMemHandle handle;
  unhex(lent_by(lender), &handle);
  const Cuda cuda;
  start_cuda(cuda);
  CUdeviceptr block = 0;
  ASSERT_EQ(cuda.cuIpcOpenMemHandle_v2(&block, handle, 1u), CUDA_SUCCESS);
  EXPECT_EQ(ledger_used(), 2 * kContext + kGiB) << "charged once";
  finish(lender);
  CUdeviceptr refused = 0;
  EXPECT_EQ(cuda.cuMemAlloc_v2(&refused, 2 * kGiB), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_IMPORT), kGiB);
  EXPECT_EQ(ledger_used(), physical_used());
  ASSERT_EQ(cuda.cuIpcCloseMemHandle(block), CUDA_SUCCESS);
  EXPECT_EQ(ledger_used(), kContext);
}

SLICE_TEST(WhatWasImportedByADescriptorIsChargedToTheImporterAfterItsMakersEnd, "3G") {
  Running lender = start_case("Lender", slice_environment({.memory = "3G"}), {"descriptor"});
  const int fd = open(lent_by(lender).c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  const Cuda cuda;
  start_cuda(cuda);
  CUmemGenericAllocationHandle handle = 0;
  CUdeviceptr at = 0;
  ASSERT_EQ(call(cuda, "cuMemImportFromShareableHandle", &handle,
                 reinterpret_cast<void*>(static_cast<intptr_t>(fd)),
                 static_cast<int>(CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)),
            CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuMemAddressReserve(&at, kGiB, 0, 0, 0ull), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuMemMap(at, kGiB, 0, handle, 0ull), CUDA_SUCCESS);
  EXPECT_EQ(ledger_used(), 2 * kContext + kGiB) << "charged once";
  finish(lender);
  CUdeviceptr refused = 0;
  EXPECT_EQ(cuda.cuMemAlloc_v2(&refused, 2 * kGiB), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_IMPORT), kGiB);
  ASSERT_EQ(cuda.cuMemUnmap(at, kGiB), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuMemRelease(handle), CUDA_SUCCESS);
  close(fd);
  EXPECT_EQ(ledger_used(), kContext);
  EXPECT_EQ(physical_used(), kContext);
}

SLICE_TEST(AnImportFromAnotherSliceIsChargedAndRefusedByWhatIsMapped, "2G") {
  Running lender =
      start_case("Lender", slice_environment({.memory = "3G", .more = {{"ALLOT_NAME", "other"}}}),
                 {"descriptor"});
  const int fd = open(lent_by(lender).c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  const Cuda cuda;
  start_cuda(cuda);
  CUmemGenericAllocationHandle handle = 0;
  CUdeviceptr at = 0;
  ASSERT_EQ(call(cuda, "cuMemImportFromShareableHandle", &handle,
                 reinterpret_cast<void*>(static_cast<intptr_t>(fd)),
                 static_cast<int>(CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)),
            CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuMemAddressReserve(&at, kGiB, 0, 0, 0ull), CUDA_SUCCESS);
  CUdeviceptr block = 0;
  ASSERT_EQ(cuda.cuMemAlloc_v2(&block, kGiB), CUDA_SUCCESS);
  EXPECT_EQ(cuda.cuMemMap(at, kGiB, 0, handle, 0ull), CUDA_ERROR_OUT_OF_MEMORY);
  ASSERT_EQ(cuda.cuMemFree_v2(block), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuMemMap(at, kGiB, 0, handle, 0ull), CUDA_SUCCESS);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_IMPORT), kGiB);
  finish(lender);
}

}  // namespace
}  // namespace allot::shim_test
