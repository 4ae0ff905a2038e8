// The process lists of NVML: inside a slice, the slice's own processes only.
//
// The hook fetches and filters the whole list, then returns it by NVML's own rule: a buffer that is
// too small gets the number needed and NVML_ERROR_INSUFFICIENT_SIZE. Where NVML uses the pids of
// another namespace than ours (a container), the hook recognises no process and the list is empty.
#include "shim/nvml/hooks.h"
#include "shim/nvml/slice.h"
#include "sys/file.h"

namespace allot::shim {
namespace {

template <class Info>
using ListCall = NvmlCall<nvmlDevice_t, unsigned*, Info*>;
using V1 = nvmlProcessInfo_v1_t;
using V2 = nvmlProcessInfo_v2_t;

constinit ListCall<V1> compute_v1{"nvmlDeviceGetComputeRunningProcesses"};
constinit ListCall<V2> compute_v2{"nvmlDeviceGetComputeRunningProcesses_v2"};
constinit ListCall<V2> compute_v3{"nvmlDeviceGetComputeRunningProcesses_v3"};
constinit ListCall<V1> graphics_v1{"nvmlDeviceGetGraphicsRunningProcesses"};
constinit ListCall<V2> graphics_v2{"nvmlDeviceGetGraphicsRunningProcesses_v2"};
constinit ListCall<V2> graphics_v3{"nvmlDeviceGetGraphicsRunningProcesses_v3"};
constinit ListCall<V1> mps_v1{"nvmlDeviceGetMPSComputeRunningProcesses"};
constinit ListCall<V2> mps_v2{"nvmlDeviceGetMPSComputeRunningProcesses_v2"};
constinit ListCall<V2> mps_v3{"nvmlDeviceGetMPSComputeRunningProcesses_v3"};
constinit NvmlCall<nvmlDevice_t, nvmlProcessDetailList_t*> details{
    "nvmlDeviceGetRunningProcessDetailList"};

// Moves the slice's processes to the front; returns how many.
template <class Info>
unsigned keep_own(const SliceLook& slice, Info* list, unsigned count) {
  unsigned kept = 0;
  for (unsigned i = 0; i < count; ++i) {
    if (slice.has_process(list[i].pid)) list[kept++] = list[i];
  }
  return kept;
}

template <class Info>
nvmlReturn_t hand_out(const Info* list, unsigned kept, unsigned* count, Info* out) {
  const unsigned room = *count;
  *count = kept;
  if (kept > room) return NVML_ERROR_INSUFFICIENT_SIZE;
  if (kept > 0 && out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  for (unsigned i = 0; i < kept; ++i) out[i] = list[i];
  return NVML_SUCCESS;
}

template <class Info, ListCall<Info>& Real>
nvmlReturn_t process_list(nvmlDevice_t handle, unsigned* count, Info* out) {
  const SliceLook slice;
  if (!slice.in_slice() || count == nullptr) return Real(handle, count, out);
  constexpr unsigned kFew = 128;
  Info few[kFew];
  unsigned total = kFew;
  nvmlReturn_t result = Real(handle, &total, few);
  if (result == NVML_SUCCESS) return hand_out(few, keep_own(slice, few, total), count, out);
  if (result != NVML_ERROR_INSUFFICIENT_SIZE) return result;
  total += kFew;  // others may start meanwhile
  const uint64_t room = uint64_t{total} * sizeof(Info);
  const Result<void*> memory = sys::map_memory(room);
  if (!memory) return NVML_ERROR_MEMORY;
  Info* many = static_cast<Info*>(*memory);
  result = Real(handle, &total, many);
  if (result == NVML_SUCCESS) result = hand_out(many, keep_own(slice, many, total), count, out);
  sys::unmap(many, room);
  return result;
}

// NVML fills the caller's array; it is filtered in place.
nvmlReturn_t detail_list(nvmlDevice_t handle, nvmlProcessDetailList_t* list) {
  const nvmlReturn_t result = details(handle, list);
  const SliceLook slice;
  if (result != NVML_SUCCESS || list == nullptr || list->procArray == nullptr ||
      !slice.in_slice()) {
    return result;
  }
  list->numProcArrayEntries = keep_own(slice, list->procArray, list->numProcArrayEntries);
  return result;
}

}  // namespace

std::span<const Hook> nvml_process_hooks() {
  static constexpr Hook hooks[] = {
      nvml_hook<process_list<V1, compute_v1>>("nvmlDeviceGetComputeRunningProcesses"),
      nvml_hook<process_list<V2, compute_v2>>("nvmlDeviceGetComputeRunningProcesses_v2"),
      nvml_hook<process_list<V2, compute_v3>>("nvmlDeviceGetComputeRunningProcesses_v3"),
      nvml_hook<process_list<V1, graphics_v1>>("nvmlDeviceGetGraphicsRunningProcesses"),
      nvml_hook<process_list<V2, graphics_v2>>("nvmlDeviceGetGraphicsRunningProcesses_v2"),
      nvml_hook<process_list<V2, graphics_v3>>("nvmlDeviceGetGraphicsRunningProcesses_v3"),
      nvml_hook<process_list<V1, mps_v1>>("nvmlDeviceGetMPSComputeRunningProcesses"),
      nvml_hook<process_list<V2, mps_v2>>("nvmlDeviceGetMPSComputeRunningProcesses_v2"),
      nvml_hook<process_list<V2, mps_v3>>("nvmlDeviceGetMPSComputeRunningProcesses_v3"),
      nvml_hook<detail_list>("nvmlDeviceGetRunningProcessDetailList"),
  };
  return hooks;
}

}  // namespace allot::shim
