// NVML's figures: memory of a GPU, its processes with what they hold, utilisation.
//
// Memory is what processes own on the card, contexts included (512 MiB each, ALLOT_SIM_CONTEXT). A
// dead process is cleared away before anything is counted.
#include <time.h>

#include <algorithm>
#include <vector>

#include "nvml.h"
#include "vram.h"

using namespace allot::sim;

namespace {

struct Holder {
  uint32_t pid, slot;
  uint64_t bytes;
};

std::vector<Holder> holders(uint32_t gpu) {
  reclaim_dead();
  std::vector<Holder> list;
  MachineLock lock;
  const Machine* m = machine();
  for (uint32_t i = 0; i < m->slots_high; i++) {
    const ProcessSlot& slot = m->slots[i];
    if (slot.used == 0 || slot.contexts[gpu] == 0) continue;
    list.push_back(Holder{slot.pid, i, slot.pages[gpu] * kPageBytes});
  }
  return list;
}

// The three versions of a process list differ in their entry only.
template <class Info>
nvmlReturn_t list_processes(nvmlDevice_t device, unsigned* count, Info* infos) {
  SIM_NVML_GPU(device, gpu);
  if (count == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  const std::vector<Holder> list = holders(gpu);
  const unsigned room = infos != nullptr ? *count : 0;
  *count = static_cast<unsigned>(list.size());
  if (list.empty()) return NVML_SUCCESS;
  if (room < list.size()) return NVML_ERROR_INSUFFICIENT_SIZE;
  for (size_t i = 0; i < list.size(); i++) {
    memset(&infos[i], 0, sizeof infos[i]);
    infos[i].pid = list[i].pid;
    infos[i].usedGpuMemory = list[i].bytes;
    if constexpr (sizeof(Info) > sizeof(nvmlProcessInfo_v1_t)) {
      infos[i].gpuInstanceId = infos[i].computeInstanceId = 0xffffffff;
    }
  }
  return NVML_SUCCESS;
}

nvmlReturn_t no_processes(nvmlDevice_t device, unsigned* count) {
  SIM_NVML_GPU(device, gpu);
  static_cast<void>(gpu);
  if (count == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *count = 0;
  return NVML_SUCCESS;
}

constexpr int64_t kSpanNs = 1'000'000'000;

unsigned percent(uint64_t busy_ns) {
  return static_cast<unsigned>(std::min<uint64_t>(100, (busy_ns * 100 + kSpanNs / 2) / kSpanNs));
}

unsigned long long wall_us() {
  timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return static_cast<unsigned long long>(t.tv_sec) * 1'000'000 +
         static_cast<unsigned long long>(t.tv_nsec) / 1000;
}

uint64_t busy_of(uint32_t gpu, uint32_t slot) {
  const Timeline& line = machine()->gpus[gpu].timeline;
  uint64_t busy = 0;
  for (uint32_t i = 0; i < line.high; i++) {
    const Group& group = line.groups[i];
    if (group.used != 0 && group.slot == slot) busy += group.usage.within(now_ns(), kSpanNs);
  }
  return busy;
}

}  // namespace

SIM_NVML nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t* out) {
  SIM_NVML_GPU(device, gpu);
  if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  out->total = machine()->gpus[gpu].bytes;
  out->free = free_bytes(gpu);
  out->used = out->total - out->free;
  return NVML_SUCCESS;
}

SIM_NVML nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t* out) {
  SIM_NVML_GPU(device, gpu);
  if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  if (out->version != nvmlMemory_v2) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  out->total = machine()->gpus[gpu].bytes;
  out->reserved = 0;
  out->free = free_bytes(gpu);
  out->used = out->total - out->free;
  return NVML_SUCCESS;
}

SIM_NVML nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t* out) {
  SIM_NVML_GPU(device, gpu);
  if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *out = nvmlBAR1Memory_t{machine()->gpus[gpu].bytes, machine()->gpus[gpu].bytes, 0};
  return NVML_SUCCESS;
}

