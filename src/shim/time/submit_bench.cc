// What a submission costs before it reaches the driver: not watched, watched, through the open
// gate.
//
// The driver is a function that does nothing, so the figures are the hooks' own; `allot bench
// hooks` has them in front of a real one.
#include <benchmark/benchmark.h>

#include <cstring>

#include "shim/process/driver_call.h"
#include "shim/process/process.h"
#include "shim/time/launch_gate.h"
#include "shim/time/streams.h"
#include "shim/time/submit.h"

namespace allot::shim {

constinit Process process;
constinit thread_local uint32_t hook_depth = 0;
void wait_for_start() {}

namespace {

using Launch = CUresult (*)(uint64_t, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                            unsigned, uint64_t, uint64_t, uint64_t);

[[gnu::noinline]] CUresult nothing() {
  return CUDA_SUCCESS;
}
CUresult current(CUcontext* context) {
  *context = reinterpret_cast<CUcontext>(0x1000);
  return CUDA_SUCCESS;
}
CUresult make_event(CUevent* event, unsigned) {
  *event = reinterpret_cast<CUevent>(0x2000);
  return CUDA_SUCCESS;
}
CUresult elapsed(float* ms, CUevent, CUevent) {
  *ms = 0.005f;
  return CUDA_SUCCESS;
}

Launch hooked_launch() {
  for (const Hook& hook : submit_hooks()) {
    if (strcmp(hook.symbol, "cuLaunchKernel") == 0)
      return reinterpret_cast<Launch>(hook.function());
  }
  return nullptr;
}

void run(benchmark::State& state, Launch launch, uint32_t watch) {
  submit_watch.store(watch);
  benchmark::DoNotOptimize(launch);
  for (auto _ : state) {
    benchmark::DoNotOptimize(launch(0x3000, 1, 1, 1, 32, 1, 1, 0, 0x4000, 0, 0));
    if (watch == kGate && in_flight_ns() > 5'000'000) ask_markers(0x1000);
  }
  submit_watch.store(0);
}

void Driver(benchmark::State& state) {
  run(state, reinterpret_cast<Launch>(find_in_driver("cuLaunchKernel")), 0);
}
void Quiet(benchmark::State& state) {
  run(state, hooked_launch(), 0);
}
void Watched(benchmark::State& state) {
  run(state, hooked_launch(), kCapture);
}
void Gated(benchmark::State& state) {
  run(state, hooked_launch(), kGate);
}
void Swapping(benchmark::State& state) {
  run(state, hooked_launch(), kSwap);
}
BENCHMARK(Driver);
BENCHMARK(Quiet);
BENCHMARK(Watched);
BENCHMARK(Gated);
BENCHMARK(Swapping);

}  // namespace

void* find_in_driver(const char* name) {
  if (strcmp(name, "cuCtxGetCurrent") == 0) return reinterpret_cast<void*>(&current);
  if (strcmp(name, "cuEventCreate") == 0) return reinterpret_cast<void*>(&make_event);
  if (strcmp(name, "cuEventElapsedTime") == 0) return reinterpret_cast<void*>(&elapsed);
  return reinterpret_cast<void*>(&nothing);
}
void* find_in_nvml(const char*) {
  return nullptr;
}
CUresult entry_not_supported() {
  return CUDA_ERROR_NOT_SUPPORTED;
}

}  // namespace allot::shim

BENCHMARK_MAIN();
