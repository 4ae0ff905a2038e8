// Every kind of device memory is charged what the card gives for it and returned in full.
//
// The account is compared with the software GPU's own cuMemGetInfo, asked past the shim.
#include <chrono>
#include <random>
#include <vector>

#include "tests/shim/harness.h"

namespace allot::shim_test {
namespace {

// What the slice has grown by, on the card and in the account, since the object was made.
class Growth {
 public:
  Growth() : physical_(physical_used()), ledger_(ledger_used()) {}
  uint64_t physical() const { return physical_used() - physical_; }
  uint64_t ledger() const { return ledger_used() - ledger_; }

 private:
  uint64_t physical_;
  uint64_t ledger_;
};

#define EXPECT_CHARGED_AS_TAKEN(growth, at_least)      \
  do {                                                 \
    EXPECT_EQ((growth).ledger(), (growth).physical()); \
    EXPECT_GE((growth).ledger(), at_least);            \
  } while (0)
#define EXPECT_ALL_BACK(growth)         \
  do {                                  \
    EXPECT_EQ((growth).physical(), 0u); \
    EXPECT_EQ((growth).ledger(), 0u);   \
  } while (0)

SLICE_TEST(LinearMemoryIsChargedByWholePagesAndSlabs) {
  const Cuda cuda;
  start_cuda(cuda);
  const Growth growth;
  std::vector<CUdeviceptr> blocks;
  for (size_t bytes :
       {1ul, 512ul, 4096ul, 100000ul, 1048576ul, 1048577ul, 2097152ul, 2097153ul, 33554433ul}) {
    CUdeviceptr block = 0;
    ASSERT_EQ(cuda.cuMemAlloc_v2(&block, bytes), CUDA_SUCCESS) << bytes;
    blocks.push_back(block);
    EXPECT_CHARGED_AS_TAKEN(growth, bytes);
  }
  for (const CUdeviceptr block : blocks) {
    ASSERT_EQ(cuda.cuMemFree_v2(block), CUDA_SUCCESS);
    EXPECT_EQ(growth.ledger(), growth.physical());
  }
  EXPECT_ALL_BACK(growth);
}

SLICE_TEST(SmallBlocksInAnyOrderKeepTheAccountExact) {
  const Cuda cuda;
  start_cuda(cuda);
  const Growth growth;
  std::mt19937 random(3);
  std::vector<CUdeviceptr> blocks;
  for (int i = 0; i < 4000; ++i) {
    if (blocks.size() < 50 || random() % 2 == 0) {
      CUdeviceptr block = 0;
      const size_t bytes = random() % 8 == 0 ? random() % (4 * kMiB) + 1 : random() % 100000 + 1;
      ASSERT_EQ(cuda.cuMemAlloc_v2(&block, bytes), CUDA_SUCCESS);
      blocks.push_back(block);
    } else {
      std::swap(blocks[random() % blocks.size()], blocks.back());
      ASSERT_EQ(cuda.cuMemFree_v2(blocks.back()), CUDA_SUCCESS);
      blocks.pop_back();
    }
    if (i % 100 == 0) {
      EXPECT_EQ(growth.ledger(), growth.physical());
    }
  }
  EXPECT_CHARGED_AS_TAKEN(growth, kMiB);
  for (const CUdeviceptr block : blocks) ASSERT_EQ(cuda.cuMemFree_v2(block), CUDA_SUCCESS);
  EXPECT_ALL_BACK(growth);
}

SLICE_TEST(PitchedMemoryIsChargedByThePitchTheDriverChose) {
  const Cuda cuda;
  start_cuda(cuda);
  const Growth growth;
  for (const auto& [width, height] :
       {std::pair<size_t, size_t>{100, 100}, {513, 3}, {5000, 3000}}) {
    CUdeviceptr block = 0;
    size_t pitch = 0;
    ASSERT_EQ(cuda.cuMemAllocPitch_v2(&block, &pitch, width, height, 16), CUDA_SUCCESS);
    EXPECT_CHARGED_AS_TAKEN(growth, width * height);
    ASSERT_EQ(cuda.cuMemFree_v2(block), CUDA_SUCCESS);
    EXPECT_ALL_BACK(growth);
  }
}

SLICE_TEST(ArraysAndMipmapsAreCharged) {
  const Cuda cuda;
  start_cuda(cuda);
  const Growth growth;
  for (const auto& [width, height] :
       {std::pair<size_t, size_t>{1000, 1000}, {4096, 4096}, {100, 1}, {4097, 4097}, {64, 20}}) {
    const CUDA_ARRAY_DESCRIPTOR d = {width, height, CU_AD_FORMAT_FLOAT, 4};
    CUarray array = nullptr;
    ASSERT_EQ(cuda.cuArrayCreate_v2(&array, &d), CUDA_SUCCESS);
    EXPECT_CHARGED_AS_TAKEN(growth, width * height * 16);
    ASSERT_EQ(cuda.cuArrayDestroy(array), CUDA_SUCCESS);
    EXPECT_ALL_BACK(growth);
  }
  const CUDA_ARRAY3D_DESCRIPTOR d = {4096, 4096, 0, CU_AD_FORMAT_FLOAT, 4, 0};
  CUmipmappedArray mipmap = nullptr;
  ASSERT_EQ(cuda.cuMipmappedArrayCreate(&mipmap, &d, 13), CUDA_SUCCESS);
  EXPECT_CHARGED_AS_TAKEN(growth, 341 * kMiB);
  ASSERT_EQ(cuda.cuMipmappedArrayDestroy(mipmap), CUDA_SUCCESS);
  EXPECT_ALL_BACK(growth);
}

// Three-dimensional arrays are charged by an upper bound: never below what the card gave.
SLICE_TEST(VolumesAreNeverChargedBelowWhatTheyTake) {
  const Cuda cuda;
  start_cuda(cuda);
  for (size_t n : {10ul, 100ul, 130ul, 256ul}) {
    const Growth growth;
    const CUDA_ARRAY3D_DESCRIPTOR d = {n, n, n, CU_AD_FORMAT_FLOAT, 4, 0};
    CUarray array = nullptr;
    ASSERT_EQ(cuda.cuArray3DCreate_v2(&array, &d), CUDA_SUCCESS);
    EXPECT_GE(growth.ledger(), growth.physical());
    ASSERT_EQ(cuda.cuArrayDestroy(array), CUDA_SUCCESS);
    EXPECT_ALL_BACK(growth);
  }
}

// Acceptance test 6.
SLICE_TEST(AnArrayAboveTheLimitIsOutOfMemory, "1G") {
  const Cuda cuda;
  start_cuda(cuda);
  const Growth growth;
  const CUDA_ARRAY_DESCRIPTOR d = {32768, 20480, CU_AD_FORMAT_FLOAT, 4};  // 10 GiB
  CUarray array = nullptr;
  EXPECT_EQ(cuda.cuArrayCreate_v2(&array, &d), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_ALL_BACK(growth);
}

SLICE_TEST(ManagedMemoryIsChargedInFullWhileItLives, "2G") {
  const Cuda cuda;
  start_cuda(cuda);
  const uint64_t before = ledger_used();
  CUdeviceptr block = 0;
  ASSERT_EQ(cuda.cuMemAllocManaged(&block, 700 * kMiB, CU_MEM_ATTACH_GLOBAL), CUDA_SUCCESS);
  EXPECT_EQ(ledger_used() - before, 700 * kMiB);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_MANAGED), 700 * kMiB);
  CUdeviceptr second = 0;
  EXPECT_EQ(cuda.cuMemAllocManaged(&second, kGiB, CU_MEM_ATTACH_GLOBAL), CUDA_ERROR_OUT_OF_MEMORY);
  ASSERT_EQ(cuda.cuMemFree_v2(block), CUDA_SUCCESS);
  EXPECT_EQ(ledger_used(), before);
}

// Acceptance test 7, first part: stream-ordered memory follows what the pool has reserved.
SLICE_TEST(PoolsAreChargedByWhatTheyReserve) {
  const Cuda cuda;
  start_cuda(cuda);
  const Growth growth;
  for (int round = 0; round < 20; ++round) {
    CUdeviceptr a = 0;
    CUdeviceptr b = 0;
    ASSERT_EQ(cuda.cuMemAllocAsync(&a, 100 * kMiB, nullptr), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuMemAllocAsync_ptsz(&b, kMiB, nullptr), CUDA_SUCCESS);
    EXPECT_CHARGED_AS_TAKEN(growth, 101 * kMiB);
    EXPECT_EQ(ledger_charged(ALLOT_KIND_POOL), growth.physical());
    ASSERT_EQ(cuda.cuMemFreeAsync(a, nullptr), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuMemFreeAsync(b, nullptr), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuStreamSynchronize(nullptr), CUDA_SUCCESS);
    EXPECT_ALL_BACK(growth);
  }
}

// Acceptance test 7: cudaMallocAsync and cudaFree.
SLICE_TEST(PoolMemoryMayBeFreedByCuMemFree) {
  const Cuda cuda;
  start_cuda(cuda);
  const Growth growth;
  for (int round = 0; round < 10; ++round) {
    CUdeviceptr block = 0;
    ASSERT_EQ(cuda.cuMemAllocAsync(&block, 50 * kMiB, nullptr), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuMemFree_v2(block), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuCtxSynchronize(), CUDA_SUCCESS);
    EXPECT_ALL_BACK(growth);
  }
}

// Acceptance test 7: pools by handle, kept memory, trim, and a pool destroyed before its last
// block.
SLICE_TEST(PoolsByHandleKeepTrimAndEnd) {
  const Cuda cuda;
  start_cuda(cuda);
  const Growth growth;
  CUmemPoolProps props = {};
  props.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  props.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  CUmemoryPool pool = nullptr;
  ASSERT_EQ(cuda.cuMemPoolCreate(&pool, &props), CUDA_SUCCESS);
  cuuint64_t keep = UINT64_MAX;
  ASSERT_EQ(cuda.cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &keep),
            CUDA_SUCCESS);
  CUdeviceptr block = 0;
  ASSERT_EQ(cuda.cuMemAllocFromPoolAsync(&block, 40 * kMiB, pool, nullptr), CUDA_SUCCESS);
  EXPECT_CHARGED_AS_TAKEN(growth, 40 * kMiB);
  ASSERT_EQ(cuda.cuMemFreeAsync(block, nullptr), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuStreamSynchronize(nullptr), CUDA_SUCCESS);
  EXPECT_CHARGED_AS_TAKEN(growth, 40 * kMiB);  // the pool keeps it
  ASSERT_EQ(cuda.cuMemPoolTrimTo(pool, 0), CUDA_SUCCESS);
  EXPECT_ALL_BACK(growth);
  ASSERT_EQ(cuda.cuMemAllocFromPoolAsync(&block, 40 * kMiB, pool, nullptr), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuMemPoolDestroy(pool), CUDA_SUCCESS);
  EXPECT_EQ(growth.ledger(), growth.physical());
  ASSERT_EQ(cuda.cuMemFreeAsync(block, nullptr), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_ALL_BACK(growth);
}

// A pool that keeps its memory serves requests below the limit although the slice is full, and
// gives up what it does not need when something else asks.
SLICE_TEST(MemoryKeptByAPoolIsUsedAndGivenUpAtTheLimit, "1G") {
  const Cuda cuda;
  start_cuda(cuda);
  CUmemoryPool pool = nullptr;
  cuuint64_t keep = UINT64_MAX;
  ASSERT_EQ(cuda.cuDeviceGetDefaultMemPool(&pool, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &keep),
            CUDA_SUCCESS);
  size_t free_bytes = 0;
  size_t total = 0;
  ASSERT_EQ(cuda.cuMemGetInfo_v2(&free_bytes, &total), CUDA_SUCCESS);
  const size_t most = free_bytes / (32 * kMiB) * 32 * kMiB;
  CUdeviceptr block = 0;
  ASSERT_EQ(cuda.cuMemAllocAsync(&block, most, nullptr), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuMemFreeAsync(block, nullptr), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuStreamSynchronize(nullptr), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuMemAllocAsync(&block, most, nullptr), CUDA_SUCCESS)
      << "its own memory, kept by the pool";
  ASSERT_EQ(cuda.cuMemFreeAsync(block, nullptr), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuStreamSynchronize(nullptr), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuMemAlloc_v2(&block, most / 2), CUDA_SUCCESS)
      << "the pool gives up what it only keeps";
  EXPECT_LE(ledger_used(), kGiB);
  EXPECT_LE(physical_used(), kGiB);
}

// Acceptance test 7: a graph with allocation nodes, made by hand and captured.
SLICE_TEST(GraphMemoryIsChargedAtTheLaunchUntilTheTrim) {
  const Cuda cuda;
  start_cuda(cuda);
  const Growth growth;
  CUstream stream = nullptr;
  ASSERT_EQ(cuda.cuStreamCreate(&stream, 0), CUDA_SUCCESS);
  for (const bool captured : {false, true}) {
    CUgraph graph = nullptr;
    if (captured) {
      CUdeviceptr block = 0;
      ASSERT_EQ(cuda.cuStreamBeginCapture_v2(stream, 0), CUDA_SUCCESS);
      ASSERT_EQ(cuda.cuMemAllocAsync(&block, 40 * kMiB, stream), CUDA_SUCCESS);
      ASSERT_EQ(cuda.cuMemFreeAsync(block, stream), CUDA_SUCCESS);
      ASSERT_EQ(cuda.cuStreamEndCapture(stream, &graph), CUDA_SUCCESS);
    } else {
      CUDA_MEM_ALLOC_NODE_PARAMS params = {};
      params.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
      params.poolProps.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
      params.bytesize = 40 * kMiB;
      CUgraphNode alloc = nullptr;
      CUgraphNode free_node = nullptr;
      ASSERT_EQ(cuda.cuGraphCreate(&graph, 0), CUDA_SUCCESS);
      ASSERT_EQ(cuda.cuGraphAddMemAllocNode(&alloc, graph, nullptr, 0, &params), CUDA_SUCCESS);
      ASSERT_EQ(cuda.cuGraphAddMemFreeNode(&free_node, graph, &alloc, 1, params.dptr),
                CUDA_SUCCESS);
    }
    EXPECT_ALL_BACK(growth);
    CUgraphExec exec = nullptr;
    ASSERT_EQ(cuda.cuGraphInstantiateWithFlags(&exec, graph, 0), CUDA_SUCCESS);
    EXPECT_ALL_BACK(growth);
    for (int i = 0; i < 5; ++i) {
      ASSERT_EQ(cuda.cuGraphLaunch(exec, stream), CUDA_SUCCESS);
      ASSERT_EQ(cuda.cuStreamSynchronize(stream), CUDA_SUCCESS);
      EXPECT_CHARGED_AS_TAKEN(growth, 40 * kMiB);
      EXPECT_EQ(ledger_charged(ALLOT_KIND_GRAPH), 64 * kMiB);
    }
    ASSERT_EQ(cuda.cuGraphExecDestroy(exec), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuGraphDestroy(graph), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuDeviceGraphMemTrim(0), CUDA_SUCCESS);
    EXPECT_ALL_BACK(growth);
  }
}

SLICE_TEST(AGraphThatNeedsMoreThanTheSliceIsOutOfMemoryAtTheLaunch, "1G") {
  const Cuda cuda;
  start_cuda(cuda);
  const Growth growth;
  CUDA_MEM_ALLOC_NODE_PARAMS params = {};
  params.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  params.poolProps.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  params.bytesize = 2 * kGiB;
  CUgraph graph = nullptr;
  CUgraphNode node = nullptr;
  CUgraphExec exec = nullptr;
  ASSERT_EQ(cuda.cuGraphCreate(&graph, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuGraphAddMemAllocNode(&node, graph, nullptr, 0, &params), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuGraphInstantiateWithFlags(&exec, graph, 0), CUDA_SUCCESS);
  EXPECT_EQ(cuda.cuGraphLaunch(exec, nullptr), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_ALL_BACK(growth);
}

CUmemAllocationProp on_device(int device) {
  CUmemAllocationProp prop = {};
  prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  prop.location = {CU_MEM_LOCATION_TYPE_DEVICE, device};
  return prop;
}

// Acceptance test 5: charged where the memory is, whatever context is current; until released and
// unmapped.
SLICE_TEST(VirtualMemoryIsChargedToItsDeviceUntilReleasedAndUnmapped, "8G", "2x80G") {
  const Cuda cuda;
  start_cuda(cuda, 0);
  const CUmemAllocationProp prop = on_device(1);
  CUmemGenericAllocationHandle handle = 0;
  ASSERT_EQ(cuda.cuMemCreate(&handle, 64 * kMiB, &prop, 0), CUDA_SUCCESS);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_VMM, 0), 0u);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_VMM, 1), 64 * kMiB);
  CUdeviceptr address = 0;
  ASSERT_EQ(cuda.cuMemAddressReserve(&address, 64 * kMiB, 0, 0, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuMemMap(address, 64 * kMiB, 0, handle, 0), CUDA_SUCCESS);
  CUmemGenericAllocationHandle again = 0;
  ASSERT_EQ(cuda.cuMemRetainAllocationHandle(&again, reinterpret_cast<void*>(address)),
            CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuMemRelease(again), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuMemRelease(handle), CUDA_SUCCESS);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_VMM, 1), 64 * kMiB) << "still mapped";
  ASSERT_EQ(cuda.cuMemUnmap(address, 64 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_VMM, 1), 0u);
}

