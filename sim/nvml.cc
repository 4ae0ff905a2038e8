// NVML of the software machine: life cycle, handles, who a device is.
#include "nvml.h"

#include <stdio.h>

#include <atomic>

namespace allot::sim {
namespace {
std::atomic<int> g_users{0};
}

bool nvml_ready() {
  return g_users.load() > 0;
}

nvmlReturn_t find_gpu(nvmlDevice_t device, uint32_t* gpu) {
  if (!nvml_ready()) return NVML_ERROR_UNINITIALIZED;
  const auto number = reinterpret_cast<uintptr_t>(device);
  if (number == 0 || number > machine()->gpu_count) return NVML_ERROR_INVALID_ARGUMENT;
  *gpu = static_cast<uint32_t>(number - 1);
  return NVML_SUCCESS;
}

nvmlReturn_t give_text(const std::string& text, char* out, unsigned size) {
  if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  if (text.size() + 1 > size) return NVML_ERROR_INSUFFICIENT_SIZE;
  memcpy(out, text.c_str(), text.size() + 1);
  return NVML_SUCCESS;
}

std::string uuid_of(uint32_t gpu) {
  return uuid_text(machine()->gpus[gpu]);
}

}  // namespace allot::sim

using namespace allot::sim;

SIM_NVML nvmlInit_v2(void) {
  Machine* m = nullptr;
  switch (attach_machine(&m)) {
    case Attach::kOk:
      g_users++;
      return NVML_SUCCESS;
    case Attach::kNoFolder:
      return NVML_ERROR_DRIVER_NOT_LOADED;
    default:
      return NVML_ERROR_UNKNOWN;
  }
}
SIM_NVML nvmlInit(void) {
  return nvmlInit_v2();
}
SIM_NVML nvmlInitWithFlags(unsigned) {
  return nvmlInit_v2();
}

SIM_NVML nvmlShutdown(void) {
  int users = g_users.load();
  while (users > 0 && !g_users.compare_exchange_weak(users, users - 1)) {
  }
  return users > 0 ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
}

extern "C" __attribute__((visibility("default"))) const char* allot_sim_problem() {
  return attach_problem();
}

extern "C" __attribute__((visibility("default"))) const char* nvmlErrorString(nvmlReturn_t result) {
  switch (result) {
    case NVML_SUCCESS:
      return "Success";
    case NVML_ERROR_UNINITIALIZED:
      return "Uninitialized";
    case NVML_ERROR_INVALID_ARGUMENT:
      return "Invalid Argument";
    case NVML_ERROR_NOT_SUPPORTED:
      return "Not Supported";
    case NVML_ERROR_NO_PERMISSION:
      return "Insufficient Permissions";
    case NVML_ERROR_NOT_FOUND:
      return "Not Found";
    case NVML_ERROR_INSUFFICIENT_SIZE:
      return "Insufficient Size";
    case NVML_ERROR_DRIVER_NOT_LOADED:
      return "Driver Not Loaded";
    case NVML_ERROR_ARGUMENT_VERSION_MISMATCH:
      return "Argument Version Mismatch";
    default:
      return "Unknown Error";
  }
}

