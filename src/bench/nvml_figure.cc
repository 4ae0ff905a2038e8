// NVML by dlopen. The GPU is matched by its PCI address, since CUDA_VISIBLE_DEVICES renumbers only
// CUDA's side.
#include "bench/nvml_figure.h"

#include <dlfcn.h>
#include <unistd.h>

#include <vector>

#include "driver/nvml_abi.h"

namespace allot::bench {
namespace {

template <class Function>
Function find(void* library, const char* symbol) {
  return reinterpret_cast<Function>(dlsym(library, symbol));
}

nvmlDevice_t device_of(void* library, const Gpu& gpu) {
  using ByPci = nvmlReturn_t (*)(const char*, nvmlDevice_t*);
  using ByIndex = nvmlReturn_t (*)(unsigned, nvmlDevice_t*);
  nvmlDevice_t device{};
  char pci[64] = "";
  const auto by_pci = find<ByPci>(library, "nvmlDeviceGetHandleByPciBusId_v2");
  if (by_pci != nullptr && gpu.api().device_pci &&
      gpu.api().device_pci(pci, sizeof pci, gpu.device()) == CUDA_SUCCESS &&
      by_pci(pci, &device) == NVML_SUCCESS) {
    return device;
  }
  const auto by_index = find<ByIndex>(library, "nvmlDeviceGetHandleByIndex_v2");
  if (by_index != nullptr &&
      by_index(static_cast<unsigned>(gpu.index()), &device) == NVML_SUCCESS) {
    return device;
  }
  return nullptr;
}

}  // namespace

std::optional<uint64_t> nvml_process_bytes(const Gpu& gpu) {
  using Init = nvmlReturn_t (*)();
  using Processes = nvmlReturn_t (*)(nvmlDevice_t, unsigned*, nvmlProcessInfo_v2_t*);
  void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return std::nullopt;
  const auto init = find<Init>(library, "nvmlInit_v2");
  const auto processes = find<Processes>(library, "nvmlDeviceGetComputeRunningProcesses_v3");
  if (init == nullptr || processes == nullptr || init() != NVML_SUCCESS) return std::nullopt;
  const nvmlDevice_t device = device_of(library, gpu);
  if (device == nullptr) return std::nullopt;
  std::vector<nvmlProcessInfo_v2_t> list(256);
  unsigned count = static_cast<unsigned>(list.size());
  if (processes(device, &count, list.data()) != NVML_SUCCESS) return std::nullopt;
  for (unsigned i = 0; i < count && i < list.size(); ++i) {
    if (list[i].pid == static_cast<unsigned>(getpid())) return list[i].usedGpuMemory;
  }
  return std::nullopt;
}

}  // namespace allot::bench
