// Streams, events, host functions and launches: order, times, and what must not deadlock.
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "test_support.h"

using namespace allot::sim_test;
class SimStreams : public Sim {};

namespace {

CUstream make(unsigned flags = CU_STREAM_NON_BLOCKING) {
  CUstream s = nullptr;
  EXPECT_CU(CU(cuStreamCreate)(&s, flags));
  return s;
}

CUevent mark(CUstream s) {
  CUevent e = nullptr;
  EXPECT_CU(CU(cuEventCreate)(&e, 0u));
  EXPECT_CU(CU(cuEventRecord)(e, s));
  return e;
}

float between(CUevent a, CUevent b) {
  float ms = -1;
  EXPECT_CU(CU(cuEventElapsedTime)(&ms, a, b));
  return ms;
}

std::atomic<int> g_step{0};
void wait_for_step_1(void*) {
  while (g_step < 1) usleep(100);
}
void add_step(void*) {
  g_step++;
}
void callback(CUstream, CUresult status, void* data) {
  *static_cast<std::atomic<int>*>(data) = static_cast<int>(status) + 100;
}

}  // namespace

TEST_F(SimStreams, KernelsTakeTheirTime) {
  in_child([] {
    start();
    CUstream s = make();
    EXPECT_CU(spin(s, 1));  // loads the module
    CUevent a = mark(s);
    const int64_t from = clock_ns();
    for (int i = 0; i < 20; i++) EXPECT_CU(spin(s, 5'000'000));
    CUevent b = mark(s);
    EXPECT_LT(clock_ns() - from, 90'000'000);  // launches do not wait
    EXPECT_EQ(CU(cuStreamQuery)(s), CUDA_ERROR_NOT_READY);
    EXPECT_EQ(CU(cuEventQuery)(b), CUDA_ERROR_NOT_READY);
    EXPECT_CU(CU(cuStreamSynchronize)(s));
    EXPECT_GE(clock_ns() - from, 100'000'000);
    EXPECT_CU(CU(cuEventQuery)(b));
    EXPECT_NEAR(between(a, b), 100, 2);
  });
}

