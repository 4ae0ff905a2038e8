// nvmlDeviceGetComputeRunningProcesses and its like of the real library, opened past our own NVML
// library.
//
// We call nvmlInit_v2 once and never shut down: the program's own nvmlShutdown only lowers NVML's
// count.
#include "shim/nvml/client.h"

#include "base/text.h"
#include "shim/nvml/hooks.h"
#include "sys/file.h"
#include "sys/process.h"

namespace allot::shim {
namespace {

constinit NvmlCall<> nvml_init{"nvmlInit_v2"};
constinit NvmlCall<const char*, nvmlDevice_t*> by_uuid{"nvmlDeviceGetHandleByUUID"};
constinit NvmlCall<nvmlDevice_t, unsigned*, nvmlProcessInfo_t*> running{
    "nvmlDeviceGetComputeRunningProcesses_v3"};
constinit NvmlCall<nvmlDevice_t, unsigned*, nvmlProcessInfo_t*> running_v2{
    "nvmlDeviceGetComputeRunningProcesses_v2"};

constinit NvmlCall<nvmlDevice_t, nvmlUtilization_t*> utilization{"nvmlDeviceGetUtilizationRates"};

enum : uint32_t { kUnknown, kReady, kUnusable };
constinit std::atomic<uint32_t> status{kUnknown};

bool usable() {
  uint32_t now = status.load(std::memory_order_acquire);
  if (now == kUnknown) {
    now = nvml_init() == NVML_SUCCESS ? kReady : kUnusable;
    status.store(now, std::memory_order_release);
  }
  return now == kReady;
}

void format_uuid(const char* prefix, const uint8_t uuid[16], char* out, uint32_t size) {
  TextBuf text(out, size);
  text.text(prefix);
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text.put('-');
    text.hex(uuid[i], 2);
  }
}

nvmlDevice_t handle_of(Device& device) {
  if (void* known = device.nvml.load(std::memory_order_acquire))
    return static_cast<nvmlDevice_t>(known);
  for (const char* prefix : {"GPU-", "MIG-"}) {
    char name[64];
    format_uuid(prefix, device.uuid, name, sizeof(name));
    nvmlDevice_t handle = nullptr;
    if (by_uuid(name, &handle) != NVML_SUCCESS || handle == nullptr) continue;
    device.nvml.store(handle, std::memory_order_release);
    return handle;
  }
  return nullptr;
}

nvmlReturn_t list(nvmlDevice_t handle, unsigned* count, nvmlProcessInfo_t* list) {
  return running.present() ? running(handle, count, list) : running_v2(handle, count, list);
}

// Sums the list's entries of `pid`. False when there is none.
bool sum_of(const nvmlProcessInfo_t* list, unsigned count, uint32_t pid, uint64_t* bytes) {
  bool found = false;
  *bytes = 0;
  for (unsigned i = 0; i < count; ++i) {
    if (list[i].pid != pid || list[i].usedGpuMemory == UINT64_MAX) continue;
    *bytes += list[i].usedGpuMemory;
    found = true;
  }
  return found;
}

}  // namespace

bool nvml_busy_percent(Device& device, uint32_t* percent) {
  const nvmlDevice_t handle = usable() ? handle_of(device) : nullptr;
  if (handle == nullptr || !utilization.present()) return false;
  nvmlUtilization_t rates = {};
  if (utilization(handle, &rates) != NVML_SUCCESS || rates.gpu > 100) return false;
  *percent = rates.gpu;
  return true;
}

bool nvml_used_by_me(Device& device, uint64_t* bytes) {
  if (!usable()) return false;
  const nvmlDevice_t handle = handle_of(device);
  if (handle == nullptr) return false;
  constexpr unsigned kFew = 128;
  nvmlProcessInfo_t few[kFew];
  unsigned count = kFew;
  const uint32_t pid = process.pid;
  *bytes = 0;
  nvmlReturn_t result = list(handle, &count, few);
  bool found = false;
  if (result == NVML_SUCCESS) {
    found = sum_of(few, count, pid, bytes);
  } else if (result == NVML_ERROR_INSUFFICIENT_SIZE) {
    count += kFew;  // others may start meanwhile
    const uint64_t room = uint64_t{count} * sizeof(nvmlProcessInfo_t);
    const Result<void*> memory = sys::map_memory(room);
    if (!memory) return false;
    nvmlProcessInfo_t* many = static_cast<nvmlProcessInfo_t*>(*memory);
    result = list(handle, &count, many);
    if (result == NVML_SUCCESS) found = sum_of(many, count, pid, bytes);
    sys::unmap(many, room);
  }
  if (result != NVML_SUCCESS) return false;
  // Not listed: its last context is gone, or NVML knows it under another pid (a container).
  if (found) device.listed.store(true, std::memory_order_release);
  return found || device.listed.load(std::memory_order_acquire);
}

}  // namespace allot::shim
