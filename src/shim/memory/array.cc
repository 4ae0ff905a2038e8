// cuArrayCreate, cuArray3DCreate, cuMipmappedArrayCreate and their ends.
//
// The driver lays out arrays in blocks and does not say how much it took. Measured on an H100,
// driver 580: the bytes of a row round up to 64, the rows to 128 (low arrays to fewer), the whole
// to 2 MiB. The charge here is never below that. A low 3-D array may be charged up to a fifth too
// much, which the next reconciliation with NVML takes off ALLOT_KIND_DRIVER. Sparse and deferred
// arrays have no memory of their own: what is mapped into them is charged as VMM memory.
#include <cstddef>

#include "shim/memory/charge.h"
#include "shim/memory/driver_memory.h"
#include "shim/memory/vmm.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/hook_guard.h"
#include "shim/process/hook_lists.h"
#include "shim/process/process.h"

namespace allot::shim {
namespace {

constexpr uint64_t kRowAlign = 64;
constexpr uint64_t kBlockRows = 128;
constexpr uint64_t kFewestRows = 8;

// Bytes of one element of one channel; for block-compressed formats, of a 4 x 4 block, as if per
// channel.
uint64_t channel_bytes(CUarray_format format) {
  switch (static_cast<unsigned>(format)) {
    case CU_AD_FORMAT_UNSIGNED_INT8:
    case CU_AD_FORMAT_SIGNED_INT8:
    case CU_AD_FORMAT_UNORM_INT8X1:
    case CU_AD_FORMAT_SNORM_INT8X1:
      return 1;
    case CU_AD_FORMAT_UNSIGNED_INT16:
    case CU_AD_FORMAT_SIGNED_INT16:
    case CU_AD_FORMAT_HALF:
    case CU_AD_FORMAT_UNORM_INT16X1:
    case CU_AD_FORMAT_SNORM_INT16X1:
      return 2;
    default:
      return 4;  // the widest channel: an unknown format is charged in full
  }
}

uint64_t saturating(uint64_t a, uint64_t b) {
  uint64_t product;
  return __builtin_mul_overflow(a, b, &product) ? uint64_t{1} << 62 : product;
}

uint64_t rows_taken(uint64_t height) {
  if (height >= kBlockRows) return round_up(height, kBlockRows);
  uint64_t rows = kFewestRows;
  while (rows < height) rows *= 2;
  return rows;
}

uint64_t level_bytes(uint64_t width, uint64_t height, uint64_t depth, uint64_t element) {
  const uint64_t row = round_up(saturating(width ? width : 1, element), kRowAlign);
  return saturating(saturating(row, rows_taken(height ? height : 1)), depth ? depth : 1);
}

uint64_t array_bytes(const CUDA_ARRAY3D_DESCRIPTOR& d, unsigned levels) {
  if (d.Flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING)) return 0;
  const uint64_t element = channel_bytes(d.Format) * (d.NumChannels ? d.NumChannels : 1);
  const bool layered = (d.Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP)) != 0;
  uint64_t sum = 0;
  uint64_t width = d.Width;
  uint64_t height = d.Height;
  uint64_t depth = d.Depth;
  for (unsigned level = 0; level < levels && level < 32; ++level) {
    sum += level_bytes(width, height, depth, element);
    width = width > 1 ? width / 2 : 1;
    height = height > 1 ? height / 2 : height;
    if (!layered && depth > 1) depth /= 2;
  }
  return round_up(sum, kPage);
}

