// Clocks and power of a GPU, as NVML says: what throughput has to be read beside, because a card
// that works less of the time may clock higher.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace allot::bench {

class GpuMeter {
 public:
  // `pci` as cuDeviceGetPCIBusId gives it. Without NVML, or where it does not answer, every sample
  // is nothing. Blocks while NVML starts (20 ms).
  explicit GpuMeter(const std::string& pci);

  // One look; 0.1 ms on a card. One thread.
  void sample();

  // Mean, least and highest SM clock, mean power, of the samples since the last call; null without
  // any.
  nlohmann::ordered_json take();

 private:
  using Clock = int (*)(void*, int, unsigned*);
  using Power = int (*)(void*, unsigned*);
  void* device_ = nullptr;
  Clock clock_ = nullptr;
  Power power_ = nullptr;
  std::vector<double> mhz_, watts_;
};

}  // namespace allot::bench
