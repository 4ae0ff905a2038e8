// Entries of arrays and mipmapped arrays.
#include "array.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "handles.h"
#include "memory.h"
#include "runtime.h"
#include "vmm.h"

namespace allot::sim {

struct Mipmap {
  uint32_t magic = kMipmapMagic;
  CUDA_ARRAY3D_DESCRIPTOR desc{};
  Block* block = nullptr;
  std::vector<Array*> levels;
};

uint32_t format_bytes(CUarray_format format) {
  switch (format) {
    case CU_AD_FORMAT_UNSIGNED_INT8:
    case CU_AD_FORMAT_SIGNED_INT8:
      return 1;
    case CU_AD_FORMAT_UNSIGNED_INT16:
    case CU_AD_FORMAT_SIGNED_INT16:
    case CU_AD_FORMAT_HALF:
      return 2;
    case CU_AD_FORMAT_UNSIGNED_INT32:
    case CU_AD_FORMAT_SIGNED_INT32:
    case CU_AD_FORMAT_FLOAT:
      return 4;
    default:
      return 0;
  }
}

namespace {

uint64_t round_up(uint64_t n, uint64_t to) {
  return (n + to - 1) / to * to;
}

bool is_3d(const CUDA_ARRAY3D_DESCRIPTOR& d) {
  return d.Depth > 1 && (d.Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP)) == 0;
}

// Strides of an array of this shape.
void lay_out(const CUDA_ARRAY3D_DESCRIPTOR& d, uint32_t element, size_t* row, size_t* slice) {
  const size_t height = at_least_1(d.Height);
  size_t block = 8;
  while (block < (is_3d(d) ? 16 : 128) && block < height) block *= 2;
  *row = round_up(at_least_1(d.Width) * element, 64);
  *slice = *row * (d.Height <= 1 ? 1 : round_up(height, block));
}

CUresult check(const CUDA_ARRAY3D_DESCRIPTOR* d, uint32_t* element) {
  if (d == nullptr || d->Width == 0) return CUDA_ERROR_INVALID_VALUE;
  if (d->NumChannels != 1 && d->NumChannels != 2 && d->NumChannels != 4)
    return CUDA_ERROR_INVALID_VALUE;
  if ((d->Flags & CUDA_ARRAY3D_DEFERRED_MAPPING) != 0) return CUDA_ERROR_NOT_SUPPORTED;
  const uint32_t bytes = format_bytes(d->Format);
  if (bytes == 0) return CUDA_ERROR_NOT_SUPPORTED;  // packed and video formats
  if (d->Width > 131072 || d->Height > 65536 || d->Depth > 16384) return CUDA_ERROR_INVALID_VALUE;
  *element = bytes * d->NumChannels;
  return CUDA_SUCCESS;
}

Array* make_array(const CUDA_ARRAY3D_DESCRIPTOR& d, uint32_t element, Context* c) {
  auto* a = Handles<Array>::make();
  a->desc = d;
  a->element = element;
  a->context = c;
  lay_out(d, element, &a->row, &a->slice);
  return a;
}

uint64_t bytes_of(const Array* a) {
  return a->slice * at_least_1(a->desc.Depth);
}

CUresult create(CUarray* out, const CUDA_ARRAY3D_DESCRIPTOR* d) {
  Context* c = nullptr;
  if (const CUresult r = current_context(&c); r != CUDA_SUCCESS) return r;
  uint32_t element = 0;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (const CUresult r = check(d, &element); r != CUDA_SUCCESS) return r;
  Array* a = make_array(*d, element, c);
  *out = reinterpret_cast<CUarray>(a);
  if ((d->Flags & CUDA_ARRAY3D_SPARSE) != 0) return CUDA_SUCCESS;  // its memory is mapped into it
  a->block = allocate_block(c->gpu, c->device, c, Kind::kArray, bytes_of(a));
  if (a->block == nullptr) {
    Handles<Array>::bury(a);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  a->base = a->block->base;
  return CUDA_SUCCESS;
}

CUresult requirements(CUDA_ARRAY_MEMORY_REQUIREMENTS* out, uint64_t bytes) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  memset(out, 0, sizeof *out);
  out->size = round_up(bytes, kPageBytes);
  out->alignment = kPageBytes;
  return CUDA_SUCCESS;
}

Mipmap* to_mipmap(CUmipmappedArray handle) {
  auto* m = reinterpret_cast<Mipmap*>(handle);
  return m != nullptr && m->magic == kMipmapMagic ? m : nullptr;
}

}  // namespace
}  // namespace allot::sim

using namespace allot::sim;

