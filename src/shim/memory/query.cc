// How much memory there is: cuMemGetInfo and cuDeviceTotalMem answer for the slice. And polls,
// which are only observed.
//
// The driver is called first, so every error and every check of arguments is the driver's own; then
// Ledger::view gives total and free. Slots of dead processes are ended first, so that the memory of
// a process that has just ended is free at once.
#include "core/ledger.h"
#include "shim/memory/charge.h"
#include "shim/memory/driver_memory.h"
#include "shim/memory/pool.h"
#include "shim/process/burst_counter.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/hook_guard.h"
#include "shim/process/hook_lists.h"
#include "shim/process/process.h"

namespace allot::shim {
namespace {

constexpr uint32_t kFewSlots = 16;  // reading /proc for each costs 20 us

// Corrects the driver's figures for the device, after an update of the accounts.
void view(Device& device, uint64_t* free_bytes, uint64_t* total_bytes) {
  keep_accounts(device);
  settle_pools(true);
  // Zombies and children that called exec hold nothing any more, which signal 0 does not tell.
  const uint32_t slots = __atomic_load_n(&process.slice.file->header.slots_high, __ATOMIC_RELAXED);
  reclaim_dead(slots > 1 && slots <= kFewSlots);
  const core::Ledger ledger(process.slice.file);
  const core::Ledger::View view =
      ledger.view(static_cast<uint32_t>(device.gpu), *total_bytes, *free_bytes);
  *free_bytes = view.free_bytes;
  *total_bytes = view.total_bytes;
}

CUresult mem_get_info(const Observing& guard, size_t* free_out, size_t* total_out) {
  const CUresult result = real::cuMemGetInfo_v2(free_out, total_out);
  CUcontext context = nullptr;
  Device* device = result == CUDA_SUCCESS && guard.tracking() ? current_device(&context) : nullptr;
  if (device == nullptr) return result;
  uint64_t free_bytes = free_out ? *free_out : 0;
  uint64_t total_bytes = total_out ? *total_out : device->physical_bytes;
  view(*device, &free_bytes, &total_bytes);
  if (free_out != nullptr) *free_out = free_bytes;
  if (total_out != nullptr) *total_out = total_bytes;
  return result;
}

unsigned narrow(uint64_t bytes) {
  return bytes > UINT32_MAX ? UINT32_MAX : static_cast<unsigned>(bytes);
}

// The 32-bit entry from before CUDA 3.2. The slice's figures come from the 64-bit entry.
CUresult mem_get_info_v1(const Observing& guard, unsigned* free_out, unsigned* total_out) {
  const CUresult result = real::cuMemGetInfo(free_out, total_out);
  CUcontext context = nullptr;
  Device* device = result == CUDA_SUCCESS && guard.tracking() ? current_device(&context) : nullptr;
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  if (device == nullptr || real::cuMemGetInfo_v2(&free_bytes, &total_bytes) != CUDA_SUCCESS)
    return result;
  uint64_t free_wide = free_bytes;
  uint64_t total_wide = total_bytes;
  view(*device, &free_wide, &total_wide);
  if (free_out != nullptr) *free_out = narrow(free_wide);
  if (total_out != nullptr) *total_out = narrow(total_wide);
  return result;
}

// The slice's total of a device of `physical` bytes.
uint64_t total_of(CUdevice ordinal, uint64_t physical) {
  Device* device = device_of(ordinal);
  if (device == nullptr) return physical;
  const core::Ledger ledger(process.slice.file);
  return ledger.view(static_cast<uint32_t>(device->gpu), physical, physical).total_bytes;
}

// A poll: this is how the agent notices the first call of an idle process after an eviction. There
// is no guard while nobody wants to know: a program polls all the time, and nothing is charged.
template <auto& Query, class Handle>
CUresult poll(Handle handle) {
  if (!calls_are_watched() && !bursts_are_counted()) [[likely]]
    return Query(handle);
  const auto guard = Observing::on_the_slow_way();
  const CUresult result = Query(handle);
  if (result == CUDA_SUCCESS && bursts_are_counted()) burst_ends();
  return result;
}

constinit DriverCall<CUstream> stream_query_ptsz{"cuStreamQuery_ptsz"};

CUresult device_total_mem(const Observing& guard, size_t* out, CUdevice ordinal) {
  const CUresult result = real::cuDeviceTotalMem_v2(out, ordinal);
  if (result == CUDA_SUCCESS && guard.tracking() && out != nullptr) *out = total_of(ordinal, *out);
  return result;
}

CUresult device_total_mem_v1(const Observing& guard, unsigned* out, CUdevice ordinal) {
  const CUresult result = real::cuDeviceTotalMem(out, ordinal);
  Device* device = guard.tracking() ? device_of(ordinal) : nullptr;
  if (result == CUDA_SUCCESS && device != nullptr && out != nullptr) {
    *out = narrow(total_of(ordinal, device->physical_bytes));
  }
  return result;
}

}  // namespace

std::span<const Hook> query_hooks() {
  static constexpr Hook hooks[] = {
      hook<mem_get_info_v1>("cuMemGetInfo"),
      hook<mem_get_info>("cuMemGetInfo_v2"),
      hook<device_total_mem_v1>("cuDeviceTotalMem"),
      hook<device_total_mem>("cuDeviceTotalMem_v2"),
      unguarded<poll<real::cuStreamQuery, CUstream>>("cuStreamQuery"),
      unguarded<poll<stream_query_ptsz, CUstream>>("cuStreamQuery_ptsz"),
      unguarded<poll<real::cuEventQuery, CUevent>>("cuEventQuery"),
  };
  return hooks;
}

}  // namespace allot::shim
