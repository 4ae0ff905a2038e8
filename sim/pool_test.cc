// Stream-ordered pools, virtual memory management, and memory shared between processes.
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vector>

#include "test_support.h"

using namespace allot::sim_test;
class SimPools : public Sim {};

namespace {

constexpr uint64_t kMiB = 1 << 20;

uint64_t attribute(CUmemoryPool pool, CUmemPool_attribute which) {
  cuuint64_t v = 0;
  EXPECT_CU(CU(cuMemPoolGetAttribute)(pool, which, static_cast<void*>(&v)));
  return v;
}

CUmemoryPool default_pool() {
  CUmemoryPool pool = nullptr;
  EXPECT_CU(CU(cuDeviceGetDefaultMemPool)(&pool, 0));
  return pool;
}

CUmemAllocationProp prop(bool exportable = false) {
  CUmemAllocationProp p{};
  p.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  p.location = CUmemLocation{CU_MEM_LOCATION_TYPE_DEVICE, 0};
  if (exportable) p.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  return p;
}

CUdeviceptr map(CUmemGenericAllocationHandle handle, size_t bytes) {
  CUdeviceptr va = 0;
  EXPECT_CU(CU(cuMemAddressReserve)(&va, bytes, size_t{0}, CUdeviceptr{0}, 0ull));
  EXPECT_CU(CU(cuMemMap)(va, bytes, size_t{0}, handle, 0ull));
  const CUmemAccessDesc access{{CU_MEM_LOCATION_TYPE_DEVICE, 0},
                               CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  EXPECT_CU(CU(cuMemSetAccess)(va, bytes, &access, size_t{1}));
  return va;
}

}  // namespace

TEST_F(SimPools, ReserveInStepsAndReleaseAtTheSync) {
  in_child([] {
    start();
    CUmemoryPool pool = default_pool();
    CUstream s = nullptr;
    EXPECT_CU(CU(cuStreamCreate)(&s, 1u));
    const uint64_t before = free_memory();
    for (const auto& [bytes, reserved] :
         {std::pair<uint64_t, uint64_t>{1, 32}, {33 * kMiB, 64}, {100 * kMiB, 128}}) {
      CUdeviceptr at = 0;
      EXPECT_CU(CU(cuMemAllocAsync)(&at, size_t{bytes}, s));
      EXPECT_CU(CU(cuStreamSynchronize)(s));
      EXPECT_EQ(attribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT), reserved * kMiB);
      EXPECT_EQ(attribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT), bytes);
      EXPECT_EQ(before - free_memory(), reserved * kMiB);
      EXPECT_CU(CU(cuMemFreeAsync)(at, s));
      EXPECT_EQ(attribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT), reserved * kMiB);
      EXPECT_CU(CU(cuStreamSynchronize)(s));
      EXPECT_EQ(attribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT), 0u);
      EXPECT_EQ(before, free_memory());
    }
    cuuint64_t keep = UINT64_MAX;
    EXPECT_CU(CU(cuMemPoolSetAttribute)(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
                                        static_cast<void*>(&keep)));
    CUdeviceptr at = 0;
    EXPECT_CU(CU(cuMemAllocAsync)(&at, size_t{100 * kMiB}, s));
    EXPECT_CU(CU(cuMemFreeAsync)(at, s));
    EXPECT_CU(CU(cuStreamSynchronize)(s));
    EXPECT_EQ(before - free_memory(), 128 * kMiB);
    EXPECT_CU(CU(cuMemPoolTrimTo)(pool, size_t{0}));
    EXPECT_EQ(before, free_memory());
  });
}

TEST_F(SimPools, OneStreamReusesWhatItFreed) {
  in_child([] {
    start();
    CUmemoryPool pool = default_pool();
    CUstream s = nullptr, other = nullptr;
    EXPECT_CU(CU(cuStreamCreate)(&s, 1u));
    EXPECT_CU(CU(cuStreamCreate)(&other, 1u));
    EXPECT_CU(spin(s, 50'000'000));
    CUdeviceptr first = 0, again = 0, elsewhere = 0;
    EXPECT_CU(CU(cuMemAllocAsync)(&first, size_t{30 * kMiB}, s));
    EXPECT_CU(CU(cuMemFreeAsync)(first, s));
    EXPECT_CU(
        CU(cuMemAllocAsync)(&elsewhere, size_t{30 * kMiB}, other));  // s has not got past the free
    EXPECT_NE(first, elsewhere);
    EXPECT_CU(CU(cuMemAllocAsync)(&again, size_t{30 * kMiB}, s));
    EXPECT_EQ(first, again);
    EXPECT_EQ(attribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT), 64 * kMiB);
    EXPECT_CU(CU(cuMemFree_v2)(again));
    EXPECT_CU(CU(cuMemFreeAsync)(elsewhere, other));
    EXPECT_CU(CU(cuCtxSynchronize)());
    EXPECT_EQ(attribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT), 0u);
    EXPECT_EQ(attribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT), 0u);
  });
}

