// Entries as such: exports, cuGetProcAddress, states before and after, scripted faults.
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "abi/env.h"
#include "driver/entries.h"
#include "test_support.h"

using namespace allot::sim_test;
class SimEntries : public Sim {};

namespace {

CUresult get(const char* name, int version, unsigned long long flags, void** out,
             CUdriverProcAddressQueryResult* status) {
  return CU(cuGetProcAddress_v2)(name, out, version, cuuint64_t{flags}, status);
}

}  // namespace

TEST_F(SimEntries, EveryDriverEntryIsThereAndReachable) {
  in_child([] {
    int entries = 0, reachable = 0;
    for (const allot::driver::Entry& e : allot::driver::cuda().entries()) {
      if (e.since > 13000) continue;
      entries++;
      void* at = cuda_symbol(e.symbol);
      ASSERT_NE(at, nullptr);
      if (e.since == 0) continue;
      void* got = nullptr;
      CUdriverProcAddressQueryResult status{};
      const bool per_thread = e.variant != allot::driver::Variant::kNone;
      ASSERT_CU(get(e.name, e.since, per_thread ? 2 : 1, &got, &status));
      ASSERT_EQ(status, CU_GET_PROC_ADDRESS_SUCCESS) << e.symbol;
      if (got == at) reachable++;
    }
    EXPECT_EQ(entries, 674);
    EXPECT_GE(reachable, 671);  // as on the card's driver
  });
}