SIM_NVML nvmlSystemGetDriverVersion(char* out, unsigned size) {
  if (!nvml_ready()) return NVML_ERROR_UNINITIALIZED;
  return give_text("580.159.04", out, size);
}
SIM_NVML nvmlSystemGetNVMLVersion(char* out, unsigned size) {
  if (!nvml_ready()) return NVML_ERROR_UNINITIALIZED;
  return give_text("13.580.159.04", out, size);
}
SIM_NVML nvmlSystemGetCudaDriverVersion(int* version) {
  if (version == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *version = 13000;
  return NVML_SUCCESS;
}
SIM_NVML nvmlSystemGetCudaDriverVersion_v2(int* version) {
  return nvmlSystemGetCudaDriverVersion(version);
}

SIM_NVML nvmlSystemGetProcessName(unsigned pid, char* out, unsigned size) {
  if (!nvml_ready()) return NVML_ERROR_UNINITIALIZED;
  if (out == nullptr || size == 0) return NVML_ERROR_INVALID_ARGUMENT;
  char path[40], text[4096] = {};
  snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
  FILE* file = fopen(path, "re");
  if (file == nullptr) return NVML_ERROR_NOT_FOUND;
  const size_t n = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  if (n == 0) return NVML_ERROR_NOT_FOUND;
  snprintf(out, size, "%s", text);  // up to the first NUL: the program
  return NVML_SUCCESS;
}

SIM_NVML nvmlDeviceGetCount_v2(unsigned* count) {
  if (!nvml_ready()) return NVML_ERROR_UNINITIALIZED;
  if (count == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *count = machine()->gpu_count;
  return NVML_SUCCESS;
}
SIM_NVML nvmlDeviceGetCount(unsigned* count) {
  return nvmlDeviceGetCount_v2(count);
}

SIM_NVML nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t* out) {
  if (!nvml_ready()) return NVML_ERROR_UNINITIALIZED;
  if (out == nullptr || index >= machine()->gpu_count) return NVML_ERROR_INVALID_ARGUMENT;
  *out = handle_of(index);
  return NVML_SUCCESS;
}
SIM_NVML nvmlDeviceGetHandleByIndex(unsigned index, nvmlDevice_t* out) {
  return nvmlDeviceGetHandleByIndex_v2(index, out);
}

SIM_NVML nvmlDeviceGetHandleByUUID(const char* uuid, nvmlDevice_t* out) {
  if (!nvml_ready()) return NVML_ERROR_UNINITIALIZED;
  if (uuid == nullptr || out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  for (uint32_t i = 0; i < machine()->gpu_count; i++) {
    if (uuid_of(i) == uuid) {
      *out = handle_of(i);
      return NVML_SUCCESS;
    }
  }
  return NVML_ERROR_NOT_FOUND;
}

SIM_NVML nvmlDeviceGetHandleByUUIDV(const nvmlUUID_t* uuid, nvmlDevice_t* out) {
  if (!nvml_ready()) return NVML_ERROR_UNINITIALIZED;
  if (uuid == nullptr || out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  if (uuid->version != nvmlUUID_v1) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  if (uuid->type == NVML_UUID_TYPE_ASCII) return nvmlDeviceGetHandleByUUID(uuid->value.str, out);
  if (uuid->type != NVML_UUID_TYPE_BINARY) return NVML_ERROR_INVALID_ARGUMENT;
  for (uint32_t i = 0; i < machine()->gpu_count; i++) {
    if (memcmp(machine()->gpus[i].uuid, uuid->value.bytes, 16) == 0) {
      *out = handle_of(i);
      return NVML_SUCCESS;
    }
  }
  return NVML_ERROR_NOT_FOUND;
}

SIM_NVML nvmlDeviceGetHandleByPciBusId_v2(const char* text, nvmlDevice_t* out) {
  if (!nvml_ready()) return NVML_ERROR_UNINITIALIZED;
  unsigned domain, bus, slot;
  if (text == nullptr || out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  if (sscanf(text, "%x:%x:%x", &domain, &bus, &slot) != 3) return NVML_ERROR_INVALID_ARGUMENT;
  if (domain != 0 || bus != 0 || slot == 0 || slot > machine()->gpu_count)
    return NVML_ERROR_NOT_FOUND;
  *out = handle_of(slot - 1);
  return NVML_SUCCESS;
}
SIM_NVML nvmlDeviceGetHandleByPciBusId(const char* text, nvmlDevice_t* out) {
  return nvmlDeviceGetHandleByPciBusId_v2(text, out);
}
SIM_NVML nvmlDeviceGetHandleBySerial(const char* text, nvmlDevice_t* out) {
  if (!nvml_ready()) return NVML_ERROR_UNINITIALIZED;
  unsigned number = 0;
  if (text == nullptr || out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  if (sscanf(text, "000000000000%u", &number) != 1 || number == 0 ||
      number > machine()->gpu_count) {
    return NVML_ERROR_NOT_FOUND;
  }
  *out = handle_of(number - 1);
  return NVML_SUCCESS;
}

SIM_NVML nvmlDeviceGetIndex(nvmlDevice_t device, unsigned* out) {
  SIM_NVML_GPU(device, gpu);
  if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *out = gpu;
  return NVML_SUCCESS;
}
SIM_NVML nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned* out) {
  return nvmlDeviceGetIndex(device, out);
}
SIM_NVML nvmlDeviceGetName(nvmlDevice_t device, char* out, unsigned size) {
  SIM_NVML_GPU(device, gpu);
  static_cast<void>(gpu);
  return give_text("Software GPU (allot)", out, size);
}
SIM_NVML nvmlDeviceGetUUID(nvmlDevice_t device, char* out, unsigned size) {
  SIM_NVML_GPU(device, gpu);
  return give_text(uuid_of(gpu), out, size);
}
SIM_NVML nvmlDeviceGetSerial(nvmlDevice_t device, char* out, unsigned size) {
  SIM_NVML_GPU(device, gpu);
  return give_text("000000000000" + std::to_string(gpu + 1), out, size);
}

SIM_NVML nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t* out) {
  SIM_NVML_GPU(device, gpu);
  if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  memset(out, 0, sizeof *out);
  out->device = gpu + 1;
  snprintf(out->busId, sizeof out->busId, "00000000:00:%02X.0", (gpu + 1) & 0xffu);
  snprintf(out->busIdLegacy, sizeof out->busIdLegacy, "0000:00:%02X.0", (gpu + 1) & 0xffu);
  return NVML_SUCCESS;
}
SIM_NVML nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_t* out) {
  return nvmlDeviceGetPciInfo_v3(device, out);
}
SIM_NVML nvmlDeviceGetPciInfoExt(nvmlDevice_t device, nvmlPciInfoExt_v1_t* out) {
  SIM_NVML_GPU(device, gpu);
  if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  if (out->version != nvmlPciInfoExt_v1) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  memset(out, 0, sizeof *out);
  out->version = nvmlPciInfoExt_v1;
  out->device = gpu + 1;
  snprintf(out->busId, sizeof out->busId, "00000000:00:%02X.0", (gpu + 1) & 0xffu);
  return NVML_SUCCESS;
}

SIM_NVML nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int* major, int* minor) {
  SIM_NVML_GPU(device, gpu);
  static_cast<void>(gpu);
  if (major == nullptr || minor == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *major = 9;
  *minor = 0;
  return NVML_SUCCESS;
}

// Small facts: one value, the same for every GPU.
#define SIM_NVML_CONSTANT(name, type, value)                \
  SIM_NVML name(nvmlDevice_t device, type* out) {           \
    SIM_NVML_GPU(device, gpu);                              \
    static_cast<void>(gpu);                                 \
    if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT; \
    *out = value;                                           \
    return NVML_SUCCESS;                                    \
  }
SIM_NVML_CONSTANT(nvmlDeviceGetArchitecture, nvmlDeviceArchitecture_t, NVML_DEVICE_ARCH_UNKNOWN)
SIM_NVML_CONSTANT(nvmlDeviceGetBrand, nvmlBrandType_t, NVML_BRAND_UNKNOWN)
SIM_NVML_CONSTANT(nvmlDeviceGetComputeMode, nvmlComputeMode_t, NVML_COMPUTEMODE_DEFAULT)
SIM_NVML_CONSTANT(nvmlDeviceGetPersistenceMode, nvmlEnableState_t, NVML_FEATURE_ENABLED)
SIM_NVML_CONSTANT(nvmlDeviceGetVirtualizationMode, nvmlGpuVirtualizationMode_t,
                  NVML_GPU_VIRTUALIZATION_MODE_NONE)
SIM_NVML_CONSTANT(nvmlDeviceGetPerformanceState, nvmlPstates_t, NVML_PSTATE_0)

SIM_NVML nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned* out) {
  SIM_NVML_GPU(device, gpu);
  static_cast<void>(gpu);
  if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *out = 0;
  return NVML_SUCCESS;
}
