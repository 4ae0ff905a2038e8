// Parts of the shim linked into a test program, in front of the software GPU.
//
// For what the whole library would do by itself and a test wants in hand: the prober, the gate. The
// program counts as attached, with one GPU; there is no slice, so nothing is charged. One machine
// for all tests of the program, removed at its end.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <string>

#include "driver/cuda_abi.h"
#include "shim/process/hook.h"

namespace allot::shim_time {

void* hook_named(const char* symbol);
void* driver_named(const char* symbol);

// HOOK(cuStreamCreate)(&stream, 0u): through the shim. DRIVER(...): past it. Typed by how it is
// called.
struct Callable {
  void* at;
  template <class... A>
  CUresult operator()(A... arguments) const {
    return reinterpret_cast<CUresult (*)(A...)>(at)(arguments...);
  }
};
#define HOOK(name) (::allot::shim_time::Callable{::allot::shim_time::hook_named(#name)})
#define DRIVER(name) (::allot::shim_time::Callable{::allot::shim_time::driver_named(#name)})
#define EXPECT_CU(call) EXPECT_EQ((call), CUDA_SUCCESS)

class ShimTime : public testing::Test {
 protected:
  void SetUp() override;  // the one context is current on the thread, the GPU idle, nothing watched
  void TearDown() override;  // the gate is open and the GPU idle
  CUcontext context = nullptr;
};

// A kernel of `us` microseconds into a stream, by the hook of cuLaunchKernel. Any thread; makes the
// context current.
CUresult spin(CUstream stream, uint64_t us);
CUfunction spin_function();
void use_context();

// A stream, made and ended through the hooks.
struct Stream {
  explicit Stream(unsigned flags = CU_STREAM_NON_BLOCKING);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  CUstream handle = nullptr;
};

// Holds a stream's work back until opened: a wait for a value in device memory.
class Barrier {
 public:
  explicit Barrier(CUstream stream);
  ~Barrier();
  Barrier(const Barrier&) = delete;
  Barrier& operator=(const Barrier&) = delete;
  void open();

 private:
  void* host_ = nullptr;
  CUdeviceptr flag_ = 0;
};

// Waits until condition() or 20 s have passed; returns whether it came true.
bool wait_until(const std::function<bool()>& condition);
uint64_t now_us();

}  // namespace allot::shim_time
