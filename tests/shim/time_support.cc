#include "tests/shim/time_support.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "shim/process/process.h"
#include "shim/time/launch_gate.h"
#include "shim/time/streams.h"
#include "shim/time/submit.h"

namespace allot::shim {

constinit Process process;
constinit thread_local uint32_t hook_depth = 0;
void wait_for_start() {}
CUresult start_late() {
  return CUDA_SUCCESS;
}

}  // namespace allot::shim

namespace allot::shim_time {
namespace {

constexpr char kPtx[] = R"(
.version 7.0
.target sm_70
.address_size 64
.visible .entry allot_spin(.param .u64 iters, .param .u64 sink) { mov.u64 %rd1, 1; ret; }
)";

CUcontext the_context = nullptr;
CUfunction the_spin = nullptr;

void start() {
  EXPECT_CU(DRIVER(cuInit)(0u));
  EXPECT_CU(DRIVER(cuDevicePrimaryCtxRetain)(&the_context, 0));
  use_context();
  CUmodule module = nullptr;
  EXPECT_CU(DRIVER(cuModuleLoadData)(&module, &kPtx[0]));
  EXPECT_CU(DRIVER(cuModuleGetFunction)(&the_spin, module, "allot_spin"));
  shim::process.device_count = 1;
  shim::process.devices[0].gpu = 0;
  shim::process.state.store(shim::State::kOn);
  shim::context_made(the_context, 0);
}

void calm() {
  shim::gate_open();
  shim::submit_watch.store(0);
  use_context();
  EXPECT_CU(DRIVER(cuCtxSynchronize)());
}

}  // namespace

void* driver_named(const char* symbol) {
  static void* library = dlopen(ALLOT_TEST_SIM_CUDA, RTLD_NOW | RTLD_LOCAL);
  void* found = library != nullptr ? dlsym(library, symbol) : nullptr;
  if (found == nullptr) abort();
  return found;
}

void* hook_named(const char* symbol) {
  const std::string name = symbol;
  if (name == "cuGraphLaunch") return reinterpret_cast<void*>(&shim::submit_graph);
  for (const auto list : {shim::submit_hooks, shim::stream_hooks}) {
    for (const shim::Hook& hook : list()) {
      if (name == hook.symbol) return hook.function();
    }
  }
  abort();
}

void use_context() {
  EXPECT_CU(DRIVER(cuCtxSetCurrent)(the_context));
}

CUfunction spin_function() {
  return the_spin;
}

CUresult spin(CUstream stream, uint64_t us) {
  use_context();
  uint64_t ns = us * 1000;
  uint64_t sink = 0;
  void* arguments[] = {&ns, &sink};
  return HOOK(cuLaunchKernel)(the_spin, 1u, 1u, 1u, 32u, 1u, 1u, 0u, stream, &arguments[0],
                              static_cast<void**>(nullptr));
}

void ShimTime::SetUp() {
  if (the_context == nullptr) start();
  calm();
  context = the_context;
}

void ShimTime::TearDown() {
  calm();
}

Stream::Stream(unsigned flags) {
  use_context();
  EXPECT_CU(HOOK(cuStreamCreate)(&handle, flags));
}
Stream::~Stream() {
  EXPECT_CU(HOOK(cuStreamDestroy_v2)(handle));
}

Barrier::Barrier(CUstream stream) {
  use_context();
  EXPECT_CU(DRIVER(cuMemHostAlloc)(&host_, size_t{64}, 0u));
  *static_cast<volatile uint32_t*>(host_) = 0;
  EXPECT_CU(DRIVER(cuMemHostGetDevicePointer_v2)(&flag_, host_, 0u));
  EXPECT_CU(DRIVER(cuStreamWaitValue32_v2)(stream, flag_, 1u, unsigned{CU_STREAM_WAIT_VALUE_GEQ}));
}
void Barrier::open() {
  __atomic_store_n(static_cast<uint32_t*>(host_), 1u, __ATOMIC_SEQ_CST);
}
Barrier::~Barrier() {
  open();
  use_context();
  EXPECT_CU(DRIVER(cuCtxSynchronize)());
  EXPECT_CU(DRIVER(cuMemFreeHost)(host_));
}

bool wait_until(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

uint64_t now_us() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(
                                   std::chrono::steady_clock::now().time_since_epoch())
                                   .count());
}

}  // namespace allot::shim_time

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  char folder[] = "/dev/shm/allot-shim-time-XXXXXX";
  if (mkdtemp(folder) == nullptr) return 1;
  setenv("ALLOT_SIM_DIR", folder, 1);
  setenv("ALLOT_SIM_GPUS", "1x4G", 1);
  setenv("ALLOT_SIM_CONTEXT", "16M", 1);  // for many of them
  setenv("ALLOT_REAL_CUDA", ALLOT_TEST_SIM_CUDA, 1);
  unsetenv("ALLOT_SIM_FAULTS");
  unsetenv("CUDA_VISIBLE_DEVICES");
  const int result = RUN_ALL_TESTS();
  std::filesystem::remove_all(folder);
  return result;
}
