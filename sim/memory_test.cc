// Linear memory, arrays, managed and host memory, pointers: sizes as measured on the card, real
// bytes.
#include "test_support.h"

#include <unistd.h>

#include <algorithm>
#include <vector>

using namespace allot::sim_test;
class SimMemory : public Sim {};

namespace {

constexpr uint64_t kMiB = 1 << 20;

CUdeviceptr take(size_t bytes) {
  CUdeviceptr at = 0;
  EXPECT_CU(CU(cuMemAlloc_v2)(&at, bytes));
  return at;
}

// What 64 blocks of `bytes` cost, by cuMemGetInfo and by NVML alike.
uint64_t cost_of_64(size_t bytes) {
  const uint64_t before = free_memory(), nvml = nvml_used(0, getpid());
  std::vector<CUdeviceptr> blocks;
  for (int i = 0; i < 64; i++) blocks.push_back(take(bytes));
  const uint64_t cost = before - free_memory();
  EXPECT_EQ(nvml_used(0, getpid()) - nvml, cost);
  for (CUdeviceptr at : blocks) EXPECT_CU(CU(cuMemFree_v2)(at));
  EXPECT_EQ(free_memory(), before);
  return cost;
}

uint64_t array_cost(size_t width, size_t height, size_t depth, unsigned flags) {
  const uint64_t before = free_memory();
  const CUDA_ARRAY3D_DESCRIPTOR d{width, height, depth, CU_AD_FORMAT_FLOAT, 4, flags};
  CUarray array = nullptr;
  EXPECT_CU(CU(cuArray3DCreate_v2)(&array, &d));
  const uint64_t cost = before - free_memory();
  EXPECT_CU(CU(cuArrayDestroy)(array));
  EXPECT_EQ(free_memory(), before);
  return cost;
}

}  // namespace

TEST_F(SimMemory, TakesWhatTheCardTakes) {
  in_child([] {
    start();
    EXPECT_EQ(cost_of_64(1), 2 * kMiB);
    EXPECT_EQ(cost_of_64(512), 2 * kMiB);
    EXPECT_EQ(cost_of_64(65536), 4 * kMiB);
    EXPECT_EQ(cost_of_64(kMiB), 64 * kMiB);
    EXPECT_EQ(cost_of_64(kMiB + 1), 128 * kMiB);
    EXPECT_EQ(cost_of_64(2 * kMiB + 1), 256 * kMiB);
  });
}

TEST_F(SimMemory, SlabStaysWhileOneBlockLives) {
  in_child([] {
    start();
    const uint64_t before = free_memory();
    std::vector<CUdeviceptr> blocks;
    for (int i = 0; i < 8192; i++) blocks.push_back(take(512));
    EXPECT_EQ(before - free_memory(), 4 * kMiB);
    for (size_t i = 0; i < blocks.size(); i++) {
      if (i % 64 != 0) {
        EXPECT_CU(CU(cuMemFree_v2)(blocks[i]));
      }
    }
    EXPECT_EQ(before - free_memory(), 4 * kMiB);
    for (size_t i = 0; i < blocks.size(); i += 64) EXPECT_CU(CU(cuMemFree_v2)(blocks[i]));
    EXPECT_EQ(before, free_memory());
  });
}

TEST_F(SimMemory, ContextTakesMemory) {
  in_child([] {
    start();
    EXPECT_EQ(nvml_used(0, getpid()), 512 * kMiB);
    CUcontext second = nullptr;
    EXPECT_CU(CU(cuCtxCreate_v2)(&second, 0u, 0));
    EXPECT_EQ(nvml_used(0, getpid()), 1024 * kMiB);
    EXPECT_CU(CU(cuCtxDestroy_v2)(second));
    EXPECT_EQ(nvml_used(0, getpid()), 512 * kMiB);
    EXPECT_CU(CU(cuDevicePrimaryCtxRelease_v2)(0));
    EXPECT_EQ(nvml_used(0, getpid()), 0u);
  });
}

