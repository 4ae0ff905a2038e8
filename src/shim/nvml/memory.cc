// nvmlDeviceGetMemoryInfo and _v2: what nvidia-smi shows inside a slice.
//
// NVML is asked first, so every error is its own. Where the slice has no limit for a GPU, the
// figures are the GPU's own. BAR1 memory is address space, not memory, and stays unchanged.
#include "core/ledger.h"
#include "shim/nvml/hooks.h"
#include "shim/nvml/slice.h"
#include "shim/process/slice_search.h"

namespace allot::shim {
namespace {

constinit NvmlCall<nvmlDevice_t, nvmlMemory_t*> get_memory{"nvmlDeviceGetMemoryInfo"};
constinit NvmlCall<nvmlDevice_t, nvmlMemory_v2_t*> get_memory_v2{"nvmlDeviceGetMemoryInfo_v2"};
constinit NvmlCall<> shutdown{"nvmlShutdown"};

struct Figures {
  uint64_t total;
  uint64_t free;
  uint64_t used;
};

// Turns the GPU's figures into the slice's; false when the slice does not limit this GPU.
bool view(nvmlDevice_t handle, Figures* figures) {
  const SliceLook slice;
  uint8_t uuid[16];
  uint32_t index = 0;
  if (!slice.in_slice() || !identify(handle, uuid, &index)) return false;
  const int gpu = slice.gpu_of(uuid);
  // Before the first process has joined, the environment says what the limit will be.
  const uint64_t limit =
      gpu >= 0 ? __atomic_load_n(&slice.file()->gpus[gpu].limit_bytes, __ATOMIC_ACQUIRE)
               : limit_of(index);
  if (limit >= figures->total) return false;
  const uint64_t used = gpu >= 0 ? slice.used(gpu) : 0;
  const uint64_t left = used < limit ? limit - used : 0;
  // A limit may have been lowered below what is in use: no tool expects more used than there is.
  *figures = {limit, left < figures->free ? left : figures->free, used < limit ? used : limit};
  return true;
}

nvmlReturn_t memory_info(nvmlDevice_t handle, nvmlMemory_t* out) {
  const nvmlReturn_t result = get_memory(handle, out);
  if (result != NVML_SUCCESS || out == nullptr) return result;
  Figures figures = {out->total, out->free, out->used};
  if (view(handle, &figures)) {
    out->total = figures.total;
    out->free = figures.free;
    out->used = figures.used;
  }
  return result;
}

nvmlReturn_t memory_info_v2(nvmlDevice_t handle, nvmlMemory_v2_t* out) {
  const nvmlReturn_t result = get_memory_v2(handle, out);
  if (result != NVML_SUCCESS || out == nullptr) return result;
  Figures figures = {out->total, out->free, out->used};
  if (view(handle, &figures)) {
    out->total = figures.total;
    out->free = figures.free;
    out->used = figures.used;
    out->reserved = 0;  // memory that the GPU reserves does not count against the slice
  }
  return result;
}

nvmlReturn_t shut_down() {
  forget_handles();
  return shutdown();
}

}  // namespace

std::span<const Hook> nvml_memory_hooks() {
  static constexpr Hook hooks[] = {
      nvml_hook<memory_info>("nvmlDeviceGetMemoryInfo"),
      nvml_hook<memory_info_v2>("nvmlDeviceGetMemoryInfo_v2"),
      nvml_hook<shut_down>("nvmlShutdown"),
  };
  return hooks;
}

}  // namespace allot::shim
