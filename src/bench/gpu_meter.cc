// NVML by dlopen; it stays loaded until the process ends.
#include "bench/gpu_meter.h"

#include <dlfcn.h>

#include <algorithm>
#include <numeric>

namespace allot::bench {
namespace {

constexpr int kSmClock = 1;  // NVML_CLOCK_SM

template <class Function>
Function find(void* library, const char* symbol) {
  return reinterpret_cast<Function>(dlsym(library, symbol));
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace

GpuMeter::GpuMeter(const std::string& pci) {
  void* library = pci.empty() ? nullptr : dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return;
  const auto init = find<int (*)()>(library, "nvmlInit_v2");
  const auto by_pci =
      find<int (*)(const char*, void**)>(library, "nvmlDeviceGetHandleByPciBusId_v2");
  if (init == nullptr || by_pci == nullptr || init() != 0) return;
  if (by_pci(pci.c_str(), &device_) != 0) device_ = nullptr;
  clock_ = find<Clock>(library, "nvmlDeviceGetClockInfo");
  power_ = find<Power>(library, "nvmlDeviceGetPowerUsage");
}

void GpuMeter::sample() {
  if (device_ == nullptr) return;
  unsigned value = 0;
  if (clock_ != nullptr && clock_(device_, kSmClock, &value) == 0) mhz_.push_back(value);
  if (power_ != nullptr && power_(device_, &value) == 0) watts_.push_back(value / 1e3);
}

nlohmann::ordered_json GpuMeter::take() {
  nlohmann::ordered_json out = nullptr;
  if (!mhz_.empty()) {
    out["sm_mhz"] = mean(mhz_);
    out["sm_mhz_min"] = *std::min_element(mhz_.begin(), mhz_.end());
    out["sm_mhz_max"] = *std::max_element(mhz_.begin(), mhz_.end());
  }
  if (!watts_.empty()) out["watts"] = mean(watts_);
  mhz_.clear();
  watts_.clear();
  return out;
}

}  // namespace allot::bench
