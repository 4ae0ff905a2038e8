// Checking copies and sets, and running them at once or in a stream.
#include "copy.h"

#include <string.h>

#include "array.h"
#include "memory.h"

namespace allot::sim {
namespace {

struct Side {
  CUmemorytype type;
  uint64_t pointer;  // host or device
  CUarray array;
  size_t pitch, height, x, y, z;
};

CUresult resolve_side(const Side& s, const CopyBody& extent, CopySide* out) {
  if (s.type == CU_MEMORYTYPE_ARRAY) {
    const Array* a = to_array(s.array);
    if (a == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (s.x + extent.width > at_least_1(a->desc.Width) * a->element ||
        s.y + extent.height > at_least_1(a->desc.Height) ||
        s.z + extent.depth > at_least_1(a->desc.Depth)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    *out = CopySide{a->base + s.z * a->slice + s.y * a->row + s.x, a->row, a->slice};
    return CUDA_SUCCESS;
  }
  const size_t pitch = s.pitch != 0 ? s.pitch : s.x + extent.width;
  if (extent.height > 1 && pitch < s.x + extent.width) return CUDA_ERROR_INVALID_VALUE;
  const size_t height = s.height != 0 ? s.height : s.y + extent.height;
  const size_t slice = pitch * height;
  *out = CopySide{s.pointer + s.z * slice + s.y * pitch + s.x, pitch, slice};
  if (s.pointer == 0) return CUDA_ERROR_INVALID_VALUE;
  if (s.type == CU_MEMORYTYPE_DEVICE) {
    const uint64_t span = (extent.depth - 1) * slice + (extent.height - 1) * pitch + extent.width;
    if (!device_reaches(out->base, span)) return CUDA_ERROR_INVALID_VALUE;
  } else if (s.type != CU_MEMORYTYPE_HOST && s.type != CU_MEMORYTYPE_UNIFIED) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}

bool direct(Context* c, const Stream* s) {
  return idle(c) && !capturing(s) && machine()->gpus[c->gpu].timeline.groups[c->group].stopped == 0;
}

bool known_memory(uint64_t address) {
  std::lock_guard<std::mutex> lock(memory_lock());
  return block_at(address) != nullptr;
}

// Pageable memory: the driver has read the source, or written the target, when the call returns.
CUresult run_pageable(const CopyBody& copy, Stream* s) {
  if (copy.height == 1 && copy.depth == 1 && !known_memory(copy.from.base)) {
    auto bytes = std::make_shared<std::vector<uint8_t>>(copy.width);
    memcpy(bytes->data(), reinterpret_cast<const void*>(copy.from.base), copy.width);
    return submit(s, TaskBody{[bytes, to = copy.to.base] {
                    memcpy(reinterpret_cast<void*>(to), bytes->data(), bytes->size());
                  }});
  }
  if (const CUresult r = submit(s, CopyBody(copy)); r != CUDA_SUCCESS) return r;
  return synchronize(s);
}

}  // namespace

CUresult resolve_copy(const CUDA_MEMCPY3D& m, CopyBody* out) {
  out->width = m.WidthInBytes;
  out->height = m.Height;
  out->depth = m.Depth;
  if (out->width == 0 || out->height == 0 || out->depth == 0) return CUDA_SUCCESS;
  const auto pointer = [](CUmemorytype type, const void* host, CUdeviceptr device) {
    return type == CU_MEMORYTYPE_HOST ? reinterpret_cast<uint64_t>(host)
                                      : static_cast<uint64_t>(device);
  };
  const Side from{m.srcMemoryType, pointer(m.srcMemoryType, m.srcHost, m.srcDevice),
                  m.srcArray,      m.srcPitch,
                  m.srcHeight,     m.srcXInBytes,
                  m.srcY,          m.srcZ};
  const Side to{m.dstMemoryType, pointer(m.dstMemoryType, m.dstHost, m.dstDevice),
                m.dstArray,      m.dstPitch,
                m.dstHeight,     m.dstXInBytes,
                m.dstY,          m.dstZ};
  if (const CUresult r = resolve_side(from, *out, &out->from); r != CUDA_SUCCESS) return r;
  return resolve_side(to, *out, &out->to);
}

CUresult resolve_set(uint64_t to, size_t pitch, uint32_t value, uint32_t element, size_t width,
                     size_t height, SetBody* out) {
  *out = SetBody{to, pitch, width, height, value, element};
  if (width == 0 || height == 0) return CUDA_SUCCESS;
  if ((element != 1 && element != 2 && element != 4) || to % element != 0)
    return CUDA_ERROR_INVALID_VALUE;
  if (height > 1 && pitch < width * element) return CUDA_ERROR_INVALID_VALUE;
  if (!device_reaches(to, (height - 1) * pitch + width * element)) return CUDA_ERROR_INVALID_VALUE;
  return CUDA_SUCCESS;
}

CUresult run_copy(const CopyBody& copy, CUstream stream, bool ptds, When when) {
  Stream* s = nullptr;
  if (const CUresult r = find_stream(stream, ptds, &s); r != CUDA_SUCCESS) return r;
  if (when == When::kSync) {
    if (const CUresult r = refuse_in_capture(s); r != CUDA_SUCCESS) return r;
  }
  if (copy.width == 0 || copy.height == 0 || copy.depth == 0) return CUDA_SUCCESS;
  if (when == When::kSync) {
    if (direct(s->context, s)) return do_copy(copy);
    if (const CUresult r = submit(s, CopyBody(copy)); r != CUDA_SUCCESS) return r;
    return synchronize(s);
  }
  if (!capturing(s) && (!known_memory(copy.from.base) || !known_memory(copy.to.base))) {
    return run_pageable(copy, s);
  }
  return submit(s, CopyBody(copy));
}

CUresult run_set(const SetBody& set, CUstream stream, bool ptds, When when) {
  Stream* s = nullptr;
  if (const CUresult r = find_stream(stream, ptds, &s); r != CUDA_SUCCESS) return r;
  if (when == When::kSync) {
    if (const CUresult r = refuse_in_capture(s); r != CUDA_SUCCESS) return r;
    if (set.width * set.element * set.height <= (1u << 20) && direct(s->context, s))
      return do_set(set);
  }
  if (set.width == 0 || set.height == 0) return CUDA_SUCCESS;
  return submit(s, SetBody(set));
}

}  // namespace allot::sim
