// Copies and sets in the forms that API entries and graph nodes share.
#pragma once

#include "runtime.h"

namespace allot::sim {

// Checks `copy` and makes addresses and strides of it. INVALID_VALUE, INVALID_HANDLE.
CUresult resolve_copy(const CUDA_MEMCPY3D& copy, CopyBody* out);
CUresult resolve_set(uint64_t to, size_t pitch, uint32_t value, uint32_t element, size_t width,
                     size_t height, SetBody* out);

enum class When { kSync, kAsync };
// Puts a resolved copy into a stream; host memory that is not pinned is read before this returns.
CUresult run_copy(const CopyBody& copy, CUstream stream, bool ptds, When when);
CUresult run_set(const SetBody& set, CUstream stream, bool ptds, When when);

}  // namespace allot::sim
