// Entries that may get movable memory and have no other hook.
//
// Pointer attributes: the answer is that for memory of cuMemAlloc, where VMM's would differ, and
// also while the memory is out. Peer access: VMM does not grant it by itself. Handles for a range
// and SYNC_MEMOPS let other devices access the memory without the driver: they are recorded,
// because such memory must stay where it is. Entries that only have to wait are in
// swap/held_entries.cc.
#include "shim/memory/movable.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/hook_guard.h"
#include "shim/process/hook_lists.h"

namespace allot::shim {
namespace {

void pin(uint32_t why) {
  __atomic_fetch_or(&swap_entry().pins, why, __ATOMIC_SEQ_CST);
}

CUresult address_range(const Observing& guard, CUdeviceptr* base, size_t* bytes,
                       CUdeviceptr address) {
  SwapBlock block;
  if (!guard.tracking() || !swap_on() || !swap_blocks.find(address, &block)) {
    return real::cuMemGetAddressRange_v2(base, bytes, address);
  }
  if (base != nullptr) *base = block.base;
  if (bytes != nullptr) *bytes = block.bytes;
  return CUDA_SUCCESS;
}

// Corrects an answer of the driver that would show that the memory is not cuMemAlloc's.
void correct(void* out, CUpointer_attribute which, const SwapBlock& block) {
  switch (which) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      *static_cast<CUcontext*>(out) = reinterpret_cast<CUcontext>(block.context);
      break;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
      *static_cast<CUdeviceptr*>(out) = block.base;
      break;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
      *static_cast<size_t*>(out) = block.bytes;
      break;
    default:
      break;
  }
}

CUresult pointer_attribute(const Observing& guard, void* out, CUpointer_attribute which,
                           CUdeviceptr address) {
  SwapBlock block;
  if (!guard.tracking() || !swap_on() || !swap_blocks.find(address, &block)) {
    return real::cuPointerGetAttribute(out, which, address);
  }
  const SwapPass pass(guard);
  const CUresult result = real::cuPointerGetAttribute(out, which, address);
  const bool told = which == CU_POINTER_ATTRIBUTE_CONTEXT && out != nullptr;
  if (result == CUDA_SUCCESS || told) correct(out, which, block);
  return told ? CUDA_SUCCESS : result;
}

CUresult pointer_attributes(const Observing& guard, unsigned count, CUpointer_attribute* which,
                            void** out, CUdeviceptr address) {
  SwapBlock block;
  if (!guard.tracking() || !swap_on() || !swap_blocks.find(address, &block)) {
    return real::cuPointerGetAttributes(count, which, out, address);
  }
  const SwapPass pass(guard);
  const CUresult result = real::cuPointerGetAttributes(count, which, out, address);
  for (unsigned i = 0; result == CUDA_SUCCESS && i < count; ++i) correct(out[i], which[i], block);
  return result;
}

CUresult set_attribute(const Moving& guard, const void* value, CUpointer_attribute which,
                       CUdeviceptr address) {
  const CUresult result = real::cuPointerSetAttribute(value, which, address);
  if (result == CUDA_SUCCESS && guard.tracking() && which == CU_POINTER_ATTRIBUTE_SYNC_MEMOPS &&
      *static_cast<const unsigned*>(value) != 0 && swap_covers(address)) {
    pin(ALLOT_SWAP_PIN_SYNC);
  }
  return result;
}

CUresult handle_for_range(const Moving& guard, void* handle, CUdeviceptr address, size_t bytes,
                          CUmemRangeHandleType type, unsigned long long flags) {
  const CUresult result = real::cuMemGetHandleForAddressRange(handle, address, bytes, type, flags);
  if (result == CUDA_SUCCESS && guard.tracking() && swap_covers(address)) {
    pin(ALLOT_SWAP_PIN_HANDLE);
  }
  return result;
}

// ---- peers -------------------------------------------------------------------------------------

bool device_of_context(CUcontext context, CUdevice* ordinal) {
  CUcontext popped = nullptr;
  if (real::cuCtxPushCurrent_v2(context) != CUDA_SUCCESS) return false;
  const bool known = real::cuCtxGetDevice(ordinal) == CUDA_SUCCESS;
  real::cuCtxPopCurrent_v2(&popped);
  return known;
}

// The current device gets access to all memory of the peer, now and later.
CUresult enable_peer(const Moving& guard, CUcontext peer, unsigned flags) {
  const CUresult result = real::cuCtxEnablePeerAccess(peer, flags);
  CUdevice mine = 0;
  CUdevice theirs = 0;
  if (result != CUDA_SUCCESS || !guard.tracking() || !swap_on()) return result;
  if (real::cuCtxGetDevice(&mine) != CUDA_SUCCESS || !device_of_context(peer, &theirs)) {
    return result;
  }
  if (device_of(mine) == nullptr || device_of(theirs) == nullptr) return result;
  swap_peers[theirs].fetch_or(uint64_t{1} << mine);
  CUmemAccessDesc access = {};
  access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  access.location.id = mine;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  SwapBlock block = {};
  while (swap_blocks.next(block.base, &block)) {
    if (block.ordinal == theirs) real::cuMemSetAccess(block.base, block.span, &access, 1);
  }
  return result;
}

}  // namespace

std::span<const Hook> swap_hooks() {
  static constexpr Hook hooks[] = {
      hook<address_range>("cuMemGetAddressRange_v2"),
      hook<pointer_attribute>("cuPointerGetAttribute"),
      hook<pointer_attributes>("cuPointerGetAttributes"),
      hook<set_attribute>("cuPointerSetAttribute"),
      hook<handle_for_range>("cuMemGetHandleForAddressRange"),
      hook<enable_peer>("cuCtxEnablePeerAccess"),
  };
  return hooks;
}

}  // namespace allot::shim
