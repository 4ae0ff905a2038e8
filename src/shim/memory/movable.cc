// Memory of a slice that swaps fast: made by VMM, so that its backing can go and come under its
// addresses.
//
// To the program it is like memory of cuMemAlloc: cuMemFree frees it and first waits for the
// context's work (an unmap does not wait), it ends with its context, and devices with peer access
// reach it. The handle is released as soon as the memory is mapped: the mapping keeps the memory,
// and unmapping gives it back to the GPU.
//
// Freeing a block during a graph capture cannot wait for the work without breaking the capture: the
// block stays, charged, until the next allocation or free after the capture.
#include "shim/memory/movable.h"

#include "shim/memory/charge.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/hook_guard.h"
#include "shim/time/streams.h"
#include "sys/file.h"

namespace allot::shim {

constinit SwapBlocks swap_blocks;
constinit std::atomic<uint64_t> swap_peers[kMaxDevices] = {};

namespace {

constexpr uint64_t kSmall = kMiB;  // the driver cuts smaller blocks out of slabs

constinit std::atomic<uint64_t> granules[kMaxDevices] = {};
constinit std::atomic<uint32_t> ending{0};

CUmemAllocationProp property(int32_t ordinal) {
  CUmemAllocationProp prop = {};
  prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  prop.location.id = ordinal;
  return prop;
}

// 0: the device has no VMM.
uint64_t granule(int32_t ordinal) {
  uint64_t known = granules[ordinal].load(std::memory_order_relaxed);
  if (known != 0) return known;
  const CUmemAllocationProp prop = property(ordinal);
  size_t bytes = 0;
  if (real::cuMemGetAllocationGranularity(&bytes, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM) !=
      CUDA_SUCCESS) {
    return 0;
  }
  known = bytes < kPage ? kPage : bytes;
  granules[ordinal].store(known, std::memory_order_relaxed);
  return known;
}

uint32_t gpu_of(const SwapBlock& block) {
  return static_cast<uint32_t>(process.devices[block.ordinal].gpu);
}

void count_movable(const SwapBlock& block, bool more) {
  uint64_t& movable = swap_entry().movable[gpu_of(block)];
  if (more) {
    __atomic_fetch_add(&movable, block.span, __ATOMIC_RELAXED);
  } else {
    __atomic_fetch_sub(&movable, block.span, __ATOMIC_RELAXED);
  }
}

// A green context may have ended before its blocks: then wait for the caller's context.
CUresult wait_for_context(const SwapBlock& block) {
  CUcontext popped = nullptr;
  CUresult result = real::cuCtxPushCurrent_v2(reinterpret_cast<CUcontext>(block.context));
  if (result != CUDA_SUCCESS) return real::cuCtxSynchronize();
  result = real::cuCtxSynchronize();
  real::cuCtxPopCurrent_v2(&popped);
  return result;
}

// A block that has left the table.
void give_back(const SwapBlock& block) {
  if (!block.out) real::cuMemUnmap(block.base, block.span);
  if (block.host != nullptr) sys::unmap(block.host, block.span);
  real::cuMemAddressFree(block.base, block.span);
  count_movable(block, false);
  if (!block.ending) return;
  ending.fetch_sub(1, std::memory_order_relaxed);
  release_now(gpu_of(block), ALLOT_KIND_LINEAR, block.span);
}

}  // namespace

AllotSwap& swap_entry() {
  return process.slice.file->swaps[process.slot.index];
}

CUresult swap_create(SwapBlock& block) {
  const CUmemAllocationProp prop = property(block.ordinal);
  CUmemGenericAllocationHandle handle = 0;
  const CUresult result = real::cuMemCreate(&handle, block.span, &prop, 0);
  if (result == CUDA_SUCCESS) block.handle = handle;
  return result;
}

CUresult swap_map(SwapBlock& block) {
  CUmemAccessDesc access[kMaxDevices];
  size_t count = 0;
  const uint64_t peers = swap_peers[block.ordinal].load(std::memory_order_acquire);
  for (uint32_t i = 0; i < kMaxDevices; ++i) {
    if (i != static_cast<uint32_t>(block.ordinal) && (peers >> i & 1) == 0) continue;
    access[count].location = property(static_cast<int32_t>(i)).location;
    access[count++].flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  }
  CUresult result = real::cuMemMap(block.base, block.span, 0, block.handle, 0);
  if (result == CUDA_SUCCESS) {
    result = real::cuMemSetAccess(block.base, block.span, access, count);
    if (result != CUDA_SUCCESS) real::cuMemUnmap(block.base, block.span);
  }
  real::cuMemRelease(block.handle);
  block.handle = 0;
  return result;
}

CUresult swap_alloc(CUdeviceptr* out, uint64_t bytes, uint64_t* taken) {
  if (bytes <= kSmall || !swap_on()) return CUDA_ERROR_NOT_SUPPORTED;
  swap_reap();
  CUcontext context = nullptr;
  const Device* device = current_device(&context);
  if (device == nullptr) return CUDA_ERROR_NOT_SUPPORTED;
  SwapBlock block = {};
  block.ordinal = ordinal_of(*device);
  const uint64_t step = granule(block.ordinal);
  if (step == 0) return CUDA_ERROR_NOT_SUPPORTED;
  block.bytes = bytes;
  block.span = round_up(bytes, step);
  block.context = reinterpret_cast<uint64_t>(context);
  CUdeviceptr base = 0;
  if (real::cuMemAddressReserve(&base, block.span, step, 0, 0) != CUDA_SUCCESS) {
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  block.base = base;
  CUresult result = swap_create(block);
  if (result == CUDA_SUCCESS) result = swap_map(block);
  if (result == CUDA_SUCCESS && !swap_blocks.add(block)) {
    real::cuMemUnmap(block.base, block.span);
    result = CUDA_ERROR_OUT_OF_MEMORY;
  }
  if (result != CUDA_SUCCESS) {
    real::cuMemAddressFree(block.base, block.span);
    return result == CUDA_ERROR_OUT_OF_MEMORY ? result : CUDA_ERROR_NOT_SUPPORTED;
  }
  count_movable(block, true);
  *out = block.base;
  *taken = block.span;
  return CUDA_SUCCESS;
}

bool swap_owns(CUdeviceptr address) {
  SwapBlock block;
  return swap_on() && swap_blocks.find(address, &block) && block.base == address;
}

bool swap_covers(CUdeviceptr address) {
  SwapBlock block;
  return swap_on() && swap_blocks.find(address, &block);
}

CUresult swap_free(CUdeviceptr address) {
  SwapBlock block;
  if (!swap_blocks.find(address, &block)) return CUDA_ERROR_INVALID_VALUE;
  if (something_captures()) {
    charge_now(gpu_of(block), ALLOT_KIND_LINEAR, block.span);
    ending.fetch_add(1, std::memory_order_relaxed);
    swap_blocks.end_later(address);
    return CUDA_SUCCESS;
  }
  swap_reap();
  if (!block.out) {
    const CUresult result = wait_for_context(block);
    if (result != CUDA_SUCCESS) return result;
  }
  if (swap_blocks.take(address, &block)) give_back(block);
  return CUDA_SUCCESS;
}

void swap_reap() {
  if (ending.load(std::memory_order_relaxed) == 0 || something_captures()) return;
  SwapBlock block;
  while (swap_blocks.take_if([](const SwapBlock& b) { return b.ending; }, &block)) {
    wait_for_context(block);
    give_back(block);
  }
}

void swap_context_gone(CUcontext context) {
  const uint64_t owner = reinterpret_cast<uint64_t>(context);
  SwapBlock block;
  while (swap_blocks.take_if([owner](const SwapBlock& b) { return b.context == owner; }, &block)) {
    give_back(block);
  }
}

}  // namespace allot::shim