// The way of PyTorch's expandable segments: many segments in one range, unmapped in one call.
SLICE_TEST(PiecesOfARangeAreReturnedByOneUnmap) {
  const Cuda cuda;
  start_cuda(cuda);
  const Growth growth;
  constexpr size_t kPieces = 100;
  CUdeviceptr range = 0;
  ASSERT_EQ(cuda.cuMemAddressReserve(&range, kPieces * 2 * kMiB, 0, 0, 0), CUDA_SUCCESS);
  const CUmemAllocationProp prop = on_device(0);
  for (size_t i = 0; i < kPieces; ++i) {
    CUmemGenericAllocationHandle handle = 0;
    ASSERT_EQ(cuda.cuMemCreate(&handle, 2 * kMiB, &prop, 0), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuMemMap(range + i * 2 * kMiB, 2 * kMiB, 0, handle, 0), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuMemRelease(handle), CUDA_SUCCESS);
  }
  EXPECT_CHARGED_AS_TAKEN(growth, kPieces * 2 * kMiB);
  ASSERT_EQ(cuda.cuMemUnmap(range, kPieces * 2 * kMiB), CUDA_SUCCESS);
  EXPECT_ALL_BACK(growth);
}

SLICE_TEST(TheEndOfAContextReturnsWhatWasMadeInIt) {
  const Cuda cuda;
  start_cuda(cuda);
  const Growth growth;
  CUcontext context = nullptr;
  ASSERT_EQ(cuda.cuCtxCreate_v2(&context, 0, 0), CUDA_SUCCESS);
  for (size_t bytes : {100ul, 3ul * kMiB, 50000ul}) {
    CUdeviceptr block = 0;
    ASSERT_EQ(cuda.cuMemAlloc_v2(&block, bytes), CUDA_SUCCESS);
  }
  const CUDA_ARRAY_DESCRIPTOR d = {1000, 1000, CU_AD_FORMAT_FLOAT, 4};
  CUarray array = nullptr;
  ASSERT_EQ(cuda.cuArrayCreate_v2(&array, &d), CUDA_SUCCESS);
  EXPECT_GE(growth.ledger(), 20 * kMiB);
  ASSERT_EQ(cuda.cuCtxDestroy_v2(context), CUDA_SUCCESS);
  EXPECT_ALL_BACK(growth);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_LINEAR), 0u);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_ARRAY), 0u);
}

