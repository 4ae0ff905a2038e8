// The driver as the workloads call it: libcuda.so.1 found at run time, entries by exported name.
//
// Nothing is linked: the same program meets a real driver, the shim in front of it, or the software
// GPU, whichever the loader finds first. Every error is a Failure: 125 when nothing was started (no
// driver, no GPU), 1 when the driver refused something later. What must not happen here: a call to
// a driver entry before cuInit.
#pragma once

#include <cstdint>
#include <string>

#include "base/failure.h"
#include "driver/cuda_abi.h"

namespace allot::bench {

using allot::Failure;

// X(member, exported symbol, result (parameters)). The symbol carries the ABI version.
#define ALLOT_BENCH_ENTRIES(X)                                                                    \
  X(init, "cuInit", CUresult(unsigned))                                                           \
  X(driver_version, "cuDriverGetVersion", CUresult(int*))                                         \
  X(error_name, "cuGetErrorName", CUresult(CUresult, const char**))                               \
  X(device_count, "cuDeviceGetCount", CUresult(int*))                                             \
  X(device_get, "cuDeviceGet", CUresult(CUdevice*, int))                                          \
  X(device_name, "cuDeviceGetName", CUresult(char*, int, CUdevice))                               \
  X(device_attribute, "cuDeviceGetAttribute", CUresult(int*, CUdevice_attribute, CUdevice))       \
  X(device_pci, "cuDeviceGetPCIBusId", CUresult(char*, int, CUdevice))                            \
  X(device_uuid, "cuDeviceGetUuid", CUresult(CUuuid*, CUdevice))                                  \
  X(context_retain, "cuDevicePrimaryCtxRetain", CUresult(CUcontext*, CUdevice))                   \
  X(context_release, "cuDevicePrimaryCtxRelease_v2", CUresult(CUdevice))                          \
  X(context_set, "cuCtxSetCurrent", CUresult(CUcontext))                                          \
  X(context_synchronize, "cuCtxSynchronize", CUresult())                                          \
  X(module_load, "cuModuleLoadData", CUresult(CUmodule*, const void*))                            \
  X(module_unload, "cuModuleUnload", CUresult(CUmodule))                                          \
  X(module_function, "cuModuleGetFunction", CUresult(CUfunction*, CUmodule, const char*))         \
  X(memory_info, "cuMemGetInfo_v2", CUresult(size_t*, size_t*))                                   \
  X(alloc, "cuMemAlloc_v2", CUresult(CUdeviceptr*, size_t))                                       \
  X(alloc_pitch, "cuMemAllocPitch_v2", CUresult(CUdeviceptr*, size_t*, size_t, size_t, unsigned)) \
  X(alloc_managed, "cuMemAllocManaged", CUresult(CUdeviceptr*, size_t, unsigned))                 \
  X(host_alloc, "cuMemHostAlloc", CUresult(void**, size_t, unsigned))                             \
  X(host_free, "cuMemFreeHost", CUresult(void*))                                                  \
  X(host_address, "cuMemHostGetDevicePointer_v2", CUresult(CUdeviceptr*, void*, unsigned))        \
  X(free, "cuMemFree_v2", CUresult(CUdeviceptr))                                                  \
  X(alloc_async, "cuMemAllocAsync", CUresult(CUdeviceptr*, size_t, CUstream))                     \
  X(free_async, "cuMemFreeAsync", CUresult(CUdeviceptr, CUstream))                                \
  X(array_create, "cuArrayCreate_v2", CUresult(CUarray*, const CUDA_ARRAY_DESCRIPTOR*))           \
  X(array_destroy, "cuArrayDestroy", CUresult(CUarray))                                           \
  X(copy_2d, "cuMemcpy2D_v2", CUresult(const CUDA_MEMCPY2D*))                                     \
  X(copy_to_host, "cuMemcpyDtoH_v2", CUresult(void*, CUdeviceptr, size_t))                        \
  X(memset_d8, "cuMemsetD8_v2", CUresult(CUdeviceptr, unsigned char, size_t))                     \
  X(vmm_granularity, "cuMemGetAllocationGranularity",                                             \
    CUresult(size_t*, const CUmemAllocationProp*, CUmemAllocationGranularity_flags))              \
  X(vmm_create, "cuMemCreate",                                                                    \
    CUresult(CUmemGenericAllocationHandle*, size_t, const CUmemAllocationProp*,                   \
             unsigned long long))                                                                 \
  X(vmm_release, "cuMemRelease", CUresult(CUmemGenericAllocationHandle))                          \
  X(vmm_reserve, "cuMemAddressReserve",                                                           \
    CUresult(CUdeviceptr*, size_t, size_t, CUdeviceptr, unsigned long long))                      \
  X(vmm_unreserve, "cuMemAddressFree", CUresult(CUdeviceptr, size_t))                             \
  X(vmm_map, "cuMemMap",                                                                          \
    CUresult(CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long))      \
  X(vmm_unmap, "cuMemUnmap", CUresult(CUdeviceptr, size_t))                                       \
  X(vmm_access, "cuMemSetAccess", CUresult(CUdeviceptr, size_t, const CUmemAccessDesc*, size_t))  \
  X(stream_create, "cuStreamCreate", CUresult(CUstream*, unsigned))                               \
  X(stream_destroy, "cuStreamDestroy_v2", CUresult(CUstream))                                     \
  X(stream_synchronize, "cuStreamSynchronize", CUresult(CUstream))                                \
  X(capture_begin, "cuStreamBeginCapture_v2", CUresult(CUstream, CUstreamCaptureMode))            \
  X(capture_end, "cuStreamEndCapture", CUresult(CUstream, CUgraph*))                              \
  X(event_create, "cuEventCreate", CUresult(CUevent*, unsigned))                                  \
  X(event_destroy, "cuEventDestroy_v2", CUresult(CUevent))                                        \
  X(event_record, "cuEventRecord", CUresult(CUevent, CUstream))                                   \
  X(event_synchronize, "cuEventSynchronize", CUresult(CUevent))                                   \
  X(event_elapsed, "cuEventElapsedTime", CUresult(float*, CUevent, CUevent))                      \
  X(launch, "cuLaunchKernel",                                                                     \
    CUresult(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,    \
             CUstream, void**, void**))                                                           \
  X(graph_create, "cuGraphCreate", CUresult(CUgraph*, unsigned))                                  \
  X(graph_alloc_node, "cuGraphAddMemAllocNode",                                                   \
    CUresult(CUgraphNode*, CUgraph, const CUgraphNode*, size_t, CUDA_MEM_ALLOC_NODE_PARAMS*))     \
  X(graph_instantiate, "cuGraphInstantiateWithFlags",                                             \
    CUresult(CUgraphExec*, CUgraph, unsigned long long))                                          \
  X(graph_launch, "cuGraphLaunch", CUresult(CUgraphExec, CUstream))                               \
  X(graph_exec_destroy, "cuGraphExecDestroy", CUresult(CUgraphExec))                              \
  X(graph_destroy, "cuGraphDestroy", CUresult(CUgraph))                                           \
  X(get_proc_address, "cuGetProcAddress_v2",                                                      \
    CUresult(const char*, void**, int, cuuint64_t, CUdriverProcAddressQueryResult*))

// One driver entry. Calling one that this driver lacks is a Failure, not a jump to null.
template <class Signature>
class Entry;

template <class... Parameters>
class Entry<CUresult(Parameters...)> {
 public:
  void set(const char* symbol, void* address) {
    symbol_ = symbol;
    address_ = reinterpret_cast<CUresult (*)(Parameters...)>(address);
  }
  const char* symbol() const { return symbol_; }
  explicit operator bool() const { return address_ != nullptr; }

