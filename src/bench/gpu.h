// One GPU with its primary context, one stream and the workload kernels, ready to launch.
//
// What every workload needs first and must give back last. Not copyable; one thread at a time.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "bench/driver_api.h"

namespace allot::bench {

// Seconds on the monotonic clock, for differences only.
inline double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Gpu {
 public:
  // Initialises the driver and takes the primary context of GPU `index`.
  // Failure 125: no driver, no GPU, no such GPU; 1: the context or the kernels could not be made.
  // Allocates; blocks while the driver starts (0.2 to 0.4 s on an H100).
  explicit Gpu(int index);
  ~Gpu();
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  const DriverApi& api() const { return api_; }
  void* library() const { return library_; }
  CUdevice device() const { return device_; }
  CUstream stream() const { return stream_; }
  int index() const { return index_; }
  int multiprocessors() const { return multiprocessors_; }
  int driver_version() const { return driver_version_; }
  const std::string& name() const { return name_; }

  CUfunction spin() const { return spin_; }

  // Failure 1 with the call's name and the driver's error unless `result` is CUDA_SUCCESS.
  void check(CUresult result, const char* call) const;

  // Launches `iterations` spin steps on every multiprocessor; does not wait.
  void launch_spin(uint64_t iterations) const;

  // The same of the kernel that tells: `told` is device-visible memory of 8 bytes (kernels.h).
  void launch_spin_told(uint64_t iterations, CUdeviceptr told, uint64_t base) const;

  // Writes `value` into `words` 32-bit words at `address` and waits.
  void fill(CUdeviceptr address, uint64_t words, uint32_t value) const;

  // How many of `words` 32-bit words at `address` differ from `value`; waits.
  uint64_t mismatches(CUdeviceptr address, uint64_t words, uint32_t value) const;

  void synchronize() const;

  // cuMemGetInfo, in bytes.
  struct Memory {
    uint64_t free_bytes;
    uint64_t total_bytes;
  };
  Memory memory() const;

 private:
  void launch(CUfunction function, unsigned blocks, void** parameters) const;

  void* library_ = nullptr;
  DriverApi api_;
  int index_;
  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
  CUmodule module_ = nullptr;
  CUfunction spin_ = nullptr, spin_told_ = nullptr, fill_ = nullptr, check_ = nullptr;
  CUstream stream_ = nullptr;
  CUdeviceptr scratch_ = 0;  // a sink for spin (first word) and a counter for check (from byte 256)
  int multiprocessors_ = 1;
  int driver_version_ = 0;
  std::string name_;
};

// Device time of `launches` runs of `submit`, in microseconds, by events around them. `submit` must
// only submit to the GPU's stream. Waits for the end.
template <class Submit>
double device_us(const Gpu& gpu, unsigned launches, Submit submit) {
  CUevent begin = nullptr, end = nullptr;
  gpu.check(gpu.api().event_create(&begin, CU_EVENT_DEFAULT), "cuEventCreate");
  gpu.check(gpu.api().event_create(&end, CU_EVENT_DEFAULT), "cuEventCreate");
  gpu.check(gpu.api().event_record(begin, gpu.stream()), "cuEventRecord");
  for (unsigned i = 0; i < launches; ++i) submit();
  gpu.check(gpu.api().event_record(end, gpu.stream()), "cuEventRecord");
  gpu.check(gpu.api().event_synchronize(end), "cuEventSynchronize");
  float elapsed_ms = 0;
  gpu.check(gpu.api().event_elapsed(&elapsed_ms, begin, end), "cuEventElapsedTime");
  gpu.api().event_destroy(begin);
  gpu.api().event_destroy(end);
  return static_cast<double>(elapsed_ms) * 1000.0;
}

// How many spin steps take about `target_us` of device time on this GPU, found by measuring; at
// least 1. `warm_s`: seconds of load before the first figure counts, so that clocks have risen.
// `stopped`: this process is stopped now and then; the fastest of many runs counts, not the median
// of a few, and what is longer than kBetweenStopsUs is worked out from kernels of that length.
inline constexpr double kBetweenStopsUs = 500;  // a ceiling of 1 % leaves that much in a period
uint64_t calibrate_spin(const Gpu& gpu, double target_us, double warm_s, bool stopped = false);

}  // namespace allot::bench