SLICE_TEST(AResetOfThePrimaryContextReturnsEverything) {
  const Cuda cuda;
  start_cuda(cuda);
  CUdeviceptr block = 0;
  ASSERT_EQ(cuda.cuMemAlloc_v2(&block, 100), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuMemAlloc_v2(&block, 30 * kMiB), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuDevicePrimaryCtxReset_v2(0), CUDA_SUCCESS);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_LINEAR), 0u);
}

SLICE_TEST(TheLimitIsReachableToWithinOnePage, "1G") {
  const Cuda cuda;
  start_cuda(cuda);
  uint64_t granted = 0;
  CUdeviceptr block = 0;
  CUresult result = CUDA_SUCCESS;
  while ((result = cuda.cuMemAlloc_v2(&block, 2 * kMiB)) == CUDA_SUCCESS) granted += 2 * kMiB;
  EXPECT_EQ(result, CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_LE(ledger_used(), kGiB);
  EXPECT_GT(ledger_used() + 2 * kMiB, kGiB);
  EXPECT_LE(physical_used(), kGiB);
  size_t free_bytes = 0;
  size_t total = 0;
  ASSERT_EQ(cuda.cuMemGetInfo_v2(&free_bytes, &total), CUDA_SUCCESS);
  EXPECT_EQ(total, kGiB);
  EXPECT_LT(free_bytes, 2 * kMiB);
}

SLICE_TEST(QueriesAnswerForTheSlice, "3G") {
  const Cuda cuda;
  start_cuda(cuda);
  size_t total = 0;
  size_t free_bytes = 0;
  ASSERT_EQ(cuda.cuDeviceTotalMem_v2(&total, 0), CUDA_SUCCESS);
  EXPECT_EQ(total, 3 * kGiB);
  CUdeviceptr block = 0;
  ASSERT_EQ(cuda.cuMemAlloc_v2(&block, kGiB), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuMemGetInfo_v2(&free_bytes, &total), CUDA_SUCCESS);
  EXPECT_EQ(total, 3 * kGiB);
  EXPECT_EQ(free_bytes, 3 * kGiB - ledger_used());
}

SLICE_TEST(DriverErrorsAndNullPointersStayTheDriversOwn) {
  const Cuda cuda;
  CUdeviceptr block = 0;
  EXPECT_EQ(cuda.cuMemAlloc_v2(&block, 100), CUDA_ERROR_NOT_INITIALIZED);
  start_cuda(cuda);
  const Growth growth;
  EXPECT_EQ(cuda.cuMemAlloc_v2(nullptr, 100), bare().cuMemAlloc_v2(nullptr, 100));
  EXPECT_EQ(cuda.cuMemAlloc_v2(&block, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuda.cuMemAlloc_v2(&block, 1ull << 40), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(cuda.cuMemGetInfo_v2(nullptr, nullptr), bare().cuMemGetInfo_v2(nullptr, nullptr));
  EXPECT_EQ(cuda.cuMemFree_v2(0x1234000), bare().cuMemFree_v2(0x1234000))
      << "an address of nobody's";
  EXPECT_EQ(cuda.cuArrayCreate_v2(nullptr, nullptr), bare().cuArrayCreate_v2(nullptr, nullptr));
  EXPECT_EQ(cuda.cuMemCreate(nullptr, 0, nullptr, 0), bare().cuMemCreate(nullptr, 0, nullptr, 0));
  EXPECT_ALL_BACK(growth);
}

// Acceptance test 14: the time of a free does not grow with the number of live blocks.
SLICE_TEST(FreeTimeIsFlatToAHundredThousandBlocks) {
  const Cuda cuda;
  start_cuda(cuda);
  constexpr size_t kBlocks = 100000;
  std::vector<CUdeviceptr> blocks;
  const auto time_of = [&] {
    std::vector<double> times;
    for (int i = 0; i < 2001; ++i) {
      CUdeviceptr block = 0;
      EXPECT_EQ(cuda.cuMemAlloc_v2(&block, 512), CUDA_SUCCESS);
      const auto begin = std::chrono::steady_clock::now();
      cuda.cuMemFree_v2(block);
      times.push_back(
          std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    std::nth_element(times.begin(), times.begin() + 1000, times.end());
    return times[1000];
  };
  const double few = time_of();
  for (size_t i = 0; i < kBlocks; ++i) {
    CUdeviceptr block = 0;
    ASSERT_EQ(cuda.cuMemAlloc_v2(&block, 512), CUDA_SUCCESS);
    blocks.push_back(block);
  }
  const double many = time_of();
  EXPECT_LT(many, few * 6 + 2e-6) << few << " s with few, " << many << " s with many";
}

}  // namespace
}  // namespace allot::shim_test
