// Start and end of a workload's GPU, and the calibration of the spin.
#include "bench/gpu.h"

#include <algorithm>
#include <cmath>

#include "bench/kernels.h"
#include "bench/statistics.h"

namespace allot::bench {
namespace {

constexpr size_t kScratchBytes = 512;
constexpr CUdeviceptr kCounterOffset = 256;

}  // namespace

Gpu::Gpu(int index) : api_(load_driver(&library_)), index_(index) {
  const CUresult started = api_.init(0);
  if (started != CUDA_SUCCESS) {
    throw Failure(125, "the CUDA driver does not start: cuInit: " + result_name(api_, started));
  }
  int count = 0;
  check(api_.device_count(&count), "cuDeviceGetCount");
  if (index < 0 || index >= count) {
    throw Failure(
        125, "no GPU " + std::to_string(index) + ": this process sees " + std::to_string(count));
  }
  check(api_.device_get(&device_, index), "cuDeviceGet");
  api_.driver_version(&driver_version_);
  char name[128] = "";
  check(api_.device_name(name, sizeof name, device_), "cuDeviceGetName");
  name_ = name;
  check(api_.device_attribute(&multiprocessors_, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device_),
        "cuDeviceGetAttribute");
  multiprocessors_ = std::max(multiprocessors_, 1);
  check(api_.context_retain(&context_, device_), "cuDevicePrimaryCtxRetain");
  try {
    check(api_.context_set(context_), "cuCtxSetCurrent");
    check(api_.module_load(&module_, kernel_ptx()), "cuModuleLoadData");
    check(api_.module_function(&spin_, module_, kSpinKernel), "cuModuleGetFunction");
    check(api_.module_function(&spin_told_, module_, kSpinToldKernel), "cuModuleGetFunction");
    check(api_.module_function(&fill_, module_, kFillKernel), "cuModuleGetFunction");
    check(api_.module_function(&check_, module_, kCheckKernel), "cuModuleGetFunction");
    check(api_.stream_create(&stream_, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
    check(api_.alloc(&scratch_, kScratchBytes), "cuMemAlloc");
  } catch (...) {
    api_.context_release(device_);
    throw;
  }
}

Gpu::~Gpu() {
  // Results are not looked at: at the end there is nobody to tell, and the context takes all along.
  if (scratch_ != 0) api_.free.quiet(scratch_);
  if (stream_ != nullptr) api_.stream_destroy.quiet(stream_);
  if (module_ != nullptr) api_.module_unload.quiet(module_);
  api_.context_release.quiet(device_);
}

void Gpu::check(CUresult result, const char* call) const {
  if (result == CUDA_SUCCESS) return;
  throw Failure(1, std::string(call) + ": " + result_name(api_, result));
}

void Gpu::launch(CUfunction function, unsigned blocks, void** parameters) const {
  check(api_.launch(function, blocks, 1, 1, kBlockThreads, 1, 1, 0, stream_, parameters, nullptr),
        "cuLaunchKernel");
}

void Gpu::launch_spin(uint64_t iterations) const {
  uint64_t steps = iterations, sink = scratch_;
  void* parameters[] = {&steps, &sink};
  launch(spin_, static_cast<unsigned>(multiprocessors_), parameters);
}

void Gpu::launch_spin_told(uint64_t iterations, CUdeviceptr told, uint64_t base) const {
  uint64_t steps = iterations, sink = scratch_, target = told, before = base;
  void* parameters[] = {&steps, &sink, &target, &before};
  launch(spin_told_, static_cast<unsigned>(multiprocessors_), parameters);
}

void Gpu::fill(CUdeviceptr address, uint64_t words, uint32_t value) const {
  uint64_t target = address;
  void* parameters[] = {&target, &words, &value};
  launch(fill_, static_cast<unsigned>(multiprocessors_) * 8, parameters);
  synchronize();
}

uint64_t Gpu::mismatches(CUdeviceptr address, uint64_t words, uint32_t value) const {
  uint64_t source = address, counter = scratch_ + kCounterOffset, found = 0;
  check(api_.memset_d8(counter, 0, sizeof found), "cuMemsetD8");
  check(api_.context_synchronize(), "cuCtxSynchronize");
  void* parameters[] = {&source, &words, &value, &counter};
  launch(check_, static_cast<unsigned>(multiprocessors_) * 8, parameters);
  synchronize();
  check(api_.copy_to_host(&found, counter, sizeof found), "cuMemcpyDtoH");
  return found;
}

void Gpu::synchronize() const {
  check(api_.stream_synchronize(stream_), "cuStreamSynchronize");
}

Gpu::Memory Gpu::memory() const {
  size_t free_bytes = 0, total_bytes = 0;
  check(api_.memory_info(&free_bytes, &total_bytes), "cuMemGetInfo");
  return {free_bytes, total_bytes};
}

uint64_t calibrate_spin(const Gpu& gpu, double target_us, double warm_s, bool stopped) {
  if (stopped && target_us > kBetweenStopsUs) {
    const auto brief = static_cast<double>(calibrate_spin(gpu, kBetweenStopsUs, warm_s, true));
    return static_cast<uint64_t>(std::round(brief * target_us / kBetweenStopsUs));
  }
  constexpr uint64_t kFirstGuess = 10000;
  constexpr uint64_t kMost = uint64_t{1} << 40;
  uint64_t iterations = kFirstGuess;
  const double warm_until = now_s() + warm_s;
  do {
    device_us(gpu, 20, [&] { gpu.launch_spin(iterations); });
  } while (now_s() < warm_until);
  // Time is an offset (the launch) plus a slope; three rounds of proportion end within a percent.
  for (int round = 0; round < 3; ++round) {
    std::vector<double> samples;
    const int runs = stopped ? 25 : 5;
    samples.reserve(static_cast<size_t>(runs));
    for (int i = 0; i < runs; ++i) {
      samples.push_back(device_us(gpu, 1, [&] { gpu.launch_spin(iterations); }));
    }
    const double measured = std::max(percentile(samples, stopped ? 0 : 500), 0.001);
    const double next = static_cast<double>(iterations) * target_us / measured;
    iterations = static_cast<uint64_t>(std::clamp(std::round(next), 1.0, double(kMost)));
  }
  return iterations;
}

}  // namespace allot::bench
