// Finding the driver. No version check: a missing entry fails where it is used, by name.
#include "bench/driver_api.h"

#include <dlfcn.h>

namespace allot::bench {

DriverApi entries_of(void* handle) {
  DriverApi api;
#define ALLOT_BENCH_LOAD(member, symbol, ...) api.member.set(symbol, dlsym(handle, symbol));
  ALLOT_BENCH_ENTRIES(ALLOT_BENCH_LOAD)
#undef ALLOT_BENCH_LOAD
  return api;
}

DriverApi load_driver(void** handle) {
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = dlerror();
    throw Failure(125, std::string("no CUDA driver: libcuda.so.1 cannot be loaded (") +
                           (why != nullptr ? why : "no reason given") +
                           "); install the NVIDIA driver or use the software GPU (--sim)");
  }
  if (handle != nullptr) *handle = library;
  return entries_of(library);
}

std::string result_name(const DriverApi& api, CUresult result) {
  const char* name = nullptr;
  if (api.error_name && api.error_name(result, &name) == CUDA_SUCCESS && name != nullptr) {
    return name;
  }
  return "CUresult " + std::to_string(static_cast<int>(result));
}

}  // namespace allot::bench
