// cuMemAlloc, cuMemAllocPitch, cuMemAllocManaged and cuMemFree.
//
// Measured on an H100, driver 580 (docs/adr/0004): requests of up to 1 MiB are cut out of slabs of
// 2 MiB, larger ones are rounded up to 2 MiB; a slab goes back with its last block. So a small
// request reserves a slab beforehand and gives it back when its block is in a slab that is already
// charged. Pitched rows are aligned to 512 bytes. Managed memory is charged in full while it lives,
// to the device that is current at the allocation, wherever its pages are: that is the most it can
// occupy.
//
// A block leaves the table before the driver frees it, and returns if the driver refuses, because
// the driver may give its address to another thread as soon as it is free.
#include "shim/process/hook_lists.h"

#include "shim/memory/charge.h"
#include "shim/memory/driver_memory.h"
#include "shim/memory/exported.h"
#include "shim/memory/graph.h"
#include "shim/memory/linear.h"
#include "shim/memory/movable.h"
#include "shim/memory/pool.h"
#include "shim/memory/slabs.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/hook_guard.h"
#include "shim/process/process.h"

namespace allot::shim {
namespace {

constexpr uint64_t kSmall = kMiB;
constexpr uint64_t kPitchAlign = 512;

// What the driver takes for `bytes` in the worst case: a whole new slab for a small block.
uint64_t worst_case(uint64_t bytes) {
  return round_up(bytes, kPage);
}

// Adds the block to the table and corrects the charge to what the driver took for it. False when
// the table cannot grow.
bool commit(const Device& device, CUcontext context, CUdeviceptr address, uint64_t bytes,
            uint64_t charged) {
  if (bytes <= kSmall) {
    const SlabAdd added = slab_add(device, context, address);
    if (added == SlabAdd::kNoMemory) return false;
    const uint64_t takes = added == SlabAdd::kFirst ? kPage : 0;
    if (charged > takes) release(device, ALLOT_KIND_LINEAR, charged - takes);
    return true;
  }
  const uint64_t takes = round_up(bytes, kPage);
  const Entry entry = {address,
                       reinterpret_cast<uint64_t>(context),
                       takes,
                       0,
                       0,
                       Tag::kPointer,
                       Entry::pack(static_cast<uint32_t>(device.gpu), ALLOT_KIND_LINEAR)};
  if (!process.table.put(entry)) return false;
  if (charged > takes) {
    release(device, ALLOT_KIND_LINEAR, charged - takes);
  } else if (charged < takes) {
    charge_now(static_cast<uint32_t>(device.gpu), ALLOT_KIND_LINEAR, takes - charged);
  }
  return true;
}

// cuMemAlloc; in a slice that swaps fast, of movable memory.
CUresult take(CUdeviceptr* out, uint64_t bytes, uint64_t* taken) {
  const CUresult result = swap_alloc(out, bytes, taken);
  return result == CUDA_ERROR_NOT_SUPPORTED ? real::cuMemAlloc_v2(out, bytes) : result;
}

CUresult give_back(CUdeviceptr address) {
  return swap_owns(address) ? swap_free(address) : real::cuMemFree_v2(address);
}

// Reserve, call, commit. `call` returns the bytes really taken in its argument.
template <class Make>
CUresult allocate(const Call& guard, uint64_t estimate, CUdeviceptr* out, Make call) {
  CUcontext context = nullptr;
  Device* device = current_device(&context);
  uint64_t bytes = estimate;
  if (device == nullptr) return call(&bytes);
  keep_accounts(*device);
  const InFlight in_flight(guard);
  const uint64_t charged = worst_case(estimate);
  if (!reserve(*device, ALLOT_KIND_LINEAR, charged)) return CUDA_ERROR_OUT_OF_MEMORY;
  const CUresult result = call(&bytes);
  if (result != CUDA_SUCCESS) {
    release(*device, ALLOT_KIND_LINEAR, charged);
    return result;
  }
  if (commit(*device, context, *out, bytes, charged)) return CUDA_SUCCESS;
  give_back(*out);  // memory that cannot be tracked is not granted
  *out = 0;
  release(*device, ALLOT_KIND_LINEAR, charged);
  return CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult mem_alloc(const TakingMovable& guard, CUdeviceptr* out, size_t bytes) {
  if (!guard.tracking() || out == nullptr || bytes == 0) return real::cuMemAlloc_v2(out, bytes);
  return allocate(guard, bytes, out, [&](uint64_t* taken) { return take(out, bytes, taken); });
}

// The 32-bit entries from before CUDA 3.2.
CUresult mem_alloc_v1(const Taking& guard, CUdeviceptr_v1* out, unsigned bytes) {
  if (!guard.tracking() || out == nullptr || bytes == 0) return real::cuMemAlloc(out, bytes);
  CUdeviceptr wide = 0;
  const CUresult result = allocate(guard, bytes, &wide, [&](uint64_t*) {
    const CUresult r = real::cuMemAlloc(out, bytes);
    if (r == CUDA_SUCCESS) wide = *out;
    return r;
  });
  return result;
}

CUresult mem_alloc_pitch(const TakingMovable& guard, CUdeviceptr* out, size_t* pitch, size_t width,
                         size_t height, unsigned element_bytes) {
  uint64_t estimate = 0;
  if (!guard.tracking() || out == nullptr || pitch == nullptr || width == 0 || height == 0 ||
      __builtin_mul_overflow(round_up(width, kPitchAlign), uint64_t{height}, &estimate)) {
    return real::cuMemAllocPitch_v2(out, pitch, width, height, element_bytes);
  }
  return allocate(guard, estimate, out, [&](uint64_t* bytes) {
    const bool known = element_bytes == 4 || element_bytes == 8 || element_bytes == 16;
    if (known && swap_alloc(out, estimate, bytes) == CUDA_SUCCESS) {
      *pitch = round_up(width, kPitchAlign);
      return CUDA_SUCCESS;
    }
    const CUresult r = real::cuMemAllocPitch_v2(out, pitch, width, height, element_bytes);
    if (r == CUDA_SUCCESS) *bytes = *pitch * height;
    return r;
  });
}

CUresult mem_alloc_pitch_v1(const Taking& guard, CUdeviceptr_v1* out, unsigned* pitch,
                            unsigned width, unsigned height, unsigned element_bytes) {
  if (!guard.tracking() || out == nullptr || pitch == nullptr || width == 0 || height == 0) {
    return real::cuMemAllocPitch(out, pitch, width, height, element_bytes);
  }
  CUdeviceptr wide = 0;
  return allocate(guard, round_up(width, kPitchAlign) * height, &wide, [&](uint64_t* bytes) {
    const CUresult r = real::cuMemAllocPitch(out, pitch, width, height, element_bytes);
    if (r == CUDA_SUCCESS) {
      wide = *out;
      *bytes = uint64_t{*pitch} * height;
    }
    return r;
  });
}

CUresult mem_alloc_managed(const Taking& guard, CUdeviceptr* out, size_t bytes, unsigned flags) {
  CUcontext context = nullptr;
  Device* device =
      guard.tracking() && out != nullptr && bytes != 0 ? current_device(&context) : nullptr;
  if (device == nullptr) return real::cuMemAllocManaged(out, bytes, flags);
  keep_accounts(*device);
  const uint64_t charged = round_up(bytes, kPage);
  if (!reserve(*device, ALLOT_KIND_MANAGED, charged)) return CUDA_ERROR_OUT_OF_MEMORY;
  const CUresult result = real::cuMemAllocManaged(out, bytes, flags);
  if (result != CUDA_SUCCESS) {
    release(*device, ALLOT_KIND_MANAGED, charged);
    return result;
  }
  const Entry entry = {*out,
                       reinterpret_cast<uint64_t>(context),
                       charged,
                       0,
                       0,
                       Tag::kPointer,
                       Entry::pack(static_cast<uint32_t>(device->gpu), ALLOT_KIND_MANAGED)};
  if (process.table.put(entry)) return CUDA_SUCCESS;
  real::cuMemFree_v2(*out);
  *out = 0;
  release(*device, ALLOT_KIND_MANAGED, charged);
  return CUDA_ERROR_OUT_OF_MEMORY;
}

template <class Make>
CUresult free_block(const Call& guard, CUdeviceptr address, Make call) {
  Entry block;
  if (!take_block(address, &block)) {
    const CUresult result = call();
    if (result == CUDA_SUCCESS && address != 0) graph_memory_may_have_gone();
    return result;
  }
  const InFlight in_flight(guard);
  const CUresult result = call();
  if (result == CUDA_SUCCESS) {
    block_freed(block);
  } else {
    put_block_back(block);
  }
  return result;
}

CUresult mem_free(const Moving& guard, CUdeviceptr address) {
  if (!guard.tracking()) return real::cuMemFree_v2(address);
  return free_block(guard, address, [address] { return give_back(address); });
}

CUresult mem_free_v1(const Observing& guard, CUdeviceptr_v1 address) {
  if (!guard.tracking()) return real::cuMemFree(address);
  return free_block(guard, address, [address] { return real::cuMemFree(address); });
}

}  // namespace

bool take_block(CUdeviceptr address, Entry* block) {
  bool ours = process.table.take(Tag::kPointer, address, block);
  if (!ours) {
    *block = {address, 0, 0, 0, 0, Tag::kSlab, 0};
    ours = slab_take(address);
  }
  // Before the driver frees it: the next block there may be offered as well.
  if (ours) exported_block_gone(address);
  return ours;
}

void put_block_back(const Entry& block) {
  if (block.tag == Tag::kSlab) {
    slab_put_back(block.key);
  } else {
    process.table.put(block);
  }
}

void block_freed(const Entry& block) {
  if (block.tag == Tag::kSlab) {
    slab_block_gone(block.key);
  } else if (block.kind() == ALLOT_KIND_POOL) {
    pool_block_freed(block);
  } else if (block.kind() == ALLOT_KIND_IMPORT) {
    import_gone(block);
  } else {
    release_entry(block);
  }
}

std::span<const Hook> linear_hooks() {
  static constexpr Hook hooks[] = {
      hook<mem_alloc_v1>("cuMemAlloc"),
      hook<mem_alloc>("cuMemAlloc_v2"),
      hook<mem_alloc_pitch_v1>("cuMemAllocPitch"),
      hook<mem_alloc_pitch>("cuMemAllocPitch_v2"),
      hook<mem_alloc_managed>("cuMemAllocManaged"),
      hook<mem_free_v1>("cuMemFree"),
      hook<mem_free>("cuMemFree_v2"),
  };
  return hooks;
}

}  // namespace allot::shim
