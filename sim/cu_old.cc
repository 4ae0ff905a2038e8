// Entries from before CUDA 3.2, whose sizes and addresses have 32 bits.
//
// Their memory is made of whole pages at addresses below 2 GiB; figures that do not fit into 32
// bits stop at the largest that does. It must not happen that a block's address is cut.
#include <sys/mman.h>

#include <algorithm>
#include <atomic>

#include "memory.h"
#include "runtime.h"

using namespace allot::sim;

// The same entries with 64 bits.
extern "C" {
CUresult cuArrayCreate_v2(CUarray* out, const CUDA_ARRAY_DESCRIPTOR* d);
CUresult cuArray3DCreate_v2(CUarray* out, const CUDA_ARRAY3D_DESCRIPTOR* d);
CUresult cuDeviceTotalMem_v2(size_t* out, CUdevice device);
CUresult cuMemFree_v2(CUdeviceptr address);
CUresult cuMemGetInfo_v2(size_t* free, size_t* total);
}

namespace {

constexpr uint64_t kFirst = 1ull << 28;
constexpr uint64_t kEnd = 1ull << 31;

unsigned narrow(size_t bytes) {
  return static_cast<unsigned>(std::min<size_t>(bytes, UINT32_MAX));
}

// Free addresses below kEnd, or 0. Goes on where the last search ended.
uint64_t reserve_low(uint64_t span) {
  static std::atomic<uint64_t> next{kFirst};
  if (span > kEnd - kFirst) return 0;
  uint64_t wish = next.load();
  for (uint64_t tried = 0; tried < kEnd - kFirst; tried += kPageBytes, wish += kPageBytes) {
    if (wish + span > kEnd) wish = kFirst;
    const uint64_t at = reserve_va(span, kPageBytes, wish);
    if (at == wish) {
      next = wish + span;
      return at;
    }
    if (at != 0) release_va(at, span);
  }
  return 0;
}

CUresult allocate_low(Context* c, uint64_t bytes, CUdeviceptr_v1* out) {
  const uint64_t count = (bytes + kPageBytes - 1) / kPageBytes;
  Runs pages = open_vram(c->gpu) ? take_pages(c->gpu, static_cast<uint32_t>(count)) : Runs{};
  if (pages.empty()) return CUDA_ERROR_OUT_OF_MEMORY;
  const uint64_t span = count * kPageBytes;
  const uint64_t at = reserve_low(span);
  if (at == 0 || !map_runs(c->gpu, pages, at, PROT_READ | PROT_WRITE)) {
    if (at != 0) release_va(at, span);
    give_pages(c->gpu, pages, false);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  auto* block = new Block;
  block->base = at;
  block->bytes = bytes;
  block->span = span;
  block->kind = Kind::kLinear;
  block->gpu = c->gpu;
  block->device = c->device;
  block->context = c;
  block->pages = std::move(pages);
  block->own_range = true;
  {
    std::lock_guard<std::mutex> lock(memory_lock());
    register_block(block);
  }
  *out = static_cast<CUdeviceptr_v1>(at);
  return CUDA_SUCCESS;
}

}  // namespace

SIM_API cuDeviceTotalMem(unsigned* out, CUdevice device) {
  SIM_ENTER();
  size_t bytes = 0;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUresult r = cuDeviceTotalMem_v2(&bytes, device);
  if (r == CUDA_SUCCESS) *out = narrow(bytes);
  return r;
}

SIM_API cuMemGetInfo(unsigned* free, unsigned* total) {
  SIM_ENTER();
  size_t free_wide = 0;
  size_t total_wide = 0;
  const CUresult r = cuMemGetInfo_v2(&free_wide, &total_wide);
  if (r == CUDA_SUCCESS && free != nullptr) *free = narrow(free_wide);
  if (r == CUDA_SUCCESS && total != nullptr) *total = narrow(total_wide);
  return r;
}

SIM_API cuMemAlloc(CUdeviceptr_v1* out, unsigned bytes) {
  SIM_CONTEXT(c);
  if (out == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  return allocate_low(c, bytes, out);
}

SIM_API cuMemAllocPitch(CUdeviceptr_v1* out, unsigned* pitch, unsigned width, unsigned height,
                        unsigned element) {
  SIM_CONTEXT(c);
  if (out == nullptr || pitch == nullptr || width == 0 || height == 0)
    return CUDA_ERROR_INVALID_VALUE;
  if (element != 4 && element != 8 && element != 16) return CUDA_ERROR_INVALID_VALUE;
  const uint64_t row = (uint64_t{width} + 511) / 512 * 512;
  if (row > UINT32_MAX || height > (1ull << 47) / row) return CUDA_ERROR_OUT_OF_MEMORY;
  const CUresult r = allocate_low(c, row * height, out);
  if (r == CUDA_SUCCESS) *pitch = static_cast<unsigned>(row);
  return r;
}

SIM_API cuMemFree(CUdeviceptr_v1 address) {
  SIM_ENTER();
  return cuMemFree_v2(address);
}

SIM_API cuArrayCreate(CUarray* out, const CUDA_ARRAY_DESCRIPTOR_v1* d) {
  SIM_ENTER();
  if (d == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUDA_ARRAY_DESCRIPTOR wide{d->Width, d->Height, d->Format, d->NumChannels};
  return cuArrayCreate_v2(out, &wide);
}

SIM_API cuArray3DCreate(CUarray* out, const CUDA_ARRAY3D_DESCRIPTOR_v1* d) {
  SIM_ENTER();
  if (d == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUDA_ARRAY3D_DESCRIPTOR wide{d->Width,  d->Height,      d->Depth,
                                     d->Format, d->NumChannels, d->Flags};
  return cuArray3DCreate_v2(out, &wide);
}
