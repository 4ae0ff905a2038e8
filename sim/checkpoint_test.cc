// One process takes another's memory off the card and brings it back, by cuCheckpointProcess*.
#include <poll.h>

#include "test_support.h"

using namespace allot::sim_test;

namespace {

constexpr uint64_t kMiB = 1 << 20;

class SimCheckpoint : public Sim {};

CUprocessState state_of(int pid) {
  CUprocessState state = CU_PROCESS_STATE_FAILED;
  EXPECT_CU(CU(cuCheckpointProcessGetState)(pid, &state));
  return state;
}

CUresult lock(int pid, unsigned timeout_ms) {
  CUcheckpointLockArgs args = {};
  args.timeoutMs = timeout_ms;
  return CU(cuCheckpointProcessLock)(pid, &args);
}
CUresult checkpoint(int pid) {
  return CU(cuCheckpointProcessCheckpoint)(pid, nullptr);
}
CUresult restore(int pid) {
  return CU(cuCheckpointProcessRestore)(pid, nullptr);
}
CUresult unlock(int pid) {
  return CU(cuCheckpointProcessUnlock)(pid, nullptr);
}

// Memory of every sort that the card holds, each with a value of its own.
struct Memory {
  CUdeviceptr small = 0, large = 0, pooled = 0, mapped = 0;
  void make() {
    EXPECT_CU(CU(cuMemAlloc_v2)(&small, size_t{4096}));
    EXPECT_CU(CU(cuMemAlloc_v2)(&large, size_t{64 * kMiB}));
    EXPECT_CU(CU(cuMemAllocAsync)(&pooled, size_t{8 * kMiB}, CUstream{nullptr}));
    CUmemAllocationProp prop = {};
    prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    CUmemGenericAllocationHandle handle = 0;
    EXPECT_CU(CU(cuMemCreate)(&handle, size_t{4 * kMiB}, &prop, 0ull));
    EXPECT_CU(CU(cuMemAddressReserve)(&mapped, size_t{4 * kMiB}, size_t{0}, CUdeviceptr{0}, 0ull));
    EXPECT_CU(CU(cuMemMap)(mapped, size_t{4 * kMiB}, size_t{0}, handle, 0ull));
    CUmemAccessDesc access = {};
    access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    EXPECT_CU(CU(cuMemSetAccess)(mapped, size_t{4 * kMiB}, &access, size_t{1}));
    EXPECT_CU(fill(nullptr, small, 1024, 1));
    EXPECT_CU(fill(nullptr, large, 16 * kMiB, 2));
    EXPECT_CU(fill(nullptr, pooled, 2 * kMiB, 3));
    EXPECT_CU(fill(nullptr, mapped, kMiB, 4));
    EXPECT_CU(CU(cuCtxSynchronize)());
  }
  void expect_kept() const {
    EXPECT_EQ(mismatches(small, 1024, 1), 0u);
    EXPECT_EQ(mismatches(large, 16 * kMiB, 2), 0u);
    EXPECT_EQ(mismatches(pooled, 2 * kMiB, 3), 0u);
    EXPECT_EQ(mismatches(mapped, kMiB, 4), 0u);
  }
};

// A process with memory that checks it when told to.
void holder() {
  start();
  Memory memory;
  memory.make();
  tell("ready");
  while (listen() == "check") {
    memory.expect_kept();
    tell("checked");
  }
}

bool answers_within(int pid, int ms) {
  for (int i = 0; i < ms; ++i) {
    CUprocessState state;
    if (CU(cuCheckpointProcessGetState)(pid, &state) != CUDA_SUCCESS) return false;
    poll(nullptr, 0, 1);
  }
  return true;
}

TEST_F(SimCheckpoint, TakesMemoryOffTheCardAndBringsItBackAtItsAddresses) {
  Child target(holder);
  ASSERT_EQ(target.read(), "ready");
  in_child([pid = target.pid()] {
    start();
    const uint64_t before = free_memory();
    EXPECT_GT(nvml_used(0, pid), 580 * kMiB);
    EXPECT_EQ(state_of(pid), CU_PROCESS_STATE_RUNNING);
    EXPECT_CU(lock(pid, 20'000));
    EXPECT_EQ(state_of(pid), CU_PROCESS_STATE_LOCKED);
    EXPECT_CU(checkpoint(pid));
    EXPECT_EQ(state_of(pid), CU_PROCESS_STATE_CHECKPOINTED);
    EXPECT_EQ(nvml_used(0, pid), 0u);
    EXPECT_GT(free_memory(), before + 580 * kMiB);
    // Its pages are ours meanwhile, and what we write there is not seen there.
    CUdeviceptr at = 0;
    const uint64_t all = free_memory() - 64 * kMiB;
    EXPECT_CU(CU(cuMemAlloc_v2)(&at, size_t{all}));
    EXPECT_CU(CU(cuMemsetD32_v2)(at, 0xffffffffu, size_t{256 * kMiB / 4}));
    EXPECT_EQ(restore(pid), CUDA_ERROR_OUT_OF_MEMORY);
    EXPECT_EQ(state_of(pid), CU_PROCESS_STATE_CHECKPOINTED);
    EXPECT_CU(CU(cuMemFree_v2)(at));
    EXPECT_CU(restore(pid));
    EXPECT_EQ(state_of(pid), CU_PROCESS_STATE_LOCKED);
    EXPECT_CU(unlock(pid));
    EXPECT_EQ(free_memory(), before);
  });
  target.write("check");
  EXPECT_EQ(target.read(), "checked");
  target.write("end");
  EXPECT_TRUE(target.finish());
}

TEST_F(SimCheckpoint, CallsWaitUntilTheUnlock) {
  Child target(holder);
  ASSERT_EQ(target.read(), "ready");
  in_child([&target] {
    start();
    const int pid = target.pid();
    ASSERT_CU(lock(pid, 20'000));
    ASSERT_CU(checkpoint(pid));
    target.write("check");
    ASSERT_TRUE(answers_within(pid, 100));  // it still lives, and
    EXPECT_EQ(state_of(pid), CU_PROCESS_STATE_CHECKPOINTED);
    ASSERT_CU(restore(pid));
    ASSERT_CU(unlock(pid));
  });
  EXPECT_EQ(target.read(), "checked");
  target.write("end");
  EXPECT_TRUE(target.finish());
}

// A process whose card is busy for so long when it says "ready".
void busy_for(uint64_t ns) {
  start();
  EXPECT_CU(spin(nullptr, ns));
  tell("ready");
  EXPECT_CU(CU(cuCtxSynchronize)());
  listen();
}

TEST_F(SimCheckpoint, ALockWaitsForRunningWork) {
  Child target([] { busy_for(600'000'000); });
  ASSERT_EQ(target.read(), "ready");
  in_child([pid = target.pid()] {
    start();
    EXPECT_CU(lock(pid, 30'000));
    EXPECT_CU(unlock(pid));
  });
  target.write("end");
  EXPECT_TRUE(target.finish());
}

TEST_F(SimCheckpoint, ALockGivesUpInTime) {
  // Longer than any machine takes from here to the lock; the process is killed at the end.
  Child target([] { busy_for(600'000'000'000); });
  ASSERT_EQ(target.read(), "ready");
  in_child([pid = target.pid()] {
    start();
    EXPECT_EQ(lock(pid, 20), CUDA_ERROR_NOT_READY);
    EXPECT_EQ(state_of(pid), CU_PROCESS_STATE_RUNNING);
  });
}

TEST_F(SimCheckpoint, StatesAreKeptInOrder) {
  Child target(holder);
  ASSERT_EQ(target.read(), "ready");
  in_child([pid = target.pid()] {
    start();
    EXPECT_EQ(checkpoint(pid), CUDA_ERROR_ILLEGAL_STATE);
    EXPECT_EQ(restore(pid), CUDA_ERROR_ILLEGAL_STATE);
    EXPECT_EQ(unlock(pid), CUDA_ERROR_ILLEGAL_STATE);
    EXPECT_CU(lock(pid, 20'000));
    EXPECT_EQ(lock(pid, 20'000), CUDA_ERROR_ILLEGAL_STATE);
    EXPECT_CU(unlock(pid));
    CUprocessState state;
    EXPECT_EQ(CU(cuCheckpointProcessGetState)(1, &state), CUDA_ERROR_INVALID_VALUE);
  });
  target.write("end");
  EXPECT_TRUE(target.finish());
}

TEST_F(SimCheckpoint, ManagedAndSharedMemoryAreRefused) {
  for (const bool managed : {true, false}) {
    Child target([managed] {
      start();
      CUdeviceptr at = 0;
      if (managed) {
        EXPECT_CU(CU(cuMemAllocManaged)(&at, size_t{2 * kMiB}, 1u));
      } else {
        CUipcMemHandle handle;
        EXPECT_CU(CU(cuMemAlloc_v2)(&at, size_t{2 * kMiB}));
        EXPECT_CU(CU(cuIpcGetMemHandle)(&handle, at));
      }
      tell("ready");
      listen();
      EXPECT_CU(CU(cuCtxSynchronize)());
    });
    ASSERT_EQ(target.read(), "ready");
    in_child([pid = target.pid()] {
      start();
      EXPECT_CU(lock(pid, 20'000));
      EXPECT_EQ(checkpoint(pid), CUDA_ERROR_NOT_SUPPORTED);
      EXPECT_CU(unlock(pid));
    });
    target.write("end");
    EXPECT_TRUE(target.finish());
  }
}

TEST_F(SimCheckpoint, WhatAKilledOneHadOnTheHostIsForgotten) {
  Child target(holder);
  ASSERT_EQ(target.read(), "ready");
  in_child([&target] {
    start();
    const uint64_t before = free_memory();
    ASSERT_CU(lock(target.pid(), 20'000));
    ASSERT_CU(checkpoint(target.pid()));
    const uint64_t evicted = free_memory();
    EXPECT_GT(evicted, before);
    ::kill(target.pid(), SIGKILL);
    CUprocessState state;
    for (int i = 0; i < 20'000; ++i) {
      if (CU(cuCheckpointProcessGetState)(target.pid(), &state) != CUDA_SUCCESS) break;
      poll(nullptr, 0, 1);
    }
    EXPECT_EQ(free_memory(), evicted);
    EXPECT_EQ(lock(target.pid(), 100), CUDA_ERROR_INVALID_VALUE);
  });
}

}  // namespace
