// The driver as a test program calls it: entries found with dlsym, by exported symbol.
//
// Cuda("libcuda.so.1") is what a program gets (the shim, in a slice); Cuda(path) any other copy.
// Kept apart from the shim's own list of calls on purpose: a wrong signature there must not be
// repeated here.
#pragma once

#include <dlfcn.h>

#include "driver/cuda_abi.h"

namespace allot::shim_test {

template <class... A>
class Entry {
 public:
  Entry(void* library, const char* symbol)
      : function_(reinterpret_cast<CUresult (*)(A...)>(dlsym(library, symbol))) {}
  // CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND for an entry that the library does not have.
  CUresult operator()(A... arguments) const {
    return function_ != nullptr ? function_(arguments...)
                                : CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND;
  }
  void* address() const { return reinterpret_cast<void*>(function_); }

 private:
  CUresult (*function_)(A...);
};

#define ALLOT_TEST_ENTRIES(X)                                                                \
  X(cuInit, unsigned)                                                                        \
  X(cuDeviceGetCount, int*)                                                                  \
  X(cuDeviceTotalMem_v2, size_t*, CUdevice)                                                  \
  X(cuDeviceGetUuid_v2, CUuuid*, CUdevice)                                                   \
  X(cuMemGetInfo_v2, size_t*, size_t*)                                                       \
  X(cuCtxCreate_v2, CUcontext*, unsigned, CUdevice)                                          \
  X(cuCtxDestroy_v2, CUcontext)                                                              \
  X(cuCtxSetCurrent, CUcontext)                                                              \
  X(cuCtxSynchronize)                                                                        \
  X(cuDevicePrimaryCtxRetain, CUcontext*, CUdevice)                                          \
  X(cuDevicePrimaryCtxRelease_v2, CUdevice)                                                  \
  X(cuDevicePrimaryCtxReset_v2, CUdevice)                                                    \
  X(cuDeviceTotalMem, unsigned*, CUdevice)                                                   \
  X(cuMemGetInfo, unsigned*, unsigned*)                                                      \
  X(cuMemAlloc, CUdeviceptr_v1*, unsigned)                                                   \
  X(cuMemAllocPitch, CUdeviceptr_v1*, unsigned*, unsigned, unsigned, unsigned)               \
  X(cuMemFree, CUdeviceptr_v1)                                                               \
  X(cuArrayCreate, CUarray*, const CUDA_ARRAY_DESCRIPTOR_v1*)                                \
  X(cuArray3DCreate, CUarray*, const CUDA_ARRAY3D_DESCRIPTOR_v1*)                            \
  X(cuImportExternalMemory, CUexternalMemory*, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC*)      \
  X(cuExternalMemoryGetMappedBuffer, CUdeviceptr*, CUexternalMemory,                         \
    const CUDA_EXTERNAL_MEMORY_BUFFER_DESC*)                                                 \
  X(cuDestroyExternalMemory, CUexternalMemory)                                               \
  X(cuMemcpyDtoH_v2, void*, CUdeviceptr, size_t)                                             \
  X(cuMemcpyHtoD_v2, CUdeviceptr, const void*, size_t)                                       \
  X(cuMemAlloc_v2, CUdeviceptr*, size_t)                                                     \
  X(cuMemAllocPitch_v2, CUdeviceptr*, size_t*, size_t, size_t, unsigned)                     \
  X(cuMemAllocManaged, CUdeviceptr*, size_t, unsigned)                                       \
  X(cuMemFree_v2, CUdeviceptr)                                                               \
  X(cuArrayCreate_v2, CUarray*, const CUDA_ARRAY_DESCRIPTOR*)                                \
  X(cuArray3DCreate_v2, CUarray*, const CUDA_ARRAY3D_DESCRIPTOR*)                            \
  X(cuArrayDestroy, CUarray)                                                                 \
  X(cuMipmappedArrayCreate, CUmipmappedArray*, const CUDA_ARRAY3D_DESCRIPTOR*, unsigned)     \
  X(cuMipmappedArrayDestroy, CUmipmappedArray)                                               \
  X(cuMemAllocAsync, CUdeviceptr*, size_t, CUstream)                                         \
  X(cuMemAllocAsync_ptsz, CUdeviceptr*, size_t, CUstream)                                    \
  X(cuMemAllocFromPoolAsync, CUdeviceptr*, size_t, CUmemoryPool, CUstream)                   \
  X(cuMemFreeAsync, CUdeviceptr, CUstream)                                                   \
  X(cuMemPoolCreate, CUmemoryPool*, const CUmemPoolProps*)                                   \
  X(cuMemPoolDestroy, CUmemoryPool)                                                          \
  X(cuMemPoolTrimTo, CUmemoryPool, size_t)                                                   \
  X(cuMemPoolSetAttribute, CUmemoryPool, CUmemPool_attribute, void*)                         \
  X(cuDeviceGetDefaultMemPool, CUmemoryPool*, CUdevice)                                      \
  X(cuStreamCreate, CUstream*, unsigned)                                                     \
  X(cuStreamSynchronize, CUstream)                                                           \
  X(cuStreamBeginCapture_v2, CUstream, int)                                                  \
  X(cuStreamEndCapture, CUstream, CUgraph*)                                                  \
  X(cuGraphCreate, CUgraph*, unsigned)                                                       \
  X(cuGraphDestroy, CUgraph)                                                                 \
  X(cuGraphAddMemAllocNode, CUgraphNode*, CUgraph, const CUgraphNode*, size_t,               \
    CUDA_MEM_ALLOC_NODE_PARAMS*)                                                             \
  X(cuGraphAddMemFreeNode, CUgraphNode*, CUgraph, const CUgraphNode*, size_t, CUdeviceptr)   \
  X(cuGraphInstantiateWithFlags, CUgraphExec*, CUgraph, unsigned long long)                  \
  X(cuGraphLaunch, CUgraphExec, CUstream)                                                    \
  X(cuGraphExecDestroy, CUgraphExec)                                                         \
  X(cuDeviceGraphMemTrim, CUdevice)                                                          \
  X(cuMemCreate, CUmemGenericAllocationHandle*, size_t, const CUmemAllocationProp*,          \
    unsigned long long)                                                                      \
  X(cuMemRelease, CUmemGenericAllocationHandle)                                              \
  X(cuMemAddressReserve, CUdeviceptr*, size_t, size_t, CUdeviceptr, unsigned long long)      \
  X(cuMemAddressFree, CUdeviceptr, size_t)                                                   \
  X(cuMemMap, CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long) \
  X(cuMemUnmap, CUdeviceptr, size_t)                                                         \
  X(cuMemRetainAllocationHandle, CUmemGenericAllocationHandle*, void*)                       \
  X(cuIpcGetMemHandle, CUipcMemHandle*, CUdeviceptr)                                         \
  X(cuIpcOpenMemHandle_v2, CUdeviceptr*, CUipcMemHandle, unsigned)                           \
  X(cuIpcCloseMemHandle, CUdeviceptr)                                                        \
  X(cuGetProcAddress, const char*, void**, int, cuuint64_t)                                  \
  X(cuGetProcAddress_v2, const char*, void**, int, cuuint64_t, int*)

struct Cuda {
  void* library;
  explicit Cuda(const char* path = "libcuda.so.1") : library(dlopen(path, RTLD_NOW | RTLD_LOCAL)) {}
#define X(name, ...) const Entry<__VA_ARGS__> name{library, #name};
  ALLOT_TEST_ENTRIES(X)
#undef X
};

// An entry that few tests need.
template <class... A>
CUresult call(const Cuda& cuda, const char* symbol, A... arguments) {
  return Entry<A...>(cuda.library, symbol)(arguments...);
}

}  // namespace allot::shim_test
