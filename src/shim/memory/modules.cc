// Loading and unloading of code, which takes memory of the driver's own; NVML shows it afterwards.
//
// Code always needs some room, so a slice with less than a page left refuses it beforehand, as a
// full GPU would. The runtime API loads its kernels by cuLibraryLoadData, one by one as the program
// launches them: after that call the process keeps headroom (driver_memory.cc).
#include "shim/memory/charge.h"
#include "shim/memory/driver_memory.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/hook_guard.h"
#include "shim/process/hook_lists.h"
#include "shim/process/process.h"

namespace allot::shim {
namespace {

enum class Loads : bool { kAtOnce, kLazily };

template <auto& Load, Loads how, class... A>
CUresult load(const Taking& guard, A... arguments) {
  if (!guard.tracking()) return Load(arguments...);
  CUcontext context = nullptr;
  Device* device = current_device(&context);
  const bool first_lazy = how == Loads::kLazily && !process.loads_lazily.exchange(true);
  if (device == nullptr) return Load(arguments...);  // without a context nothing is taken yet
  if (first_lazy) measure_driver_memory(*device, 0);
  if (room_left(*device) < kPage &&
      device->driver.bytes() < device->driver_measured.load() + kPage) {
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  const CUresult result = Load(arguments...);
  if (result == CUDA_SUCCESS) measure_driver_memory(*device, 0);
  return result;
}

template <auto& Unload, class Handle>
CUresult unload(const Observing& guard, Handle handle) {
  const CUresult result = Unload(handle);
  if (result == CUDA_SUCCESS && guard.tracking()) keep_all_accounts();
  return result;
}

}  // namespace

std::span<const Hook> module_hooks() {
  static constexpr Hook hooks[] = {
      hook<load<real::cuModuleLoad, Loads::kAtOnce, CUmodule*, const char*>>("cuModuleLoad"),
      hook<load<real::cuModuleLoadData, Loads::kAtOnce, CUmodule*, const void*>>(
          "cuModuleLoadData"),
      hook<load<real::cuModuleLoadDataEx, Loads::kAtOnce, CUmodule*, const void*, unsigned, void*,
                void**>>("cuModuleLoadDataEx"),
      hook<load<real::cuModuleLoadFatBinary, Loads::kAtOnce, CUmodule*, const void*>>(
          "cuModuleLoadFatBinary"),
      hook<unload<real::cuModuleUnload, CUmodule>>("cuModuleUnload"),
      hook<load<real::cuLibraryLoadData, Loads::kLazily, CUlibrary*, const void*, void*, void**,
                unsigned, void*, void**, unsigned>>("cuLibraryLoadData"),
      hook<load<real::cuLibraryLoadFromFile, Loads::kLazily, CUlibrary*, const char*, void*, void**,
                unsigned, void*, void**, unsigned>>("cuLibraryLoadFromFile"),
      hook<unload<real::cuLibraryUnload, CUlibrary>>("cuLibraryUnload"),
  };
  return hooks;
}

}  // namespace allot::shim
