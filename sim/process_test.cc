// Several processes on one machine, processes that die, and several GPUs.
#include <unistd.h>

#include "test_support.h"

using namespace allot::sim_test;
class SimProcesses : public Sim {};

namespace {
constexpr uint64_t kMiB = 1 << 20;
}

TEST_F(SimProcesses, SeeOneCardAndTheirOwnMemory) {
  Child first([] {
    start();
    CUdeviceptr at = 0;
    EXPECT_CU(CU(cuMemAlloc_v2)(&at, size_t{1024 * kMiB}));
    EXPECT_CU(fill(nullptr, at, 1024, 0x11111111));
    EXPECT_CU(CU(cuCtxSynchronize)());
    tell("ready");
    listen();
    EXPECT_EQ(mismatches(at, 1024, 0x11111111), 0u);
  });
  EXPECT_EQ(first.read(), "ready");
  const int first_pid = first.pid();
  in_child([first_pid] {
    start();
    EXPECT_EQ(free_memory(), (4096 - 2 * 512 - 1024) * kMiB);
    EXPECT_EQ(nvml_used(0, first_pid), 1536 * kMiB);
    EXPECT_EQ(nvml_used(0, getpid()), 512 * kMiB);
    CUdeviceptr at = 0;
    EXPECT_CU(CU(cuMemAlloc_v2)(&at, size_t{1024 * kMiB}));
    EXPECT_EQ(mismatches(at, kMiB, 0), 0u);  // nothing of the other's shows
    CUdeviceptr more = 0;
    EXPECT_EQ(CU(cuMemAlloc_v2)(&more, size_t{1025 * kMiB}), CUDA_ERROR_OUT_OF_MEMORY);
  });
  first.write("go");
  EXPECT_TRUE(first.finish());
}

TEST_F(SimProcesses, KilledOneGivesItsMemoryBackAtOnce) {
  Child victim([] {
    start();
    CUdeviceptr at = 0;
    EXPECT_CU(CU(cuMemAlloc_v2)(&at, size_t{1000 * kMiB}));
    EXPECT_CU(CU(cuMemsetD32_v2)(at, 0xffffffffu, size_t{kMiB}));
    EXPECT_CU(spin(nullptr, 60'000'000'000));  // and it holds the GPU
    tell("ready");
    pause();
  });
  EXPECT_EQ(victim.read(), "ready");
  Child other([] {
    start();
    tell("ready");
    listen();
    EXPECT_EQ(free_memory(), (4096 - 512) * kMiB);
    CUdeviceptr at = 0;
    EXPECT_CU(CU(cuMemAlloc_v2)(&at, size_t{3500 * kMiB}));
    EXPECT_EQ(mismatches(at, kMiB, 0), 0u);         // runs on the GPU the other held
    for (uint64_t page = 0; page < 1750; page++) {  // and finds nothing of the other's anywhere
      uint32_t word = 1;
      EXPECT_CU(CU(cuMemcpyDtoH_v2)(static_cast<void*>(&word), at + page * 2 * kMiB, size_t{4}));
      EXPECT_EQ(word, 0u);
    }
  });
  EXPECT_EQ(other.read(), "ready");
  victim.kill();
  other.write("go");
  EXPECT_TRUE(other.finish());
}

TEST_F(SimProcesses, ForkedChildCannotUseTheParentsDriver) {
  in_child([] {
    start();
    CUdeviceptr at = 0;
    EXPECT_CU(CU(cuMemAlloc_v2)(&at, size_t{64 * kMiB}));
    EXPECT_TRUE(Child([at] {
                  CUdeviceptr mine = at;
                  EXPECT_EQ(CU(cuMemAlloc_v2)(&mine, size_t{4}), CUDA_ERROR_NOT_INITIALIZED);
                  EXPECT_EQ(CU(cuInit)(0u), CUDA_ERROR_NOT_INITIALIZED);
                }).finish());
    EXPECT_EQ(free_memory(), (4096 - 512 - 64) * kMiB);  // its exit took nothing of ours
    EXPECT_CU(CU(cuMemFree_v2)(at));
  });
}

TEST_F(SimProcesses, DevicesFollowTheEnvironment) {
  gpus("1G,2G,3G");
  in_child([] {
    start(2);
    size_t bytes = 0;
    EXPECT_CU(CU(cuDeviceTotalMem_v2)(&bytes, 2));
    EXPECT_EQ(bytes, 3072 * kMiB);
    CUuuid a{}, b{};
    EXPECT_CU(CU(cuDeviceGetUuid)(&a, 0));
    EXPECT_CU(CU(cuDeviceGetUuid)(&b, 1));
    EXPECT_NE(std::string(a.bytes, 16), std::string(b.bytes, 16));
  });
  Child names([] {
    nvmlDevice_t device = nullptr;
    char text[96];
    EXPECT_EQ(NVML(nvmlInit_v2)(), NVML_SUCCESS);
    EXPECT_EQ(NVML(nvmlDeviceGetHandleByIndex_v2)(1u, &device), NVML_SUCCESS);
    EXPECT_EQ(NVML(nvmlDeviceGetUUID)(device, &text[0], unsigned{sizeof text}), NVML_SUCCESS);
    tell(text);
  });
  const std::string uuid = names.read();
  EXPECT_TRUE(names.finish());
  const auto first_size = [](const std::string& visible) {
    Child child([&] {
      setenv("CUDA_VISIBLE_DEVICES", visible.c_str(), 1);
      size_t bytes = 0;
      int count = 0;
      if (CU(cuInit)(0u) == CUDA_SUCCESS) {
        EXPECT_CU(CU(cuDeviceGetCount)(&count));
        EXPECT_CU(CU(cuDeviceTotalMem_v2)(&bytes, 0));
      }
      tell(std::to_string(count) + ":" + std::to_string(bytes / kMiB));
    });
    const std::string answer = child.read();
    EXPECT_TRUE(child.finish());
    return answer;
  };
  EXPECT_EQ(first_size("2,0"), "2:3072");
  EXPECT_EQ(first_size("1,7,0"), "1:2048");
  EXPECT_EQ(first_size(uuid), "1:2048");
  EXPECT_EQ(first_size(""), "0:0");
}

TEST_F(SimProcesses, AnotherConfigurationIsRefusedWhileTheMachineIsInUse) {
  Child user([] {
    start();
    tell("ready");
    listen();
  });
  EXPECT_EQ(user.read(), "ready");
  gpus("2x8G");
  in_child([] { EXPECT_EQ(CU(cuInit)(0u), CUDA_ERROR_SYSTEM_NOT_READY); });
  user.write("go");
  EXPECT_TRUE(user.finish());
  in_child([] {
    int count = 0;
    EXPECT_CU(CU(cuInit)(0u));
    EXPECT_CU(CU(cuDeviceGetCount)(&count));
    EXPECT_EQ(count, 2);
  });
  gpus("8X");
  in_child([] { EXPECT_EQ(CU(cuInit)(0u), CUDA_ERROR_INVALID_VALUE); });
}
