// Entries that copy and set memory: every form ends in run_copy() or run_set().
//
// VARIANTS makes the two exported forms of an entry, with the legacy default stream and with the
// thread's own.
#include <string.h>

#include "copy.h"
#include "memory.h"

using namespace allot::sim;

namespace {

uint64_t address(const void* p) {
  return reinterpret_cast<uint64_t>(p);
}

enum class Where { kHost, kDevice, kAny };

// One dimension. Device operands must be device memory; `kAny` takes what unified addressing takes.
CUresult linear(uint64_t to, Where to_where, uint64_t from, Where from_where, size_t bytes,
                CUstream stream, bool ptds, When when) {
  if (bytes != 0) {
    if (to == 0 || from == 0) return CUDA_ERROR_INVALID_VALUE;
    if (to_where == Where::kDevice && !device_reaches(to, bytes)) return CUDA_ERROR_INVALID_VALUE;
    if (from_where == Where::kDevice && !device_reaches(from, bytes))
      return CUDA_ERROR_INVALID_VALUE;
  }
  CopyBody copy;
  copy.from.base = from;
  copy.to.base = to;
  copy.width = bytes;
  return run_copy(copy, stream, ptds, when);
}

CUresult from_3d(const CUDA_MEMCPY3D* m, CUstream stream, bool ptds, When when) {
  if (m == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CopyBody copy;
  if (const CUresult r = resolve_copy(*m, &copy); r != CUDA_SUCCESS) return r;
  return run_copy(copy, stream, ptds, when);
}

CUresult from_2d(const CUDA_MEMCPY2D* m, CUstream stream, bool ptds, When when) {
  if (m == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUDA_MEMCPY3D m3{};
  m3.srcXInBytes = m->srcXInBytes;
  m3.srcY = m->srcY;
  m3.srcMemoryType = m->srcMemoryType;
  m3.srcHost = m->srcHost;
  m3.srcDevice = m->srcDevice;
  m3.srcArray = m->srcArray;
  m3.srcPitch = m->srcPitch;
  m3.dstXInBytes = m->dstXInBytes;
  m3.dstY = m->dstY;
  m3.dstMemoryType = m->dstMemoryType;
  m3.dstHost = m->dstHost;
  m3.dstDevice = m->dstDevice;
  m3.dstArray = m->dstArray;
  m3.dstPitch = m->dstPitch;
  m3.WidthInBytes = m->WidthInBytes;
  m3.Height = m->Height;
  m3.Depth = 1;
  return from_3d(&m3, stream, ptds, when);
}

// The peer form differs in two fields that mean nothing here: all memory is one address space.
CUresult from_peer(const CUDA_MEMCPY3D_PEER* m, CUstream stream, bool ptds, When when) {
  if (m == nullptr) return CUDA_ERROR_INVALID_VALUE;
  static_assert(sizeof(CUDA_MEMCPY3D_PEER) == sizeof(CUDA_MEMCPY3D));
  CUDA_MEMCPY3D m3;
  memcpy(&m3, m, sizeof m3);
  m3.reserved0 = m3.reserved1 = nullptr;
  return from_3d(&m3, stream, ptds, when);
}

CUresult array_copy(CUarray to_array, uint64_t to, CUmemorytype to_type, size_t to_x,
                    CUarray from_array, uint64_t from, CUmemorytype from_type, size_t from_x,
                    size_t bytes, CUstream stream, bool ptds, When when) {
  CUDA_MEMCPY3D m{};
  m.srcMemoryType = from_type;
  m.srcHost = reinterpret_cast<const void*>(from);
  m.srcDevice = from;
  m.srcArray = from_array;
  m.srcXInBytes = from_x;
  m.dstMemoryType = to_type;
  m.dstHost = reinterpret_cast<void*>(to);
  m.dstDevice = to;
  m.dstArray = to_array;
  m.dstXInBytes = to_x;
  m.WidthInBytes = bytes;
  m.Height = m.Depth = 1;
  return from_3d(&m, stream, ptds, when);
}

CUresult set_1d(CUdeviceptr to, uint32_t value, uint32_t element, size_t count, CUstream stream,
                bool ptds, When when) {
  SetBody set;
  if (const CUresult r = resolve_set(to, 0, value, element, count, 1, &set); r != CUDA_SUCCESS)
    return r;
  return run_set(set, stream, ptds, when);
}

CUresult set_2d(CUdeviceptr to, size_t pitch, uint32_t value, uint32_t element, size_t width,
                size_t height, CUstream stream, bool ptds, When when) {
  SetBody set;
  if (const CUresult r = resolve_set(to, pitch, value, element, width, height, &set);
      r != CUDA_SUCCESS) {
    return r;
  }
  return run_set(set, stream, ptds, when);
}

constexpr When kSync = When::kSync, kAsync = When::kAsync;
constexpr CUmemorytype kH = CU_MEMORYTYPE_HOST, kD = CU_MEMORYTYPE_DEVICE, kA = CU_MEMORYTYPE_ARRAY;

}  // namespace

#define ARGS(...) (__VA_ARGS__)
#define VARIANTS(legacy_name, thread_name, args, call) \
  SIM_API legacy_name args {                           \
    SIM_ENTER();                                       \
    constexpr bool kPtds = false;                      \
    return call;                                       \
  }                                                    \
  SIM_API thread_name args {                           \
    SIM_ENTER();                                       \
    constexpr bool kPtds = true;                       \
    return call;                                       \
  }

VARIANTS(cuMemcpy, cuMemcpy_ptds, ARGS(CUdeviceptr to, CUdeviceptr from, size_t n),
         linear(to, Where::kAny, from, Where::kAny, n, nullptr, kPtds, kSync))
VARIANTS(cuMemcpyAsync, cuMemcpyAsync_ptsz,
         ARGS(CUdeviceptr to, CUdeviceptr from, size_t n, CUstream s),
         linear(to, Where::kAny, from, Where::kAny, n, s, kPtds, kAsync))
VARIANTS(cuMemcpyHtoD_v2, cuMemcpyHtoD_v2_ptds, ARGS(CUdeviceptr to, const void* from, size_t n),
         linear(to, Where::kDevice, address(from), Where::kHost, n, nullptr, kPtds, kSync))
VARIANTS(cuMemcpyDtoH_v2, cuMemcpyDtoH_v2_ptds, ARGS(void* to, CUdeviceptr from, size_t n),
         linear(address(to), Where::kHost, from, Where::kDevice, n, nullptr, kPtds, kSync))
VARIANTS(cuMemcpyDtoD_v2, cuMemcpyDtoD_v2_ptds, ARGS(CUdeviceptr to, CUdeviceptr from, size_t n),
         linear(to, Where::kDevice, from, Where::kDevice, n, nullptr, kPtds, kSync))
VARIANTS(cuMemcpyHtoDAsync_v2, cuMemcpyHtoDAsync_v2_ptsz,
         ARGS(CUdeviceptr to, const void* from, size_t n, CUstream s),
         linear(to, Where::kDevice, address(from), Where::kHost, n, s, kPtds, kAsync))
VARIANTS(cuMemcpyDtoHAsync_v2, cuMemcpyDtoHAsync_v2_ptsz,
         ARGS(void* to, CUdeviceptr from, size_t n, CUstream s),
         linear(address(to), Where::kHost, from, Where::kDevice, n, s, kPtds, kAsync))
VARIANTS(cuMemcpyDtoDAsync_v2, cuMemcpyDtoDAsync_v2_ptsz,
         ARGS(CUdeviceptr to, CUdeviceptr from, size_t n, CUstream s),
         linear(to, Where::kDevice, from, Where::kDevice, n, s, kPtds, kAsync))
VARIANTS(cuMemcpyPeer, cuMemcpyPeer_ptds,
         ARGS(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext, size_t n),
         linear(to, Where::kDevice, from, Where::kDevice, n, nullptr, kPtds, kSync))
VARIANTS(cuMemcpyPeerAsync, cuMemcpyPeerAsync_ptsz,
         ARGS(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext, size_t n, CUstream s),
         linear(to, Where::kDevice, from, Where::kDevice, n, s, kPtds, kAsync))

VARIANTS(cuMemcpy2D_v2, cuMemcpy2D_v2_ptds, ARGS(const CUDA_MEMCPY2D* m),
         from_2d(m, nullptr, kPtds, kSync))
VARIANTS(cuMemcpy2DUnaligned_v2, cuMemcpy2DUnaligned_v2_ptds, ARGS(const CUDA_MEMCPY2D* m),
         from_2d(m, nullptr, kPtds, kSync))
VARIANTS(cuMemcpy2DAsync_v2, cuMemcpy2DAsync_v2_ptsz, ARGS(const CUDA_MEMCPY2D* m, CUstream s),
         from_2d(m, s, kPtds, kAsync))
VARIANTS(cuMemcpy3D_v2, cuMemcpy3D_v2_ptds, ARGS(const CUDA_MEMCPY3D* m),
         from_3d(m, nullptr, kPtds, kSync))
VARIANTS(cuMemcpy3DAsync_v2, cuMemcpy3DAsync_v2_ptsz, ARGS(const CUDA_MEMCPY3D* m, CUstream s),
         from_3d(m, s, kPtds, kAsync))
VARIANTS(cuMemcpy3DPeer, cuMemcpy3DPeer_ptds, ARGS(const CUDA_MEMCPY3D_PEER* m),
         from_peer(m, nullptr, kPtds, kSync))
VARIANTS(cuMemcpy3DPeerAsync, cuMemcpy3DPeerAsync_ptsz,
         ARGS(const CUDA_MEMCPY3D_PEER* m, CUstream s), from_peer(m, s, kPtds, kAsync))

VARIANTS(cuMemcpyHtoA_v2, cuMemcpyHtoA_v2_ptds,
         ARGS(CUarray to, size_t x, const void* from, size_t n),
         array_copy(to, 0, kA, x, nullptr, address(from), kH, 0, n, nullptr, kPtds, kSync))
VARIANTS(cuMemcpyAtoH_v2, cuMemcpyAtoH_v2_ptds, ARGS(void* to, CUarray from, size_t x, size_t n),
         array_copy(nullptr, address(to), kH, 0, from, 0, kA, x, n, nullptr, kPtds, kSync))
VARIANTS(cuMemcpyDtoA_v2, cuMemcpyDtoA_v2_ptds,
         ARGS(CUarray to, size_t x, CUdeviceptr from, size_t n),
         array_copy(to, 0, kA, x, nullptr, from, kD, 0, n, nullptr, kPtds, kSync))
VARIANTS(cuMemcpyAtoD_v2, cuMemcpyAtoD_v2_ptds,
         ARGS(CUdeviceptr to, CUarray from, size_t x, size_t n),
         array_copy(nullptr, to, kD, 0, from, 0, kA, x, n, nullptr, kPtds, kSync))
VARIANTS(cuMemcpyAtoA_v2, cuMemcpyAtoA_v2_ptds,
         ARGS(CUarray to, size_t to_x, CUarray from, size_t from_x, size_t n),
         array_copy(to, 0, kA, to_x, from, 0, kA, from_x, n, nullptr, kPtds, kSync))
VARIANTS(cuMemcpyHtoAAsync_v2, cuMemcpyHtoAAsync_v2_ptsz,
         ARGS(CUarray to, size_t x, const void* from, size_t n, CUstream s),
         array_copy(to, 0, kA, x, nullptr, address(from), kH, 0, n, s, kPtds, kAsync))
VARIANTS(cuMemcpyAtoHAsync_v2, cuMemcpyAtoHAsync_v2_ptsz,
         ARGS(void* to, CUarray from, size_t x, size_t n, CUstream s),
         array_copy(nullptr, address(to), kH, 0, from, 0, kA, x, n, s, kPtds, kAsync))

VARIANTS(cuMemsetD8_v2, cuMemsetD8_v2_ptds, ARGS(CUdeviceptr to, unsigned char v, size_t n),
         set_1d(to, v, 1, n, nullptr, kPtds, kSync))
VARIANTS(cuMemsetD16_v2, cuMemsetD16_v2_ptds, ARGS(CUdeviceptr to, unsigned short v, size_t n),
         set_1d(to, v, 2, n, nullptr, kPtds, kSync))
VARIANTS(cuMemsetD32_v2, cuMemsetD32_v2_ptds, ARGS(CUdeviceptr to, unsigned v, size_t n),
         set_1d(to, v, 4, n, nullptr, kPtds, kSync))
VARIANTS(cuMemsetD8Async, cuMemsetD8Async_ptsz,
         ARGS(CUdeviceptr to, unsigned char v, size_t n, CUstream s),
         set_1d(to, v, 1, n, s, kPtds, kAsync))
VARIANTS(cuMemsetD16Async, cuMemsetD16Async_ptsz,
         ARGS(CUdeviceptr to, unsigned short v, size_t n, CUstream s),
         set_1d(to, v, 2, n, s, kPtds, kAsync))
VARIANTS(cuMemsetD32Async, cuMemsetD32Async_ptsz,
         ARGS(CUdeviceptr to, unsigned v, size_t n, CUstream s),
         set_1d(to, v, 4, n, s, kPtds, kAsync))
VARIANTS(cuMemsetD2D8_v2, cuMemsetD2D8_v2_ptds,
         ARGS(CUdeviceptr to, size_t pitch, unsigned char v, size_t w, size_t h),
         set_2d(to, pitch, v, 1, w, h, nullptr, kPtds, kSync))
VARIANTS(cuMemsetD2D16_v2, cuMemsetD2D16_v2_ptds,
         ARGS(CUdeviceptr to, size_t pitch, unsigned short v, size_t w, size_t h),
         set_2d(to, pitch, v, 2, w, h, nullptr, kPtds, kSync))
VARIANTS(cuMemsetD2D32_v2, cuMemsetD2D32_v2_ptds,
         ARGS(CUdeviceptr to, size_t pitch, unsigned v, size_t w, size_t h),
         set_2d(to, pitch, v, 4, w, h, nullptr, kPtds, kSync))
VARIANTS(cuMemsetD2D8Async, cuMemsetD2D8Async_ptsz,
         ARGS(CUdeviceptr to, size_t pitch, unsigned char v, size_t w, size_t h, CUstream s),
         set_2d(to, pitch, v, 1, w, h, s, kPtds, kAsync))
VARIANTS(cuMemsetD2D16Async, cuMemsetD2D16Async_ptsz,
         ARGS(CUdeviceptr to, size_t pitch, unsigned short v, size_t w, size_t h, CUstream s),
         set_2d(to, pitch, v, 2, w, h, s, kPtds, kAsync))
VARIANTS(cuMemsetD2D32Async, cuMemsetD2D32Async_ptsz,
         ARGS(CUdeviceptr to, size_t pitch, unsigned v, size_t w, size_t h, CUstream s),
         set_2d(to, pitch, v, 4, w, h, s, kPtds, kAsync))
