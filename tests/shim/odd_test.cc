// Ends and orders that no manual shows: calls left by longjmp, handles opened and closed unevenly,
// graphs whose memory outlives them. The slice holds, and its account is the card's.
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include <vector>

#include "abi/env.h"
#include "tests/shim/harness.h"

namespace allot::shim_test {
namespace {

constexpr uint64_t kContextTakes = 512 * kMiB;

sigjmp_buf out_of_the_call;
void jump_out(int) {
  siglongjmp(out_of_the_call, 1);
}

void interrupted_allocation(const Cuda& cuda) {
  CUdeviceptr block = 0;
  if (sigsetjmp(out_of_the_call, 1) == 0) {
    itimerval soon = {};
    soon.it_value.tv_usec = 50'000;
    setitimer(ITIMER_REAL, &soon, nullptr);
    cuda.cuMemAlloc_v2(&block, 4 * kMiB);
    ADD_FAILURE() << "it was to be interrupted";
  }
}

// From as deep as the call that was left, from above it, and from far below it.
[[gnu::noinline]] CUresult from_below(const Cuda& cuda, int steps) {
  volatile char room[2048];
  room[steps % 2048] = 1;
  if (steps > 0) {
    const CUresult result = from_below(cuda, steps - 1);
    room[0] = room[steps % 2048];
    return result;
  }
  CUdeviceptr block = 0;
  return cuda.cuMemAlloc_v2(&block, 3 * kGiB);
}

SLICE_TEST(OddACallThatWasLeftByLongjmpLiftsNoLimit, .memory = "2G",
           .more = {{ALLOT_ENV_SIM_FAULTS,
                     "cuMemAlloc_v2:nth=1:delay_us=300000;cuMemCreate:nth=1:delay_us=300000"}}) {
  const Cuda cuda;
  start_cuda(cuda);
  struct sigaction action = {};
  action.sa_handler = jump_out;
  ASSERT_EQ(sigaction(SIGALRM, &action, nullptr), 0);
  interrupted_allocation(cuda);
  CUdeviceptr block = 0;
  EXPECT_EQ(cuda.cuMemAlloc_v2(&block, 3 * kGiB), CUDA_ERROR_OUT_OF_MEMORY);
  for (int steps : {0, 1, 2, 5, 50}) {
    EXPECT_EQ(from_below(cuda, steps), CUDA_ERROR_OUT_OF_MEMORY) << steps;
  }
  size_t free_bytes = 0, total_bytes = 0;
  ASSERT_EQ(cuda.cuMemGetInfo_v2(&free_bytes, &total_bytes), CUDA_SUCCESS);
  EXPECT_EQ(total_bytes, 2 * kGiB);
}

SLICE_TEST(OddGraphMemoryThatOutlivesItsGraphStaysChargedUntilItIsGone, "4G") {
  const Cuda cuda;
  start_cuda(cuda);
  CUgraph graph = nullptr;
  CUgraphNode node = nullptr;
  CUgraphExec exec = nullptr;
  CUDA_MEM_ALLOC_NODE_PARAMS params = {};
  params.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  params.poolProps.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  params.bytesize = kGiB;
  ASSERT_EQ(cuda.cuGraphCreate(&graph, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuGraphAddMemAllocNode(&node, graph, nullptr, 0, &params), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuGraphInstantiateWithFlags(&exec, graph, 0ull), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuGraphDestroy(graph), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuGraphLaunch(exec, nullptr), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(ledger_used(), physical_used());
  ASSERT_EQ(cuda.cuGraphExecDestroy(exec), CUDA_SUCCESS);
  EXPECT_EQ(ledger_used(), physical_used());
  EXPECT_GE(ledger_used(), kContextTakes + kGiB);
  ASSERT_EQ(cuda.cuMemFree_v2(params.dptr), CUDA_SUCCESS);
  ASSERT_EQ(cuda.cuDeviceGraphMemTrim(0), CUDA_SUCCESS);
  EXPECT_EQ(ledger_used(), physical_used());
  EXPECT_EQ(ledger_used(), kContextTakes);
}

SLICE_TEST(OddPoolBlocksFreedInAnyOrderAroundTheEndOfTheirPool, "4G") {
  const Cuda cuda;
  start_cuda(cuda);
  CUmemPoolProps props = {};
  props.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  props.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  for (int way = 0; way < 4; ++way) {
    CUmemoryPool pool = nullptr;
    CUdeviceptr first = 0, second = 0;
    ASSERT_EQ(cuda.cuMemPoolCreate(&pool, &props), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuMemAllocFromPoolAsync(&first, 64 * kMiB, pool, nullptr), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuMemAllocFromPoolAsync(&second, 64 * kMiB, pool, nullptr), CUDA_SUCCESS);
    if (way % 2 == 0) {
      ASSERT_EQ(cuda.cuMemFree_v2(first), CUDA_SUCCESS);
    }
    ASSERT_EQ(cuda.cuMemPoolDestroy(pool), CUDA_SUCCESS);
    if (way % 2 != 0) {
      ASSERT_EQ(cuda.cuMemFreeAsync(first, nullptr), CUDA_SUCCESS);
    }
    ASSERT_EQ(way < 2 ? cuda.cuMemFreeAsync(second, nullptr) : cuda.cuMemFree_v2(second),
              CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuCtxSynchronize(), CUDA_SUCCESS);
    EXPECT_EQ(ledger_used(), kContextTakes) << way;
    EXPECT_EQ(ledger_used(), physical_used()) << way;
  }
}

SLICE_TEST(OddManagedMemoryEndsWithItsContextWhateverItsPages, "4G") {
  const Cuda cuda;
  ASSERT_EQ(cuda.cuInit(0), CUDA_SUCCESS);
  for (int round = 0; round < 3; ++round) {
    CUcontext context = nullptr;
    CUdeviceptr freed = 0, left = 0;
    ASSERT_EQ(cuda.cuCtxCreate_v2(&context, 0, 0), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuMemAllocManaged(&freed, kGiB, 1), CUDA_SUCCESS);
    ASSERT_EQ(cuda.cuMemAllocManaged(&left, kGiB, 1), CUDA_SUCCESS);
    EXPECT_NE(cuda.cuMemAllocManaged(&left, 2 * kGiB, 1), CUDA_SUCCESS);
    call(cuda, "cuMemPrefetchAsync", freed, size_t{kGiB}, 0, static_cast<CUstream>(nullptr));
    call(cuda, "cuMemPrefetchAsync", freed, size_t{kGiB}, -1, static_cast<CUstream>(nullptr));
    ASSERT_EQ(cuda.cuMemFree_v2(freed), CUDA_SUCCESS);
    EXPECT_EQ(ledger_charged(ALLOT_KIND_MANAGED), kGiB);
    ASSERT_EQ(cuda.cuCtxDestroy_v2(context), CUDA_SUCCESS);
    EXPECT_EQ(ledger_used(), 0u) << round;
  }
}

}  // namespace
}  // namespace allot::shim_test