  CUresult operator()(Parameters... parameters) const {
    if (address_ == nullptr) {
      throw Failure(1, std::string("the driver has no ") + symbol_ + "; it is too old for this");
    }
    return address_(parameters...);
  }

  // For destructors: a missing entry is a result like any other.
  CUresult quiet(Parameters... parameters) const noexcept {
    return address_ == nullptr ? CUDA_ERROR_NOT_FOUND : address_(parameters...);
  }

 private:
  const char* symbol_ = "?";
  CUresult (*address_)(Parameters...) = nullptr;
};

struct DriverApi {
#define ALLOT_BENCH_MEMBER(member, symbol, ...) Entry<__VA_ARGS__> member;
  ALLOT_BENCH_ENTRIES(ALLOT_BENCH_MEMBER)
#undef ALLOT_BENCH_MEMBER
};

// Opens libcuda.so.1 the way every program does (so the shim, where it is preloaded) and fills in
// the entries it has. The library stays loaded until the process ends. `handle` takes the library.
// Failure 125: no libcuda.so.1. Any thread; allocates; blocks on the file system.
DriverApi load_driver(void** handle = nullptr);

// The entries of one library, already open.
DriverApi entries_of(void* handle);

// "CUDA_ERROR_OUT_OF_MEMORY" for 2 and so on; a number the driver cannot name becomes "CUresult N".
std::string result_name(const DriverApi& api, CUresult result);

}  // namespace allot::bench