SIM_NVML nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t d, unsigned* n,
                                              nvmlProcessInfo_v1_t* out) {
  return list_processes(d, n, out);
}
SIM_NVML nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t d, unsigned* n,
                                                 nvmlProcessInfo_v2_t* out) {
  return list_processes(d, n, out);
}
SIM_NVML nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t d, unsigned* n,
                                                 nvmlProcessInfo_t* out) {
  return list_processes(d, n, out);
}
SIM_NVML nvmlDeviceGetGraphicsRunningProcesses(nvmlDevice_t d, unsigned* n, nvmlProcessInfo_v1_t*) {
  return no_processes(d, n);
}
SIM_NVML nvmlDeviceGetGraphicsRunningProcesses_v2(nvmlDevice_t d, unsigned* n,
                                                  nvmlProcessInfo_v2_t*) {
  return no_processes(d, n);
}
SIM_NVML nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t d, unsigned* n, nvmlProcessInfo_t*) {
  return no_processes(d, n);
}
SIM_NVML nvmlDeviceGetMPSComputeRunningProcesses(nvmlDevice_t d, unsigned* n,
                                                 nvmlProcessInfo_v1_t*) {
  return no_processes(d, n);
}
SIM_NVML nvmlDeviceGetMPSComputeRunningProcesses_v2(nvmlDevice_t d, unsigned* n,
                                                    nvmlProcessInfo_v2_t*) {
  return no_processes(d, n);
}
SIM_NVML nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t d, unsigned* n,
                                                    nvmlProcessInfo_t*) {
  return no_processes(d, n);
}

SIM_NVML nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device, nvmlProcessDetailList_t* out) {
  SIM_NVML_GPU(device, gpu);
  if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  if (out->version != nvmlProcessDetailList_v1) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  const std::vector<Holder> list = holders(gpu);
  const unsigned room = out->procArray != nullptr ? out->numProcArrayEntries : 0;
  out->numProcArrayEntries = static_cast<unsigned>(list.size());
  if (room < list.size()) return NVML_ERROR_INSUFFICIENT_SIZE;
  for (size_t i = 0; i < list.size(); i++) {
    out->procArray[i] =
        nvmlProcessDetail_v1_t{list[i].pid, list[i].bytes, 0xffffffff, 0xffffffff, 0};
  }
  return NVML_SUCCESS;
}

SIM_NVML nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t* out) {
  SIM_NVML_GPU(device, gpu);
  if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  out->gpu = percent(machine()->gpus[gpu].timeline.usage.within(now_ns(), kSpanNs));
  out->memory = out->gpu;
  return NVML_SUCCESS;
}

SIM_NVML nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t* out,
                                         unsigned* count, unsigned long long last_seen) {
  SIM_NVML_GPU(device, gpu);
  if (count == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  const std::vector<Holder> list = holders(gpu);
  const unsigned room = out != nullptr ? *count : 0;
  const unsigned long long now = wall_us();
  if (list.empty() || last_seen > now) {
    *count = 0;
    return NVML_ERROR_NOT_FOUND;
  }
  *count = static_cast<unsigned>(list.size());
  if (room < list.size()) return NVML_ERROR_INSUFFICIENT_SIZE;
  for (size_t i = 0; i < list.size(); i++) {
    out[i] = nvmlProcessUtilizationSample_t{};
    out[i].pid = list[i].pid;
    out[i].timeStamp = now;
    out[i].smUtil = percent(busy_of(gpu, list[i].slot));
  }
  return NVML_SUCCESS;
}

SIM_NVML nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice_t device,
                                               nvmlProcessesUtilizationInfo_t* out) {
  SIM_NVML_GPU(device, gpu);
  if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  if (out->version != nvmlProcessesUtilizationInfo_v1) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  const std::vector<Holder> list = holders(gpu);
  const unsigned room = out->procUtilArray != nullptr ? out->processSamplesCount : 0;
  out->processSamplesCount = static_cast<unsigned>(list.size());
  if (list.empty()) return NVML_ERROR_NOT_FOUND;
  if (room < list.size()) return NVML_ERROR_INSUFFICIENT_SIZE;
  for (size_t i = 0; i < list.size(); i++) {
    out->procUtilArray[i] = nvmlProcessUtilizationInfo_v1_t{};
    out->procUtilArray[i].timeStamp = wall_us();
    out->procUtilArray[i].pid = list[i].pid;
    out->procUtilArray[i].smUtil = percent(busy_of(gpu, list[i].slot));
  }
  return NVML_SUCCESS;
}