TEST_F(SimStreams, ShortKernelsKeepTheirPace) {
  in_child([] {
    start();
    CUstream s = make();
    EXPECT_CU(spin(s, 400'000'000));  // time to queue the rest
    CUevent a = mark(s);
    for (int i = 0; i < 900; i++) EXPECT_CU(spin(s, 20'000));
    CUevent b = mark(s);
    EXPECT_CU(CU(cuStreamSynchronize)(s));
    EXPECT_NEAR(between(a, b), 18, 2);  // waking up late is made up for
  });
}

TEST_F(SimStreams, EventsOrderAcrossStreams) {
  in_child([] {
    start();
    CUstream a = make(), b = make();
    CUdeviceptr at = 0;
    EXPECT_CU(CU(cuMemAlloc_v2)(&at, size_t{1 << 20}));
    EXPECT_CU(spin(a, 30'000'000));
    EXPECT_CU(fill(a, at, 1000, 1));
    CUevent done = mark(a);
    EXPECT_CU(CU(cuStreamWaitEvent)(b, done, 0u));
    EXPECT_CU(fill(b, at, 1000, 2));
    EXPECT_CU(CU(cuStreamSynchronize)(b));
    EXPECT_EQ(mismatches(at, 1000, 2), 0u);
    EXPECT_CU(CU(cuEventQuery)(done));
    EXPECT_CU(CU(cuEventDestroy_v2)(done));
    EXPECT_EQ(CU(cuEventQuery)(done), CUDA_ERROR_INVALID_HANDLE);
    EXPECT_CU(CU(cuStreamDestroy_v2)(a));
    EXPECT_EQ(spin(a, 1), CUDA_ERROR_INVALID_HANDLE);
  });
}

TEST_F(SimStreams, LegacyStreamWaitsForBlockingOnesOnly) {
  in_child([] {
    start();
    CUstream blocking = make(0), free_running = make();
    EXPECT_CU(spin(blocking, 50'000'000));
    CUevent b = mark(blocking);
    EXPECT_CU(spin(nullptr, 1000));
    CUevent legacy = mark(nullptr);
    EXPECT_CU(spin(blocking, 1000));
    CUevent after = mark(blocking);
    EXPECT_CU(CU(cuEventSynchronize)(after));
    EXPECT_GE(between(b, legacy), 0.0f);
    EXPECT_GE(between(legacy, after), 0.0f);
    // A stream that waits for the host holds nobody up but its own work.
    CUdeviceptr flag = 0;
    EXPECT_CU(CU(cuMemAlloc_v2)(&flag, size_t{4}));
    EXPECT_CU(CU(cuMemsetD32_v2)(flag, 0u, size_t{1}));
    EXPECT_CU(CU(cuCtxSynchronize)());
    EXPECT_CU(CU(cuStreamWaitValue32_v2)(free_running, flag, cuuint32_t{5},
                                         unsigned{CU_STREAM_WAIT_VALUE_EQ}));
    EXPECT_CU(spin(nullptr, 1000));
    EXPECT_CU(CU(cuStreamSynchronize)(CUstream{nullptr}));
    EXPECT_EQ(CU(cuStreamQuery)(free_running), CUDA_ERROR_NOT_READY);
    EXPECT_CU(CU(cuStreamWriteValue32_v2)(blocking, flag, cuuint32_t{5}, 0u));
    EXPECT_CU(CU(cuStreamSynchronize)(free_running));
  });
}

TEST_F(SimStreams, HostFunctionsMayWaitForOtherStreams) {
  in_child([] {
    start();
    CUstream a = make(), b = make();
    EXPECT_CU(CU(cuLaunchHostFunc)(a, CUhostFn{wait_for_step_1}, static_cast<void*>(nullptr)));
    EXPECT_CU(spin(b, 1000));
    EXPECT_CU(CU(cuStreamSynchronize)(b));
    EXPECT_EQ(CU(cuStreamQuery)(a), CUDA_ERROR_NOT_READY);
    add_step(nullptr);
    EXPECT_CU(CU(cuStreamSynchronize)(a));
    std::atomic<int> told{0};
    EXPECT_CU(CU(cuStreamAddCallback)(a, &callback, static_cast<void*>(&told), 0u));
    EXPECT_CU(CU(cuLaunchHostFunc)(a, CUhostFn{add_step}, static_cast<void*>(nullptr)));
    EXPECT_CU(CU(cuStreamSynchronize)(a));
    EXPECT_EQ(told, 100);
    EXPECT_EQ(g_step, 2);
  });
}

TEST_F(SimStreams, LegacyWorkNeverPassesBlockingWorkThatWaits) {
  in_child([] {
    start();
    CUstream blocking = make(0);
    EXPECT_CU(
        CU(cuLaunchHostFunc)(blocking, CUhostFn{wait_for_step_1}, static_cast<void*>(nullptr)));
    EXPECT_CU(spin(nullptr, 1000));
    CUevent legacy = mark(nullptr);
    CUstream free_running = make();
    EXPECT_CU(spin(free_running, 5'000'000));  // has its turn meanwhile
    EXPECT_CU(CU(cuStreamSynchronize)(free_running));
    EXPECT_EQ(CU(cuEventQuery)(legacy), CUDA_ERROR_NOT_READY);
    add_step(nullptr);
    EXPECT_CU(CU(cuEventSynchronize)(legacy));
    EXPECT_CU(CU(cuStreamQuery)(blocking));
  });
}

TEST_F(SimStreams, FullQueueMakesTheLaunchWait) {
  in_child([] {
    start();
    CUstream s = make();
    const int64_t from = clock_ns();
    for (int i = 0; i < 1200; i++) EXPECT_CU(spin(s, 200'000));
    const int64_t launched = clock_ns() - from;
    EXPECT_GE(launched, 25'000'000);  // about 1200 - 1024 kernels had to end first
    EXPECT_CU(CU(cuStreamSynchronize)(s));
    EXPECT_GE(clock_ns() - from, 240'000'000);
  });
}

TEST_F(SimStreams, ThreadsHaveStreamsOfTheirOwn) {
  in_child([] {
    CUcontext context = start();
    EXPECT_CU(spin(nullptr, 1));
    std::vector<std::thread> threads;
    std::atomic<int> ended{0};
    for (int t = 0; t < 4; t++) {
      threads.emplace_back([&] {
        EXPECT_CU(CU(cuCtxSetCurrent)(context));
        for (int i = 0; i < 50; i++) EXPECT_CU(spin(CU_STREAM_PER_THREAD, 10'000));
        EXPECT_CU(CU(cuStreamSynchronize_ptsz)(CUstream{nullptr}));
        ended++;
      });
    }
    for (std::thread& t : threads) t.join();
    EXPECT_EQ(ended, 4);
    EXPECT_CU(CU(cuCtxSynchronize)());
  });
}

TEST_F(SimStreams, LaunchesAreChecked) {
  in_child([] {
    start();
    const auto launch = [](CUfunction f, unsigned threads) {
      return CU(cuLaunchKernel)(f, 1u, 1u, 1u, threads, 1u, 1u, 0u, CUstream{nullptr},
                                static_cast<void**>(nullptr), static_cast<void**>(nullptr));
    };
    EXPECT_CU(launch(function("nothing"), 32));
    EXPECT_EQ(launch(function("nothing"), 2048), CUDA_ERROR_INVALID_VALUE);
    char blob[24] = {};
    unsigned n = 0;
    void* arguments[] = {blob, &n};
    EXPECT_EQ(CU(cuLaunchKernel)(function("stranger"), 1u, 1u, 1u, 32u, 1u, 1u, 0u,
                                 CUstream{nullptr}, &arguments[0], static_cast<void**>(nullptr)),
              CUDA_ERROR_NOT_SUPPORTED);
    EXPECT_EQ(launch(function("allot_spin"), 32), CUDA_ERROR_INVALID_VALUE);  // no parameters given
    size_t offset = 0, bytes = 0;
    EXPECT_CU(CU(cuFuncGetParamInfo)(function("stranger"), size_t{1}, &offset, &bytes));
    EXPECT_EQ(offset, 24u);
    EXPECT_EQ(bytes, 4u);
    CUmodule module = nullptr;
    EXPECT_EQ(CU(cuModuleLoadData)(&module, static_cast<const void*>("\177ELF and so on")),
              CUDA_ERROR_NO_BINARY_FOR_GPU);
    EXPECT_EQ(CU(cuModuleLoadData)(&module, static_cast<const void*>("hello")),
              CUDA_ERROR_INVALID_PTX);
    const char globals[] =
        ".version 7.0\n.target sm_70\n.global .align 4 .u32 counter[3] = {7, 8};\n";
    CUdeviceptr at = 0;
    unsigned values[3] = {};
    EXPECT_CU(CU(cuModuleLoadData)(&module, static_cast<const void*>(globals)));
    EXPECT_CU(CU(cuModuleGetGlobal_v2)(&at, &bytes, module, "counter"));
    EXPECT_EQ(bytes, 12u);
    EXPECT_CU(CU(cuMemcpyDtoH_v2)(static_cast<void*>(values), at, bytes));
    EXPECT_EQ(values[0], 7u);
    EXPECT_EQ(values[1], 8u);
    EXPECT_EQ(values[2], 0u);
  });
}

TEST_F(SimStreams, ContextsEndWithWorkUnderWay) {
  in_child([] {
    start();
    CUcontext second = nullptr;
    EXPECT_CU(CU(cuCtxCreate_v2)(&second, 0u, 0));
    CUfunction f = function("allot_spin");
    uint64_t ns = 60'000'000'000, sink = 0;
    void* arguments[] = {&ns, &sink};
    EXPECT_CU(CU(cuLaunchKernel)(f, 1u, 1u, 1u, 32u, 1u, 1u, 0u, CUstream{nullptr}, &arguments[0],
                                 static_cast<void**>(nullptr)));
    usleep(5'000);
    const int64_t from = clock_ns();
    EXPECT_CU(CU(cuCtxDestroy_v2)(second));
    EXPECT_LT(clock_ns() - from, 5'000'000'000);
    EXPECT_CU(spin(nullptr, 1000));
    EXPECT_CU(CU(cuCtxSynchronize)());
  });
}