TEST_F(SimEntries, ProcAddressHonoursVersionAndFlags) {
  in_child([] {
    void* at = nullptr;
    CUdriverProcAddressQueryResult status{};
    EXPECT_CU(get("cuMemAlloc", 12000, 0, &at, &status));
    EXPECT_EQ(at, cuda_symbol("cuMemAlloc_v2"));
    EXPECT_CU(get("cuMemAlloc", 3000, 0, &at, &status));
    EXPECT_EQ(at, cuda_symbol("cuMemAlloc"));
    EXPECT_CU(get("cuCtxCreate", 11040, 0, &at, &status));
    EXPECT_EQ(at, cuda_symbol("cuCtxCreate_v3"));
    EXPECT_CU(get("cuMemcpyHtoD", 12000, 2, &at, &status));
    EXPECT_EQ(at, cuda_symbol("cuMemcpyHtoD_v2_ptds"));
    EXPECT_CU(get("cuMemAllocAsync", 9000, 0, &at, &status));
    EXPECT_EQ(at, nullptr);
    EXPECT_EQ(status, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT);
    EXPECT_CU(get("cuNoSuchThing", 12000, 0, &at, &status));
    EXPECT_EQ(status, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
    EXPECT_EQ(get("cuMemAlloc", 99000, 0, &at, &status), CUDA_ERROR_INVALID_VALUE);
  });
}

TEST_F(SimEntries, UnsupportedIsNeverSuccess) {
  in_child([] {
    start();
    EXPECT_EQ(CU(cuTexObjectCreate)(nullptr, nullptr, nullptr, nullptr), CUDA_ERROR_NOT_SUPPORTED);
    EXPECT_EQ(CU(cuGraphicsUnmapResources)(0u, nullptr, nullptr), CUDA_ERROR_NOT_SUPPORTED);
    EXPECT_EQ(CU(cuSurfObjectCreate)(nullptr, nullptr), CUDA_ERROR_NOT_SUPPORTED);
    const void* table = nullptr;
    CUuuid id{};
    EXPECT_EQ(CU(cuGetExportTable)(&table, &id), CUDA_ERROR_NOT_FOUND);
    const char* text = nullptr;
    EXPECT_CU(CU(cuGetErrorName)(CUDA_ERROR_OUT_OF_MEMORY, &text));
    EXPECT_STREQ(text, "CUDA_ERROR_OUT_OF_MEMORY");
    char name[64];
    EXPECT_CU(CU(cuDeviceGetName)(&name[0], 64, 0));
    EXPECT_STREQ(name, "Software GPU (allot)");
  });
}

TEST_F(SimEntries, NothingWorksBeforeInit) {
  in_child([] {
    int n = 0;
    CUdeviceptr at = 0;
    EXPECT_EQ(CU(cuDeviceGetCount)(&n), CUDA_ERROR_NOT_INITIALIZED);
    EXPECT_EQ(CU(cuMemAlloc_v2)(&at, size_t{4}), CUDA_ERROR_NOT_INITIALIZED);
    EXPECT_CU(CU(cuDriverGetVersion)(&n));
    EXPECT_EQ(n, 13000);
    EXPECT_CU(CU(cuInit)(0u));
    EXPECT_EQ(CU(cuMemAlloc_v2)(&at, size_t{4}), CUDA_ERROR_INVALID_CONTEXT);
  });
}

TEST_F(SimEntries, ScriptedFaultsComeWhenTheyShould) {
  setenv(ALLOT_ENV_SIM_FAULTS,
         "cuMemAlloc_v2:nth=3:result=2;cuStreamCreate:delay_us=30000;rm:SET_TIMESLICE:status=0x56",
         1);
  in_child([] {
    start();
    CUdeviceptr at = 0;
    EXPECT_CU(CU(cuMemAlloc_v2)(&at, size_t{4}));
    EXPECT_CU(CU(cuMemAlloc_v2)(&at, size_t{4}));
    EXPECT_EQ(CU(cuMemAlloc_v2)(&at, size_t{4}), CUDA_ERROR_OUT_OF_MEMORY);
    EXPECT_CU(CU(cuMemAlloc_v2)(&at, size_t{4}));
    const int64_t from = clock_ns();
    CUstream s = nullptr;
    EXPECT_CU(CU(cuStreamCreate)(&s, 0u));
    EXPECT_GE(clock_ns() - from, 30'000'000);
    auto* call =
        reinterpret_cast<int (*)(int, unsigned long, void*)>(cuda_symbol("allot_sim_ioctl"));
    NVA06C_CTRL_TIMESLICE_PARAMS slice{1000};
    NVOS54_PARAMETERS p{
        1, 2, NVA06C_CTRL_CMD_SET_TIMESLICE, 0, reinterpret_cast<uint64_t>(&slice), sizeof slice,
        0};
    EXPECT_EQ(call(-1, ALLOT_RM_CONTROL, &p), 0);
    EXPECT_EQ(p.status, 0x56u);
  });
}

TEST_F(SimEntries, SmallBlocksAndLaunchesAreCheap) {
  in_child([] {
    start();
    std::vector<CUdeviceptr> live(100'000);
    for (CUdeviceptr& at : live) ASSERT_CU(CU(cuMemAlloc_v2)(&at, size_t{512}));
    double best_alloc = 1e9, best_launch = 1e9;
    for (int round = 0; round < 20; round++) {
      int64_t from = clock_ns();
      for (int i = 0; i < 1000; i++) {
        CUdeviceptr at = 0;
        CU(cuMemAlloc_v2)(&at, size_t{512});
        CU(cuMemFree_v2)(at);
      }
      best_alloc = std::min(best_alloc, static_cast<double>(clock_ns() - from) / 1000);
      EXPECT_CU(spin(nullptr, 2'000'000));  // the executor sleeps while the rest is queued
      from = clock_ns();
      for (int i = 0; i < 200; i++) EXPECT_CU(spin(nullptr, 1));
      best_launch = std::min(best_launch, static_cast<double>(clock_ns() - from) / 200);
      EXPECT_CU(CU(cuCtxSynchronize)());
    }
    printf("alloc+free %.0f ns at 100,000 live blocks, launch %.0f ns\n", best_alloc, best_launch);
    fflush(stdout);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && defined(NDEBUG)
    EXPECT_LT(best_alloc, 2000);
    EXPECT_LT(best_launch, 2000);
#endif
  });
}
