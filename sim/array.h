// CUDA arrays: their layout and size on the card.
//
// Measured on an H100 (580.159.04), f32x4: 1000x1000 -> 16 MiB, 4097x4097 -> 133 x 2 MiB,
// 100x100x100 -> 18 MiB, a mipmap of 4096^2 with 13 levels -> 171 x 2 MiB. So rows take whole 64
// bytes, heights whole blocks of 8 to 128 rows (as many as a small height needs; 16 in 3D arrays),
// the sum whole 2 MiB.
#pragma once

#include "driver/cuda_abi.h"

namespace allot::sim {

struct Block;
struct Context;

inline constexpr uint32_t kArrayMagic = 0x41525259, kMipmapMagic = 0x4d49504d;

struct Array {
  uint32_t magic = kArrayMagic;
  CUDA_ARRAY3D_DESCRIPTOR desc{};
  uint32_t element = 0;  // bytes
  uint64_t base = 0;     // element (0,0,0)
  size_t row = 0, slice = 0;
  Block* block = nullptr;
  Context* context = nullptr;
  struct Mipmap* mipmap = nullptr;
};

uint32_t format_bytes(CUarray_format format);  // 0 = not a plain format
inline size_t at_least_1(size_t n) {
  return n == 0 ? 1 : n;
}

inline Array* to_array(CUarray handle) {
  auto* a = reinterpret_cast<Array*>(handle);
  return a != nullptr && a->magic == kArrayMagic ? a : nullptr;
}

}  // namespace allot::sim