SIM_API cuArrayCreate_v2(CUarray* out, const CUDA_ARRAY_DESCRIPTOR* d) {
  SIM_ENTER();
  if (d == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUDA_ARRAY3D_DESCRIPTOR full{d->Width, d->Height, 0, d->Format, d->NumChannels, 0};
  return create(out, &full);
}

SIM_API cuArray3DCreate_v2(CUarray* out, const CUDA_ARRAY3D_DESCRIPTOR* d) {
  SIM_ENTER();
  return create(out, d);
}

SIM_API cuArrayDestroy(CUarray handle) {
  SIM_CONTEXT(c);
  Array* a = to_array(handle);
  if (a == nullptr || a->mipmap != nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (!idle(a->context)) {
    if (const CUresult r = synchronize(a->context); r != CUDA_SUCCESS) return r;
  }
  if (a->block != nullptr) release_block(a->block);
  unbind_all(reinterpret_cast<uint64_t>(a));
  Handles<Array>::bury(a);
  static_cast<void>(c);
  return CUDA_SUCCESS;
}

SIM_API cuArrayGetDescriptor_v2(CUDA_ARRAY_DESCRIPTOR* out, CUarray handle) {
  SIM_ENTER();
  const Array* a = to_array(handle);
  if (a == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = CUDA_ARRAY_DESCRIPTOR{a->desc.Width, a->desc.Height, a->desc.Format, a->desc.NumChannels};
  return CUDA_SUCCESS;
}

SIM_API cuArray3DGetDescriptor_v2(CUDA_ARRAY3D_DESCRIPTOR* out, CUarray handle) {
  SIM_ENTER();
  const Array* a = to_array(handle);
  if (a == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = a->desc;
  return CUDA_SUCCESS;
}

SIM_API cuArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS* out, CUarray handle,
                                     CUdevice) {
  SIM_ENTER();
  const Array* a = to_array(handle);
  return a != nullptr ? requirements(out, bytes_of(a)) : CUDA_ERROR_INVALID_HANDLE;
}

SIM_API cuMipmappedArrayCreate(CUmipmappedArray* out, const CUDA_ARRAY3D_DESCRIPTOR* d,
                               unsigned levels) {
  SIM_CONTEXT(c);
  uint32_t element = 0;
  if (out == nullptr || levels == 0) return CUDA_ERROR_INVALID_VALUE;
  if (const CUresult r = check(d, &element); r != CUDA_SUCCESS) return r;
  auto* m = Handles<Mipmap>::make();
  m->desc = *d;
  uint64_t bytes = 0;
  CUDA_ARRAY3D_DESCRIPTOR level = *d;
  for (unsigned i = 0; i < levels; i++) {
    Array* a = make_array(level, element, c);
    a->mipmap = m;
    a->base = bytes;  // made an address below
    bytes += round_up(bytes_of(a), 512);
    m->levels.push_back(a);
    level.Width = std::max<size_t>(level.Width / 2, 1);
    if (level.Height > 0) level.Height = std::max<size_t>(level.Height / 2, 1);
    if (is_3d(*d)) level.Depth = std::max<size_t>(level.Depth / 2, 1);
  }
  m->block = allocate_block(c->gpu, c->device, c, Kind::kArray, bytes);
  if (m->block == nullptr) {
    for (Array* a : m->levels) Handles<Array>::bury(a);
    Handles<Mipmap>::bury(m);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  for (Array* a : m->levels) a->base += m->block->base;
  *out = reinterpret_cast<CUmipmappedArray>(m);
  return CUDA_SUCCESS;
}

SIM_API cuMipmappedArrayGetLevel(CUarray* out, CUmipmappedArray handle, unsigned level) {
  SIM_ENTER();
  const Mipmap* m = to_mipmap(handle);
  if (m == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr || level >= m->levels.size()) return CUDA_ERROR_INVALID_VALUE;
  *out = reinterpret_cast<CUarray>(m->levels[level]);
  return CUDA_SUCCESS;
}

SIM_API cuMipmappedArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS* out,
                                              CUmipmappedArray handle, CUdevice) {
  SIM_ENTER();
  const Mipmap* m = to_mipmap(handle);
  return m != nullptr ? requirements(out, m->block->span) : CUDA_ERROR_INVALID_HANDLE;
}

SIM_API cuMipmappedArrayDestroy(CUmipmappedArray handle) {
  SIM_CONTEXT(c);
  Mipmap* m = to_mipmap(handle);
  if (m == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (!idle(c)) {
    if (const CUresult r = synchronize(c); r != CUDA_SUCCESS) return r;
  }
  release_block(m->block);
  for (Array* a : m->levels) Handles<Array>::bury(a);
  m->levels.clear();
  Handles<Mipmap>::bury(m);
  return CUDA_SUCCESS;
}