TEST_F(SimMemory, RefusesAsTheCardDoes) {
  in_child([] {
    start();
    CUdeviceptr at = 0;
    EXPECT_EQ(CU(cuMemAlloc_v2)(&at, size_t{1} << 40), CUDA_ERROR_OUT_OF_MEMORY);
    EXPECT_EQ(CU(cuMemAlloc_v2)(&at, size_t{0}), CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(CU(cuMemFree_v2)(CUdeviceptr{4096}), CUDA_ERROR_INVALID_VALUE);
    at = take(4096);
    EXPECT_EQ(CU(cuMemFree_v2)(at + 512), CUDA_ERROR_INVALID_VALUE);
    EXPECT_CU(CU(cuMemFree_v2)(at));
    EXPECT_EQ(CU(cuMemFree_v2)(at), CUDA_ERROR_INVALID_VALUE);
    int word = 0;
    EXPECT_EQ(CU(cuMemcpyDtoH_v2)(static_cast<void*>(&word), at, size_t{4}),
              CUDA_ERROR_INVALID_VALUE);
  });
}

TEST_F(SimMemory, FillsToTheLastPageInPieces) {
  in_child([] {
    start();
    CUdeviceptr sum = take(8);
    std::vector<CUdeviceptr> blocks;
    CUdeviceptr at = 0;
    while (CU(cuMemAlloc_v2)(&at, size_t{2 * kMiB}) == CUDA_SUCCESS) blocks.push_back(at);
    EXPECT_EQ(free_memory(), 0u);
    for (size_t i = 0; i < 64; i += 2) EXPECT_CU(CU(cuMemFree_v2)(blocks[i]));
    EXPECT_EQ(free_memory(), 64 * kMiB);
    EXPECT_CU(fill(nullptr, blocks[1], kMiB / 2, 7));
    at =
        take(64 * kMiB);  // no two free pages are neighbours: one range of addresses over 32 pieces
    EXPECT_CU(fill(nullptr, at, 16 * kMiB, 0xabcd0123));
    EXPECT_CU(CU(cuCtxSynchronize)());
    std::vector<uint32_t> back(16 * kMiB);
    EXPECT_CU(CU(cuMemcpyDtoH_v2)(static_cast<void*>(back.data()), at, size_t{64 * kMiB}));
    EXPECT_EQ(std::count(back.begin(), back.end(), 0xabcd0123), static_cast<int64_t>(16 * kMiB));
    EXPECT_EQ(mismatches(blocks[1], kMiB / 2, 7, sum), 0u);  // the neighbours kept theirs
    EXPECT_CU(CU(cuMemFree_v2)(at));
    EXPECT_EQ(free_memory(), 64 * kMiB);
  });
}

TEST_F(SimMemory, MovesRealBytesInEveryShape) {
  in_child([] {
    start();
    std::vector<uint32_t> source(64 * 64), back(64 * 64);
    for (size_t i = 0; i < source.size(); i++) source[i] = static_cast<uint32_t>(i * 2654435761u);
    CUdeviceptr pitched = 0;
    size_t pitch = 0;
    EXPECT_CU(CU(cuMemAllocPitch_v2)(&pitched, &pitch, size_t{256}, size_t{64}, 4u));
    EXPECT_EQ(pitch, 512u);
    CUDA_MEMCPY2D to{};
    to.srcMemoryType = CU_MEMORYTYPE_HOST;
    to.srcHost = source.data();
    to.srcPitch = 256;
    to.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    to.dstDevice = pitched;
    to.dstPitch = pitch;
    to.WidthInBytes = 256;
    to.Height = 64;
    EXPECT_CU(CU(cuMemcpy2D_v2)(&to));
    const CUDA_ARRAY_DESCRIPTOR d{64, 64, CU_AD_FORMAT_UNSIGNED_INT32, 1};
    CUarray array = nullptr;
    EXPECT_CU(CU(cuArrayCreate_v2)(&array, &d));
    CUDA_MEMCPY2D into = to;
    into.srcMemoryType = CU_MEMORYTYPE_DEVICE;
    into.srcDevice = pitched;
    into.srcPitch = pitch;
    into.dstMemoryType = CU_MEMORYTYPE_ARRAY;
    into.dstArray = array;
    EXPECT_CU(CU(cuMemcpy2D_v2)(&into));
    CUDA_MEMCPY2D out = into;
    out.srcMemoryType = CU_MEMORYTYPE_ARRAY;
    out.srcArray = array;
    out.dstMemoryType = CU_MEMORYTYPE_HOST;
    out.dstHost = back.data();
    out.dstPitch = 256;
    EXPECT_CU(CU(cuMemcpy2D_v2)(&out));
    EXPECT_EQ(source, back);
    out.WidthInBytes = 257;
    EXPECT_EQ(CU(cuMemcpy2D_v2)(&out), CUDA_ERROR_INVALID_VALUE);
  });
}

TEST_F(SimMemory, ArraysTakeWhatTheCardTakes) {
  in_child([] {
    start();
    EXPECT_EQ(array_cost(1000, 1000, 0, 0), 16 * kMiB);
    EXPECT_EQ(array_cost(4097, 4097, 0, 0), 266 * kMiB);
    EXPECT_EQ(array_cost(100, 1, 0, 0), 2 * kMiB);
    EXPECT_EQ(array_cost(256, 256, 64, 0), 64 * kMiB);
    EXPECT_EQ(array_cost(100, 100, 100, 0), 18 * kMiB);
    EXPECT_EQ(array_cost(512, 512, 10, 1), 40 * kMiB);
    const CUDA_ARRAY3D_DESCRIPTOR d{4096, 4096, 0, CU_AD_FORMAT_FLOAT, 4, 0};
    CUmipmappedArray mipmap = nullptr;
    const uint64_t before = free_memory();
    EXPECT_CU(CU(cuMipmappedArrayCreate)(&mipmap, &d, 13u));
    EXPECT_EQ(before - free_memory(), 342 * kMiB);
    EXPECT_CU(CU(cuMipmappedArrayDestroy)(mipmap));
    EXPECT_EQ(before, free_memory());
  });
}

TEST_F(SimMemory, KnowsItsPointers) {
  in_child([] {
    CUcontext context = start();
    const CUdeviceptr at = take(10'000);
    CUmemorytype type{};
    CUcontext owner = nullptr;
    CUdeviceptr base = 0;
    size_t bytes = 0;
    EXPECT_CU(CU(cuPointerGetAttribute)(static_cast<void*>(&type), CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                        at + 77));
    EXPECT_EQ(type, CU_MEMORYTYPE_DEVICE);
    EXPECT_CU(
        CU(cuPointerGetAttribute)(static_cast<void*>(&owner), CU_POINTER_ATTRIBUTE_CONTEXT, at));
    EXPECT_EQ(owner, context);
    EXPECT_CU(CU(cuMemGetAddressRange_v2)(&base, &bytes, at + 9'999));
    EXPECT_EQ(base, at);
    EXPECT_EQ(bytes, 10'000u);
    void* host = nullptr;
    EXPECT_CU(CU(cuMemHostAlloc)(&host, size_t{4096}, 0u));
    EXPECT_CU(CU(cuPointerGetAttribute)(static_cast<void*>(&type), CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                        reinterpret_cast<CUdeviceptr>(host)));
    EXPECT_EQ(type, CU_MEMORYTYPE_HOST);
    CUdeviceptr managed = 0;
    unsigned is_managed = 0;
    const uint64_t before = free_memory();
    EXPECT_CU(CU(cuMemAllocManaged)(&managed, size_t{64 * kMiB}, unsigned{CU_MEM_ATTACH_GLOBAL}));
    EXPECT_EQ(before, free_memory());
    EXPECT_CU(CU(cuPointerGetAttribute)(static_cast<void*>(&is_managed),
                                        CU_POINTER_ATTRIBUTE_IS_MANAGED, managed));
    EXPECT_EQ(is_managed, 1u);
    EXPECT_CU(fill(nullptr, managed, 1024, 5));
    EXPECT_CU(CU(cuCtxSynchronize)());
    EXPECT_EQ(*reinterpret_cast<uint32_t*>(managed), 5u);
    EXPECT_CU(CU(cuMemFree_v2)(managed));
    EXPECT_CU(CU(cuMemFreeHost)(host));
    int local = 0;
    EXPECT_EQ(CU(cuPointerGetAttribute)(static_cast<void*>(&type), CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                        reinterpret_cast<CUdeviceptr>(&local)),
              CUDA_ERROR_INVALID_VALUE);
  });
}

TEST_F(SimMemory, KernelOutsideMemoryLosesTheContext) {
  in_child([] {
    start();
    const CUdeviceptr at = take(2 * kMiB + 1);
    EXPECT_CU(fill(nullptr, at, kMiB, 1));
    EXPECT_CU(CU(cuCtxSynchronize)());
    EXPECT_CU(CU(cuMemFree_v2)(at));
    EXPECT_CU(fill(nullptr, at, kMiB, 1));
    EXPECT_EQ(CU(cuCtxSynchronize)(), CUDA_ERROR_ILLEGAL_ADDRESS);
    CUdeviceptr more = 0;
    EXPECT_EQ(CU(cuMemAlloc_v2)(&more, size_t{4}), CUDA_ERROR_ILLEGAL_ADDRESS);
    EXPECT_CU(CU(cuDevicePrimaryCtxReset_v2)(0));
    start();
    EXPECT_CU(CU(cuMemAlloc_v2)(&more, size_t{4}));
  });
}