template <class Make, class Undo>
CUresult create(const Call& guard, uint64_t bytes, const void* const* out, Make call, Undo undo) {
  CUcontext context = nullptr;
  Device* device = current_device(&context);
  if (device == nullptr) return call();
  keep_accounts(*device);
  const InFlight in_flight(guard);
  if (!reserve(*device, ALLOT_KIND_ARRAY, bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
  const CUresult result = call();
  if (result != CUDA_SUCCESS) {
    release(*device, ALLOT_KIND_ARRAY, bytes);
    return result;
  }
  const Entry entry = {reinterpret_cast<uint64_t>(*out),
                       reinterpret_cast<uint64_t>(context),
                       bytes,
                       0,
                       0,
                       Tag::kArray,
                       Entry::pack(static_cast<uint32_t>(device->gpu), ALLOT_KIND_ARRAY)};
  if (process.table.put(entry)) return CUDA_SUCCESS;
  undo();
  release(*device, ALLOT_KIND_ARRAY, bytes);
  return CUDA_ERROR_OUT_OF_MEMORY;
}

// Calls create() above for the four ways to describe an array.
template <class Handle, class Describe, class Make, class Undo>
CUresult create_described(const Taking& guard, Handle* out, bool described, Describe describe,
                          Make call, Undo undo) {
  if (!guard.tracking() || out == nullptr || !described) return call();
  return create(guard, describe(), reinterpret_cast<const void* const*>(out), call, undo);
}

CUresult array_create(const Taking& guard, CUarray* out, const CUDA_ARRAY_DESCRIPTOR* d) {
  return create_described(
      guard, out, d != nullptr,
      [d] {
        return array_bytes({d->Width, d->Height, 0, d->Format, d->NumChannels, 0}, 1);
      },
      [out, d] { return real::cuArrayCreate_v2(out, d); }, [out] { real::cuArrayDestroy(*out); });
}

CUresult array_create_v1(const Taking& guard, CUarray* out, const CUDA_ARRAY_DESCRIPTOR_v1* d) {
  return create_described(
      guard, out, d != nullptr,
      [d] {
        return array_bytes({d->Width, d->Height, 0, d->Format, d->NumChannels, 0}, 1);
      },
      [out, d] { return real::cuArrayCreate(out, d); }, [out] { real::cuArrayDestroy(*out); });
}

CUresult array3d_create(const Taking& guard, CUarray* out, const CUDA_ARRAY3D_DESCRIPTOR* d) {
  return create_described(
      guard, out, d != nullptr, [d] { return array_bytes(*d, 1); },
      [out, d] { return real::cuArray3DCreate_v2(out, d); }, [out] { real::cuArrayDestroy(*out); });
}

CUresult array3d_create_v1(const Taking& guard, CUarray* out, const CUDA_ARRAY3D_DESCRIPTOR_v1* d) {
  return create_described(
      guard, out, d != nullptr,
      [d] {
        return array_bytes({d->Width, d->Height, d->Depth, d->Format, d->NumChannels, d->Flags}, 1);
      },
      [out, d] { return real::cuArray3DCreate(out, d); }, [out] { real::cuArrayDestroy(*out); });
}

CUresult mipmapped_array_create(const Taking& guard, CUmipmappedArray* out,
                                const CUDA_ARRAY3D_DESCRIPTOR* d, unsigned levels) {
  return create_described(
      guard, out, d != nullptr, [d, levels] { return array_bytes(*d, levels); },
      [out, d, levels] { return real::cuMipmappedArrayCreate(out, d, levels); },
      [out] { real::cuMipmappedArrayDestroy(*out); });
}

template <class Handle, class Destroy>
CUresult destroy(const Observing& guard, Handle handle, Destroy call) {
  Entry entry;
  if (!guard.tracking() ||
      !process.table.take(Tag::kArray, reinterpret_cast<uint64_t>(handle), &entry)) {
    return call(handle);
  }
  const InFlight in_flight(guard);
  const CUresult result = call(handle);
  if (result == CUDA_SUCCESS) {
    holder_of_memory_gone(entry.key);
    release_entry(entry);
  } else {
    process.table.put(entry);
  }
  return result;
}

CUresult array_destroy(const Observing& guard, CUarray array) {
  return destroy(guard, array, [](CUarray a) { return real::cuArrayDestroy(a); });
}

CUresult mipmapped_array_destroy(const Observing& guard, CUmipmappedArray array) {
  return destroy(guard, array, [](CUmipmappedArray a) { return real::cuMipmappedArrayDestroy(a); });
}

}  // namespace

std::span<const Hook> array_hooks() {
  static constexpr Hook hooks[] = {
      hook<array_create_v1>("cuArrayCreate"),
      hook<array_create>("cuArrayCreate_v2"),
      hook<array3d_create_v1>("cuArray3DCreate"),
      hook<array3d_create>("cuArray3DCreate_v2"),
      hook<array_destroy>("cuArrayDestroy"),
      hook<mipmapped_array_create>("cuMipmappedArrayCreate"),
      hook<mipmapped_array_destroy>("cuMipmappedArrayDestroy"),
  };
  return hooks;
}

}  // namespace allot::shim
