// `bench hooks`: what the shim adds to a driver call, in nanoseconds.
//
// Method. The process has the shim in front (what every program's symbols lead to) and the driver
// behind it. For each operation, batches of calls through the one and the other alternate, the
// order of the two changing each time (AB, BA, ...); a batch's time divided by its calls is a
// sample, and the figure is the median of the differences of neighbouring samples. Allocation, free
// and memory query are measured with 10, 1,000 and 100,000 live blocks, so that a cost that grows
// with what is tracked shows; churn frees and remakes random ones of these. Blocks of 4 KiB are cut
// from slabs by the driver itself; blocks of 2 MiB go through to the kernel driver each time and
// drown tens of nanoseconds in their own noise, so both are given.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "bench/gpu.h"
#include "bench/real_driver.h"

namespace allot::bench {

// Samples of one operation, nanoseconds a call; `added_ns` is the median of paired differences.
struct HookFigure {
  double hooked_ns = 0;
  double real_ns = 0;
  double added_ns = 0;
  uint64_t pairs = 0;
};

// One GPU with both drivers and a number of live blocks.
class HookBench {
 public:
  // Failure as in gpu.h; 125 also when the process has no shim in front of a driver.
  explicit HookBench(int gpu_index);
  ~HookBench();

  const Gpu& gpu() const { return gpu_; }
  const std::string& real_path() const { return real_.path; }

  // Brings the number of live 512-byte blocks to `count` on either way: as many made through the
  // shim as past it.
  void set_live_blocks(uint64_t count);

  // Runs one batch of `calls` operations through `api`; returns nanoseconds a call. The alloc batch
  // fills `blocks_` and the free batch empties it, so they come in turns.
  double launch_batch(const DriverApi& api, unsigned calls);
  double query_batch(const DriverApi& api, unsigned calls);
  double symbol_batch(const DriverApi& api, unsigned calls);

  // Frees a block at a random place among the live ones and makes it anew, `calls` times: what a
  // tracked set costs when the block asked for is neither the newest nor in the cache.
  double churn_batch(const DriverApi& api, unsigned calls);

  struct AllocFree {
    double alloc_ns;
    double free_ns;
  };
  AllocFree alloc_free_batch(const DriverApi& api, unsigned calls, uint64_t bytes);

  const DriverApi& hooked() const { return gpu_.api(); }
  const DriverApi& unhooked() const { return unhooked_; }

 private:
  Gpu gpu_;
  RealDriver real_;
  DriverApi unhooked_;
  void resize(const DriverApi& api, std::vector<CUdeviceptr>& live, uint64_t count) const;

  std::vector<CUdeviceptr> live_;           // made through the shim
  std::vector<CUdeviceptr> live_unhooked_;  // made past it
  uint64_t random_ = 0x9e3779b97f4a7c15;
  std::vector<CUdeviceptr> blocks_;
};

// Alternates `batch` (given the driver to use, returns nanoseconds a call) until `pairs` pairs are
// there or `seconds` have passed, after two pairs that do not count.
HookFigure measure_pairs(const DriverApi& hooked, const DriverApi& unhooked, unsigned pairs,
                         double seconds, const std::function<double(const DriverApi&)>& batch);

struct HooksOptions {
  int gpu = 0;
  double seconds = 0.5;  // longest time for one operation
  std::vector<uint64_t> live_blocks = {10, 1000, 100000};
};

// Fields: real (path of the driver), method, launch, cuGetProcAddress {hooked_ns, real_ns,
// added_ns, pairs}, and live: one entry a count of live blocks with alloc_4k, free_4k,
// alloc_free_4k, alloc_2m, alloc_free_2m, churn, memory_query. One thread; allocates; blocks for
// the measurement.
nlohmann::ordered_json run_hooks(const HooksOptions& options);

}  // namespace allot::bench
