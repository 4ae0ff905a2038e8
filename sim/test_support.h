// What the tests of the software GPU share: its entries by dlopen, a machine of one's own,
// processes.
//
// The test program itself never calls the driver: every test runs its steps in forked children, so
// that each starts from nothing. A child's failed expectations fail the test.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "driver/cuda_abi.h"
#include "driver/nvml_abi.h"
#include "driver/rm_abi.h"

namespace allot::sim_test {

void* cuda_symbol(const char* name);  // loads the library on first use
void* nvml_symbol(const char* name);

// CU(cuMemAlloc_v2)(&p, n): the entry of that name, typed by how it is called.
template <class Result>
struct Entry {
  void* at;
  template <class... Args>
  Result operator()(Args... args) const {
    return reinterpret_cast<Result (*)(Args...)>(at)(args...);
  }
};
#define CU(name) (::allot::sim_test::Entry<CUresult>{::allot::sim_test::cuda_symbol(#name)})
#define NVML(name) (::allot::sim_test::Entry<nvmlReturn_t>{::allot::sim_test::nvml_symbol(#name)})
#define ASSERT_CU(call) ASSERT_EQ((call), CUDA_SUCCESS)
#define EXPECT_CU(call) EXPECT_EQ((call), CUDA_SUCCESS)

extern const char kPtx[];  // the four workload kernels, an empty one and an unknown one

// A software machine of the test's own; removed at the end.
class Sim : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;
  void gpus(const char* text);  // before the first child
};

// Runs `body` in a child process.
class Child {
 public:
  explicit Child(const std::function<void()>& body);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  int pid() const { return pid_; }
  void kill();         // SIGKILL; the process is not reaped, as under a slow parent
  bool finish();       // waits; true when the child met all its expectations
  std::string read();  // next message of the child, waiting for at most 60 s; "" when it ended
  void write(const std::string& message);

 private:
  int pid_ = -1, in_ = -1, out_ = -1;
  bool reaped_ = false;
};
// For the child's side.
void tell(const std::string& message);
std::string listen();
inline void in_child(const std::function<void()>& body) {
  EXPECT_TRUE(Child(body).finish());
}

// ---- for the children --------------------------------------------------------------------------
CUcontext start(CUdevice device = 0);  // cuInit, primary context, current
uint64_t free_memory();
uint64_t nvml_used(unsigned gpu, int pid);  // of one process, by NVML; 0 when it is not listed
CUfunction function(const char* name);      // of kPtx, in the current context
CUresult spin(CUstream stream, uint64_t ns);
CUresult spin_told(CUstream stream, uint64_t ns, uint64_t told, uint64_t base);
CUresult fill(CUstream stream, CUdeviceptr at, uint64_t words, uint32_t value);
// Counted by the check kernel; `sum` is memory for its result, 0 = allocate some.
uint64_t mismatches(CUdeviceptr at, uint64_t words, uint32_t value, CUdeviceptr sum = 0);
// Launches of `ns` kept coming until `until_ns` (CLOCK_MONOTONIC); returns the device time done.
uint64_t keep_busy(CUstream stream, uint64_t ns, int64_t until_ns);
int64_t clock_ns();

}  // namespace allot::sim_test
