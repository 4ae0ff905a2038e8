// The driver entries that the shim itself calls, under the vendor's names, in namespace real.
//
// Each is a constant-initialised DriverCall (shim/process/driver_call.h). An entry is here when a
// hook forwards to it or when the accounts need its answer; all other calls of the program take the
// jump stubs. The signatures are those of cuda.h of CUDA 13.0. Where a name exists with and without
// _v2, the one without is the 32-bit entry from before CUDA 3.2.
#pragma once

#include "driver/signature.h"
#include "shim/process/driver_call.h"

namespace allot::shim::real {

#define ALLOT_CALL(name, ...)                                                                \
  static_assert(driver::fits<CUresult (*)(__VA_ARGS__)>(driver::kCudaShapes, #name), #name); \
  inline constinit DriverCall<__VA_ARGS__> name{#name};

ALLOT_CALL(cuInit, unsigned)
ALLOT_CALL(cuGetProcAddress, const char*, void**, int, cuuint64_t)
ALLOT_CALL(cuGetProcAddress_v2, const char*, void**, int, cuuint64_t, int*)

ALLOT_CALL(cuDeviceGetCount, int*)
ALLOT_CALL(cuDeviceGet, CUdevice*, int)
ALLOT_CALL(cuDeviceGetByPCIBusId, CUdevice*, const char*)
ALLOT_CALL(cuDeviceGetUuid, CUuuid*, CUdevice)
ALLOT_CALL(cuDeviceGetUuid_v2, CUuuid*, CUdevice)
ALLOT_CALL(cuDeviceTotalMem, unsigned*, CUdevice)
ALLOT_CALL(cuDeviceTotalMem_v2, size_t*, CUdevice)
ALLOT_CALL(cuMemGetInfo, unsigned*, unsigned*)
ALLOT_CALL(cuMemGetInfo_v2, size_t*, size_t*)

ALLOT_CALL(cuCtxGetCurrent, CUcontext*)
ALLOT_CALL(cuCtxGetDevice, CUdevice*)
ALLOT_CALL(cuCtxPushCurrent_v2, CUcontext)
ALLOT_CALL(cuCtxPopCurrent_v2, CUcontext*)
ALLOT_CALL(cuCtxCreate, CUcontext*, unsigned, CUdevice)
ALLOT_CALL(cuCtxCreate_v2, CUcontext*, unsigned, CUdevice)
ALLOT_CALL(cuCtxCreate_v3, CUcontext*, CUexecAffinityParam*, int, unsigned, CUdevice)
ALLOT_CALL(cuCtxCreate_v4, CUcontext*, CUctxCreateParams*, unsigned, CUdevice)
ALLOT_CALL(cuCtxDestroy, CUcontext)
ALLOT_CALL(cuCtxDestroy_v2, CUcontext)
ALLOT_CALL(cuCtxDetach, CUcontext)
ALLOT_CALL(cuCtxAttach, CUcontext*, unsigned)
ALLOT_CALL(cuCtxGetApiVersion, CUcontext, unsigned*)
ALLOT_CALL(cuGLCtxCreate, CUcontext*, unsigned, CUdevice)
ALLOT_CALL(cuGLCtxCreate_v2, CUcontext*, unsigned, CUdevice)
ALLOT_CALL(cuVDPAUCtxCreate, CUcontext*, unsigned, CUdevice, unsigned, void*)
ALLOT_CALL(cuVDPAUCtxCreate_v2, CUcontext*, unsigned, CUdevice, unsigned, void*)
ALLOT_CALL(cuCtxSynchronize)
ALLOT_CALL(cuCtxSynchronize_v2, CUcontext)
ALLOT_CALL(cuCtxSetLimit, int, size_t)
ALLOT_CALL(cuCtxGetLimit, size_t*, int)
ALLOT_CALL(cuDevicePrimaryCtxRetain, CUcontext*, CUdevice)
ALLOT_CALL(cuDevicePrimaryCtxRelease, CUdevice)
ALLOT_CALL(cuDevicePrimaryCtxRelease_v2, CUdevice)
ALLOT_CALL(cuDevicePrimaryCtxReset, CUdevice)
ALLOT_CALL(cuDevicePrimaryCtxReset_v2, CUdevice)
ALLOT_CALL(cuDevicePrimaryCtxGetState, CUdevice, unsigned*, int*)
ALLOT_CALL(cuGreenCtxCreate, CUgreenCtx*, CUdevResourceDesc, CUdevice, unsigned)
ALLOT_CALL(cuGreenCtxDestroy, CUgreenCtx)

ALLOT_CALL(cuModuleLoad, CUmodule*, const char*)
ALLOT_CALL(cuModuleLoadData, CUmodule*, const void*)
ALLOT_CALL(cuModuleLoadDataEx, CUmodule*, const void*, unsigned, void*, void**)
ALLOT_CALL(cuModuleLoadFatBinary, CUmodule*, const void*)
ALLOT_CALL(cuModuleUnload, CUmodule)
ALLOT_CALL(cuLibraryLoadData, CUlibrary*, const void*, void*, void**, unsigned, void*, void**,
           unsigned)
ALLOT_CALL(cuLibraryLoadFromFile, CUlibrary*, const char*, void*, void**, unsigned, void*, void**,
           unsigned)
ALLOT_CALL(cuLibraryUnload, CUlibrary)

ALLOT_CALL(cuMemAlloc, CUdeviceptr_v1*, unsigned)
ALLOT_CALL(cuMemAlloc_v2, CUdeviceptr*, size_t)
ALLOT_CALL(cuMemAllocPitch, CUdeviceptr_v1*, unsigned*, unsigned, unsigned, unsigned)
ALLOT_CALL(cuMemAllocPitch_v2, CUdeviceptr*, size_t*, size_t, size_t, unsigned)
ALLOT_CALL(cuMemAllocManaged, CUdeviceptr*, size_t, unsigned)
ALLOT_CALL(cuMemFree, CUdeviceptr_v1)
ALLOT_CALL(cuMemFree_v2, CUdeviceptr)
ALLOT_CALL(cuMemGetAddressRange_v2, CUdeviceptr*, size_t*, CUdeviceptr)

ALLOT_CALL(cuArrayCreate, CUarray*, const CUDA_ARRAY_DESCRIPTOR_v1*)
ALLOT_CALL(cuArrayCreate_v2, CUarray*, const CUDA_ARRAY_DESCRIPTOR*)
ALLOT_CALL(cuArray3DCreate, CUarray*, const CUDA_ARRAY3D_DESCRIPTOR_v1*)
ALLOT_CALL(cuArray3DCreate_v2, CUarray*, const CUDA_ARRAY3D_DESCRIPTOR*)
ALLOT_CALL(cuArrayDestroy, CUarray)
ALLOT_CALL(cuMipmappedArrayCreate, CUmipmappedArray*, const CUDA_ARRAY3D_DESCRIPTOR*, unsigned)
ALLOT_CALL(cuMipmappedArrayDestroy, CUmipmappedArray)

ALLOT_CALL(cuMemAllocAsync, CUdeviceptr*, size_t, CUstream)
ALLOT_CALL(cuMemAllocAsync_ptsz, CUdeviceptr*, size_t, CUstream)
ALLOT_CALL(cuMemAllocFromPoolAsync, CUdeviceptr*, size_t, CUmemoryPool, CUstream)
ALLOT_CALL(cuMemAllocFromPoolAsync_ptsz, CUdeviceptr*, size_t, CUmemoryPool, CUstream)
ALLOT_CALL(cuMemFreeAsync, CUdeviceptr, CUstream)
ALLOT_CALL(cuMemFreeAsync_ptsz, CUdeviceptr, CUstream)
ALLOT_CALL(cuMemPoolCreate, CUmemoryPool*, const CUmemPoolProps*)
ALLOT_CALL(cuMemPoolDestroy, CUmemoryPool)
ALLOT_CALL(cuMemPoolTrimTo, CUmemoryPool, size_t)
ALLOT_CALL(cuMemPoolGetAttribute, CUmemoryPool, CUmemPool_attribute, void*)
ALLOT_CALL(cuMemPoolSetAttribute, CUmemoryPool, CUmemPool_attribute, void*)
ALLOT_CALL(cuDeviceGetMemPool, CUmemoryPool*, CUdevice)
ALLOT_CALL(cuDeviceGetDefaultMemPool, CUmemoryPool*, CUdevice)
ALLOT_CALL(cuMemGetDefaultMemPool, CUmemoryPool*, CUmemLocation*, CUmemAllocationType)
ALLOT_CALL(cuMemGetMemPool, CUmemoryPool*, CUmemLocation*, CUmemAllocationType)
ALLOT_CALL(cuMemPoolExportPointer, CUmemPoolPtrExportData*, CUdeviceptr)
ALLOT_CALL(cuMemPoolImportPointer, CUdeviceptr*, CUmemoryPool, CUmemPoolPtrExportData*)
ALLOT_CALL(cuStreamGetCtx, CUstream, CUcontext*)
ALLOT_CALL(cuStreamCreate, CUstream*, unsigned)
ALLOT_CALL(cuStreamCreateWithPriority, CUstream*, unsigned, int)
ALLOT_CALL(cuGreenCtxStreamCreate, CUstream*, CUgreenCtx, unsigned, int)
ALLOT_CALL(cuCtxFromGreenCtx, CUcontext*, CUgreenCtx)
ALLOT_CALL(cuStreamDestroy, CUstream)
ALLOT_CALL(cuStreamDestroy_v2, CUstream)
ALLOT_CALL(cuStreamQuery, CUstream)
ALLOT_CALL(cuStreamWaitEvent, CUstream, CUevent, unsigned)
ALLOT_CALL(cuStreamWaitEvent_ptsz, CUstream, CUevent, unsigned)
ALLOT_CALL(cuStreamIsCapturing, CUstream, CUstreamCaptureStatus*)
ALLOT_CALL(cuStreamIsCapturing_ptsz, CUstream, CUstreamCaptureStatus*)
ALLOT_CALL(cuStreamBeginCapture, CUstream)
ALLOT_CALL(cuStreamBeginCapture_ptsz, CUstream)
ALLOT_CALL(cuStreamBeginCapture_v2, CUstream, CUstreamCaptureMode)
ALLOT_CALL(cuStreamBeginCapture_v2_ptsz, CUstream, CUstreamCaptureMode)
ALLOT_CALL(cuStreamBeginCaptureToGraph, CUstream, CUgraph, const CUgraphNode*,
           const CUgraphEdgeData*, size_t, CUstreamCaptureMode)
ALLOT_CALL(cuStreamBeginCaptureToGraph_ptsz, CUstream, CUgraph, const CUgraphNode*,
           const CUgraphEdgeData*, size_t, CUstreamCaptureMode)
ALLOT_CALL(cuStreamBeginRecaptureToGraph, CUstream, CUstreamCaptureMode, CUgraph, void*, void*)
ALLOT_CALL(cuStreamBeginRecaptureToGraph_ptsz, CUstream, CUstreamCaptureMode, CUgraph, void*, void*)
ALLOT_CALL(cuStreamBeginCaptureToCig, CUstream, void*)
ALLOT_CALL(cuStreamBeginCaptureToCig_ptsz, CUstream, void*)
ALLOT_CALL(cuStreamEndCaptureToCig, CUstream)
ALLOT_CALL(cuStreamEndCaptureToCig_ptsz, CUstream)
ALLOT_CALL(cuStreamEndCapture, CUstream, CUgraph*)
ALLOT_CALL(cuStreamEndCapture_ptsz, CUstream, CUgraph*)
ALLOT_CALL(cuThreadExchangeStreamCaptureMode, CUstreamCaptureMode*)
ALLOT_CALL(cuEventCreate, CUevent*, unsigned)
ALLOT_CALL(cuEventDestroy_v2, CUevent)
ALLOT_CALL(cuEventElapsedTime, float*, CUevent, CUevent)
ALLOT_CALL(cuEventQuery, CUevent)
ALLOT_CALL(cuEventRecord, CUevent, CUstream)
ALLOT_CALL(cuEventRecord_ptsz, CUevent, CUstream)
ALLOT_CALL(cuStreamSynchronize, CUstream)
ALLOT_CALL(cuStreamSynchronize_ptsz, CUstream)
ALLOT_CALL(cuEventSynchronize, CUevent)

ALLOT_CALL(cuMemCreate, CUmemGenericAllocationHandle*, size_t, const CUmemAllocationProp*,
           unsigned long long)
ALLOT_CALL(cuMemRelease, CUmemGenericAllocationHandle)
ALLOT_CALL(cuMemMap, CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long)
ALLOT_CALL(cuMemUnmap, CUdeviceptr, size_t)
ALLOT_CALL(cuMemRetainAllocationHandle, CUmemGenericAllocationHandle*, void*)
ALLOT_CALL(cuMemExportToShareableHandle, void*, CUmemGenericAllocationHandle,
           CUmemAllocationHandleType, unsigned long long)
ALLOT_CALL(cuMemImportFromShareableHandle, CUmemGenericAllocationHandle*, void*,
           CUmemAllocationHandleType)
ALLOT_CALL(cuMemGetAllocationPropertiesFromHandle, CUmemAllocationProp*,
           CUmemGenericAllocationHandle)
ALLOT_CALL(cuMemMapArrayAsync, CUarrayMapInfo*, unsigned, CUstream)
ALLOT_CALL(cuMemMapArrayAsync_ptsz, CUarrayMapInfo*, unsigned, CUstream)
ALLOT_CALL(cuMulticastCreate, CUmemGenericAllocationHandle*, const CUmulticastObjectProp*)
ALLOT_CALL(cuMulticastBindMem, CUmemGenericAllocationHandle, size_t, CUmemGenericAllocationHandle,
           size_t, size_t, unsigned long long)
ALLOT_CALL(cuMulticastBindAddr, CUmemGenericAllocationHandle, size_t, CUdeviceptr, size_t,
           unsigned long long)
ALLOT_CALL(cuMulticastUnbind, CUmemGenericAllocationHandle, CUdevice, size_t, size_t)

ALLOT_CALL(cuMemAddressReserve, CUdeviceptr*, size_t, size_t, CUdeviceptr, unsigned long long)
ALLOT_CALL(cuMemAddressFree, CUdeviceptr, size_t)
ALLOT_CALL(cuMemSetAccess, CUdeviceptr, size_t, const CUmemAccessDesc*, size_t)
ALLOT_CALL(cuMemGetAllocationGranularity, size_t*, const CUmemAllocationProp*,
           CUmemAllocationGranularity_flags)
ALLOT_CALL(cuMemHostAlloc, void**, size_t, unsigned)
ALLOT_CALL(cuMemFreeHost, void*)
ALLOT_CALL(cuMemcpyDtoHAsync_v2, void*, CUdeviceptr, size_t, CUstream)
ALLOT_CALL(cuMemcpyHtoDAsync_v2, CUdeviceptr, const void*, size_t, CUstream)
ALLOT_CALL(cuPointerGetAttribute, void*, CUpointer_attribute, CUdeviceptr)
ALLOT_CALL(cuPointerGetAttributes, unsigned, CUpointer_attribute*, void**, CUdeviceptr)
ALLOT_CALL(cuPointerSetAttribute, const void*, CUpointer_attribute, CUdeviceptr)
ALLOT_CALL(cuMemGetHandleForAddressRange, void*, CUdeviceptr, size_t, CUmemRangeHandleType,
           unsigned long long)
ALLOT_CALL(cuCtxEnablePeerAccess, CUcontext, unsigned)

ALLOT_CALL(cuIpcGetMemHandle, CUipcMemHandle*, CUdeviceptr)
ALLOT_CALL(cuIpcOpenMemHandle, CUdeviceptr*, CUipcMemHandle, unsigned)
ALLOT_CALL(cuIpcOpenMemHandle_v2, CUdeviceptr*, CUipcMemHandle, unsigned)
ALLOT_CALL(cuIpcCloseMemHandle, CUdeviceptr)
ALLOT_CALL(cuImportExternalMemory, CUexternalMemory*, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC*)
ALLOT_CALL(cuDestroyExternalMemory, CUexternalMemory)

ALLOT_CALL(cuGraphInstantiate, CUgraphExec*, CUgraph, CUgraphNode*, char*, size_t)
ALLOT_CALL(cuGraphInstantiate_v2, CUgraphExec*, CUgraph, CUgraphNode*, char*, size_t)
ALLOT_CALL(cuGraphInstantiateWithFlags, CUgraphExec*, CUgraph, unsigned long long)
ALLOT_CALL(cuGraphInstantiateWithParams, CUgraphExec*, CUgraph, CUDA_GRAPH_INSTANTIATE_PARAMS*)
ALLOT_CALL(cuGraphInstantiateWithParams_ptsz, CUgraphExec*, CUgraph, CUDA_GRAPH_INSTANTIATE_PARAMS*)
ALLOT_CALL(cuGraphExecDestroy, CUgraphExec)
ALLOT_CALL(cuGraphLaunch, CUgraphExec, CUstream)
ALLOT_CALL(cuGraphLaunch_ptsz, CUgraphExec, CUstream)
ALLOT_CALL(cuGraphUpload, CUgraphExec, CUstream)
ALLOT_CALL(cuGraphUpload_ptsz, CUgraphExec, CUstream)
ALLOT_CALL(cuGraphGetNodes, CUgraph, CUgraphNode*, size_t*)
ALLOT_CALL(cuGraphNodeGetType, CUgraphNode, CUgraphNodeType*)
ALLOT_CALL(cuGraphChildGraphNodeGetGraph, CUgraphNode, CUgraph*)
ALLOT_CALL(cuGraphMemAllocNodeGetParams, CUgraphNode, CUDA_MEM_ALLOC_NODE_PARAMS*)
ALLOT_CALL(cuDeviceGetGraphMemAttribute, CUdevice, CUgraphMem_attribute, void*)
ALLOT_CALL(cuDeviceGraphMemTrim, CUdevice)

#undef ALLOT_CALL

}  // namespace allot::shim::real
