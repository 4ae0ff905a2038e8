// The GPUs of a slice that was given its own (ALLOT_SLICE_OWN_GPUS): NVML counts and numbers these
// only, as cuDeviceGetCount does, so that an index means the same GPU to both and to
// CUDA_VISIBLE_DEVICES.
#include "base/text.h"
#include "core/shared.h"
#include "shim/nvml/hooks.h"
#include "shim/nvml/slice.h"

namespace allot::shim {
namespace {

constinit NvmlCall<unsigned*> real_count{"nvmlDeviceGetCount_v2"};
constinit NvmlCall<unsigned, nvmlDevice_t*> real_by_index{"nvmlDeviceGetHandleByIndex_v2"};
constinit NvmlCall<const char*, nvmlDevice_t*> real_by_uuid{"nvmlDeviceGetHandleByUUID"};
constinit NvmlCall<const char*, nvmlDevice_t*> real_by_bus{"nvmlDeviceGetHandleByPciBusId_v2"};
constinit NvmlCall<const char*, nvmlDevice_t*> real_by_serial{"nvmlDeviceGetHandleBySerial"};
constinit NvmlCall<nvmlDevice_t, unsigned*> real_index{"nvmlDeviceGetIndex"};

// How many GPUs there are; false outside of a slice that has its own.
bool own_gpus(const SliceLook& slice, uint32_t* count) {
  if (!slice.in_slice() || slice.file() == nullptr) return false;
  if ((core::load(slice.file()->header.flags) & ALLOT_SLICE_OWN_GPUS) == 0) return false;
  const uint32_t known = core::load(slice.file()->header.gpu_count);
  *count = known < ALLOT_MAX_GPUS ? known : ALLOT_MAX_GPUS;
  return true;
}

nvmlReturn_t device_count(unsigned* out) {
  const SliceLook slice;
  unsigned all = 0;
  uint32_t count = 0;
  const nvmlReturn_t result = real_count(out != nullptr ? &all : nullptr);
  if (result == NVML_SUCCESS && out != nullptr) *out = own_gpus(slice, &count) ? count : all;
  return result;
}

nvmlReturn_t by_index(unsigned index, nvmlDevice_t* out) {
  const SliceLook slice;
  uint32_t count = 0;
  if (!own_gpus(slice, &count)) return real_by_index(index, out);
  if (index >= count || out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  for (const char* prefix : {"GPU-", "MIG-"}) {
    char room[48];
    TextBuf text(room, sizeof(room));
    text.text(prefix);
    for (int i = 0; i < 16; ++i) {
      if (i == 4 || i == 6 || i == 8 || i == 10) text.put('-');
      text.hex(slice.file()->gpus[index].uuid[i], 2);
    }
    if (real_by_uuid(room, out) == NVML_SUCCESS) return NVML_SUCCESS;
  }
  return NVML_ERROR_NOT_FOUND;
}

// A GPU that was found by another name is none of the slice's.
template <auto& Find>
nvmlReturn_t by_name(const char* name, nvmlDevice_t* out) {
  const SliceLook slice;
  uint32_t count = 0;
  const nvmlReturn_t result = Find(name, out);
  if (result != NVML_SUCCESS || out == nullptr || !own_gpus(slice, &count)) return result;
  uint8_t uuid[16];
  uint32_t index = 0;
  if (identify(*out, uuid, &index) && slice.gpu_of(uuid) >= 0) return result;
  *out = nullptr;
  return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t index_of(nvmlDevice_t device, unsigned* out) {
  const SliceLook slice;
  uint32_t count = 0;
  const nvmlReturn_t result = real_index(device, out);
  if (result != NVML_SUCCESS || out == nullptr || !own_gpus(slice, &count)) return result;
  uint8_t uuid[16];
  uint32_t index = 0;
  const int gpu = identify(device, uuid, &index) ? slice.gpu_of(uuid) : -1;
  if (gpu >= 0) *out = static_cast<unsigned>(gpu);
  return result;
}

}  // namespace

std::span<const Hook> nvml_device_hooks() {
  static constexpr Hook hooks[] = {
      nvml_hook<device_count>("nvmlDeviceGetCount"),
      nvml_hook<device_count>("nvmlDeviceGetCount_v2"),
      nvml_hook<by_index>("nvmlDeviceGetHandleByIndex"),
      nvml_hook<by_index>("nvmlDeviceGetHandleByIndex_v2"),
      nvml_hook<by_name<real_by_uuid>>("nvmlDeviceGetHandleByUUID"),
      nvml_hook<by_name<real_by_bus>>("nvmlDeviceGetHandleByPciBusId"),
      nvml_hook<by_name<real_by_bus>>("nvmlDeviceGetHandleByPciBusId_v2"),
      nvml_hook<by_name<real_by_serial>>("nvmlDeviceGetHandleBySerial"),
      nvml_hook<index_of>("nvmlDeviceGetIndex"),
  };
  return hooks;
}

}  // namespace allot::shim