TEST_F(SimPools, ExplicitPoolsHaveALimitAndAnEnd) {
  in_child([] {
    start();
    const uint64_t before = free_memory();
    CUmemPoolProps p{};
    p.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    p.location = CUmemLocation{CU_MEM_LOCATION_TYPE_DEVICE, 0};
    p.maxSize = 64 * kMiB;
    CUmemoryPool pool = nullptr;
    EXPECT_CU(CU(cuMemPoolCreate)(&pool, static_cast<const CUmemPoolProps*>(&p)));
    CUdeviceptr a = 0, b = 0;
    EXPECT_CU(CU(cuMemAllocFromPoolAsync)(&a, size_t{60 * kMiB}, pool, CUstream{nullptr}));
    EXPECT_EQ(CU(cuMemAllocFromPoolAsync)(&b, size_t{30 * kMiB}, pool, CUstream{nullptr}),
              CUDA_ERROR_OUT_OF_MEMORY);
    EXPECT_CU(CU(cuMemFreeAsync)(a, CUstream{nullptr}));
    EXPECT_CU(CU(cuCtxSynchronize)());
    EXPECT_CU(CU(cuMemPoolDestroy)(pool));
    EXPECT_EQ(before, free_memory());
    EXPECT_EQ(CU(cuMemPoolDestroy)(pool), CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(CU(cuMemPoolDestroy)(default_pool()), CUDA_ERROR_INVALID_VALUE);
  });
}

TEST_F(SimPools, VirtualMemoryStaysWhileMapped) {
  in_child([] {
    start();
    const uint64_t before = free_memory(), nvml = nvml_used(0, getpid());
    const CUmemAllocationProp p = prop();
    CUmemGenericAllocationHandle handle = 0, same = 0;
    EXPECT_EQ(CU(cuMemCreate)(&handle, size_t{kMiB}, &p, 0ull), CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(CU(cuMemCreate)(&handle, size_t{8192 * kMiB}, &p, 0ull), CUDA_ERROR_OUT_OF_MEMORY);
    EXPECT_CU(CU(cuMemCreate)(&handle, size_t{64 * kMiB}, &p, 0ull));
    EXPECT_EQ(before - free_memory(), 64 * kMiB);
    EXPECT_EQ(nvml_used(0, getpid()) - nvml, 64 * kMiB);
    const CUdeviceptr va = map(handle, 64 * kMiB);
    EXPECT_CU(CU(cuMemRetainAllocationHandle)(&same, reinterpret_cast<void*>(va)));
    EXPECT_EQ(handle, same);
    EXPECT_CU(fill(nullptr, va, 16 * kMiB, 8));
    EXPECT_EQ(mismatches(va, 16 * kMiB, 8), 0u);
    EXPECT_CU(CU(cuMemRelease)(handle));
    EXPECT_CU(CU(cuMemRelease)(handle));
    EXPECT_EQ(CU(cuMemRelease)(handle), CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(before - free_memory(), 64 * kMiB);
    EXPECT_EQ(CU(cuMemAddressFree)(va, size_t{64 * kMiB}), CUDA_ERROR_INVALID_VALUE);
    EXPECT_CU(CU(cuMemUnmap)(va, size_t{64 * kMiB}));
    EXPECT_EQ(before, free_memory());
    EXPECT_EQ(fill(nullptr, va, 4, 8), CUDA_SUCCESS);  // nothing stands there any more
    EXPECT_EQ(CU(cuCtxSynchronize)(), CUDA_ERROR_ILLEGAL_ADDRESS);
  });
}

TEST_F(SimPools, IpcMemoryIsOneMemory) {
  Child owner([] {
    start();
    CUdeviceptr at = 0, small = 0;
    EXPECT_CU(CU(cuMemAlloc_v2)(&small, size_t{512}));
    EXPECT_CU(CU(cuMemAlloc_v2)(&at, size_t{4096}));
    EXPECT_CU(fill(nullptr, at, 1024, 0x1234));
    EXPECT_CU(CU(cuCtxSynchronize)());
    CUipcMemHandle handle{};
    EXPECT_CU(CU(cuIpcGetMemHandle)(&handle, at));
    std::string text;
    for (unsigned char c : std::string(handle.reserved, 64)) {
      text += "0123456789abcdef"[c >> 4];
      text += "0123456789abcdef"[c & 15];
    }
    tell(text);
    listen();
    EXPECT_EQ(mismatches(at, 1024, 0x5678), 0u);  // what the other wrote
    pause();
  });
  const std::string text = owner.read();
  ASSERT_EQ(text.size(), 128u);
  Child user([&] {
    start();
    CUipcMemHandle handle{};
    for (size_t i = 0; i < 64; i++) {
      handle.reserved[i] = static_cast<char>(std::stoi(text.substr(2 * i, 2), nullptr, 16));
    }
    const uint64_t before = free_memory();
    CUdeviceptr at = 0;
    // The entry takes the 64 bytes by value.
    auto* open = reinterpret_cast<CUresult (*)(CUdeviceptr*, CUipcMemHandle, unsigned)>(
        cuda_symbol("cuIpcOpenMemHandle_v2"));
    EXPECT_CU(open(&at, handle, 1));
    EXPECT_EQ(before, free_memory());
    EXPECT_EQ(mismatches(at, 1024, 0x1234), 0u);
    EXPECT_CU(fill(nullptr, at, 1024, 0x5678));
    EXPECT_CU(CU(cuCtxSynchronize)());
    tell("written");
    listen();  // now the owner is dead
    EXPECT_EQ(mismatches(at, 1024, 0x5678), 0u);
    const uint64_t held = free_memory();
    EXPECT_CU(CU(cuIpcCloseMemHandle)(at));
    EXPECT_EQ(free_memory() - held, 2 * kMiB);  // the last holder gave it back
    EXPECT_EQ(open(&at, handle, 1), CUDA_ERROR_INVALID_VALUE);
  });
  EXPECT_EQ(user.read(), "written");
  owner.write("look");
  owner.kill();
  user.write("go");
  EXPECT_TRUE(user.finish());
}

TEST_F(SimPools, ExportedHandlesTravelAsFiles) {
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  Child owner([&] {
    start();
    const CUmemAllocationProp plain = prop(), p = prop(true);
    CUmemGenericAllocationHandle handle = 0;
    int fd = -1;
    EXPECT_CU(CU(cuMemCreate)(&handle, size_t{4 * kMiB}, &plain, 0ull));
    EXPECT_EQ(CU(cuMemExportToShareableHandle)(static_cast<void*>(&fd), handle,
                                               CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0ull),
              CUDA_ERROR_INVALID_VALUE);
    EXPECT_CU(CU(cuMemCreate)(&handle, size_t{4 * kMiB}, &p, 0ull));
    const CUdeviceptr va = map(handle, 4 * kMiB);
    EXPECT_CU(fill(nullptr, va, kMiB, 0x77));
    EXPECT_CU(CU(cuCtxSynchronize)());
    EXPECT_CU(CU(cuMemExportToShareableHandle)(static_cast<void*>(&fd), handle,
                                               CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0ull));
    tell(std::to_string(fd));
    listen();
  });
  const int fd = std::stoi(owner.read());
  const int owner_pid = owner.pid();
  Child user([&] {
    start();
    const long pidfd = syscall(SYS_pidfd_open, owner_pid, 0);
    const long mine = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
    if (mine < 0) return;  // not permitted here: nothing to test with
    CUmemGenericAllocationHandle handle = 0;
    EXPECT_CU(CU(cuMemImportFromShareableHandle)(&handle, reinterpret_cast<void*>(mine),
                                                 CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
    const CUdeviceptr va = map(handle, 4 * kMiB);
    EXPECT_EQ(mismatches(va, kMiB, 0x77), 0u);
  });
  EXPECT_TRUE(user.finish());
  owner.write("go");
  EXPECT_TRUE(owner.finish());
  close(pair[0]);
  close(pair[1]);
}
