// Memory that is held by multicast objects and sparse arrays: cuMulticast*, cuMemMapArrayAsync.
//
// Both keep physical memory of cuMemCreate on the card after its handles are released and its
// mappings are gone, until it is unbound or the object that it is bound to ends. So a binding is a
// reference, like a mapping.
//
// What must not happen here: a lock held while the driver runs, or while a reference is dropped.
#include "base/text.h"
#include "shim/memory/vmm.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/hook_guard.h"
#include "shim/process/hook_lists.h"
#include "shim/process/process.h"
#include "shim/process/spin.h"
#include "sys/file.h"

namespace allot::shim {
namespace {

struct Binding {
  uint64_t holder;
  uint64_t place;
  uint64_t bytes;
  uint64_t serial;
  CUdevice device;
};

constexpr uint32_t kFirstRoom = 128;
constinit SpinLock listing;
constinit Binding* list = nullptr;
constinit uint32_t count = 0;
constinit uint32_t room = 0;
constinit std::atomic<bool> anything_bound{false};

// `listing` is held.
bool grow() {
  const uint32_t wider = room == 0 ? kFirstRoom : room * 2;
  const Result<void*> memory = sys::map_memory(uint64_t{wider} * sizeof(Binding));
  if (!memory) return false;
  Binding* fresh = static_cast<Binding*>(*memory);
  for (uint32_t i = 0; i < count; ++i) fresh[i] = list[i];
  if (list != nullptr) sys::unmap(list, uint64_t{room} * sizeof(Binding));
  list = fresh;
  room = wider;
  return true;
}

// Takes out the bindings that match, one after the other.
template <class Match>
void drop_matching(Match match) {
  if (!anything_bound.load(std::memory_order_acquire)) return;
  for (;;) {
    uint64_t serial = 0;
    listing.lock();
    for (uint32_t i = 0; i < count && serial == 0; ++i) {
      if (!match(list[i])) continue;
      serial = list[i].serial;
      list[i] = list[--count];
    }
    listing.unlock();
    if (serial == 0) return;
    drop_vmm_reference(serial, 0);
  }
}

}  // namespace

bool bind_memory(uint64_t holder, CUdevice device, uint64_t place, uint64_t bytes,
                 uint64_t serial) {
  uint64_t before = 0;
  listing.lock();
  anything_bound.store(true, std::memory_order_release);
  Binding* at = nullptr;
  for (uint32_t i = 0; i < count && at == nullptr; ++i) {
    if (list[i].holder == holder && list[i].device == device && list[i].place == place)
      at = &list[i];
  }
  if (at != nullptr) {
    before = at->serial;
  } else if (count < room || grow()) {
    at = &list[count++];
  }
  if (at != nullptr) *at = {holder, place, bytes, serial, device};
  listing.unlock();
  if (before != 0) drop_vmm_reference(before, 0);
  return at != nullptr;
}

void unbind_memory(uint64_t holder, CUdevice device, uint64_t place, uint64_t bytes) {
  drop_matching([=](const Binding& b) {
    return b.holder == holder && b.device == device && b.place >= place && b.place - place < bytes;
  });
}

void holder_of_memory_gone(uint64_t holder) {
  drop_matching([holder](const Binding& b) { return b.holder == holder; });
}

namespace {

// Where a part of a sparse array stands, as one number.
uint64_t tile_of(const CUarrayMapInfo& info) {
  struct {
    uint64_t type;
    uint8_t where[sizeof(info.subresource)];
  } key = {static_cast<uint64_t>(info.subresourceType), {}};
  const bool level = info.subresourceType == CU_ARRAY_SPARSE_SUBRESOURCE_TYPE_SPARSE_LEVEL;
  __builtin_memcpy(key.where, &info.subresource,
                   level ? sizeof(info.subresource.sparseLevel) : sizeof(info.subresource.miptail));
  return hash64(&key, sizeof(key));
}

uint64_t array_of(const CUarrayMapInfo& info) {
  return reinterpret_cast<uint64_t>(info.resource.array);
}

template <auto& Map>
CUresult map_array(const Observing& guard, CUarrayMapInfo* infos, unsigned entries,
                   CUstream stream) {
  if (!guard.tracking() || infos == nullptr) return Map(infos, entries, stream);
  // References first: released handles may be the last ones otherwise.
  unsigned taken = 0;
  for (; taken < entries; ++taken) {
    const CUarrayMapInfo& info = infos[taken];
    uint64_t serial = 0;
    if (info.memOperationType != CU_MEM_OPERATION_TYPE_MAP) continue;
    if (!add_vmm_reference(info.memHandle.memHandle, &serial)) continue;
    if (bind_memory(array_of(info), 0, tile_of(info), 1, serial)) continue;
    drop_vmm_reference(serial, info.memHandle.memHandle);
    break;
  }
  const CUresult result = taken == entries ? Map(infos, entries, stream) : CUDA_ERROR_OUT_OF_MEMORY;
  const CUmemOperationType gone =
      result == CUDA_SUCCESS ? CU_MEM_OPERATION_TYPE_UNMAP : CU_MEM_OPERATION_TYPE_MAP;
  for (unsigned i = 0; i < taken; ++i) {
    if (infos[i].memOperationType == gone)
      unbind_memory(array_of(infos[i]), 0, tile_of(infos[i]), 1);
  }
  return result;
}

CUresult multicast_bind_mem(const Observing& guard, CUmemGenericAllocationHandle multicast,
                            size_t offset, CUmemGenericAllocationHandle memory,
                            size_t memory_offset, size_t bytes, unsigned long long flags) {
  uint64_t serial = 0;
  if (!guard.tracking() || !add_vmm_reference(memory, &serial)) {
    return real::cuMulticastBindMem(multicast, offset, memory, memory_offset, bytes, flags);
  }
  CUmemAllocationProp prop = {};
  real::cuMemGetAllocationPropertiesFromHandle(&prop, memory);
  CUresult result =
      real::cuMulticastBindMem(multicast, offset, memory, memory_offset, bytes, flags);
  if (result == CUDA_SUCCESS) {
    if (bind_memory(multicast, prop.location.id, offset, bytes, serial)) return result;
    real::cuMulticastUnbind(multicast, prop.location.id, offset, bytes);
    result = CUDA_ERROR_OUT_OF_MEMORY;
  }
  drop_vmm_reference(serial, memory);
  return result;
}

// Binds what is mapped at an address: each mapping that begins there.
CUresult multicast_bind_addr(const Observing& guard, CUmemGenericAllocationHandle multicast,
                             size_t offset, CUdeviceptr address, size_t bytes,
                             unsigned long long flags) {
  const CUresult result = real::cuMulticastBindAddr(multicast, offset, address, bytes, flags);
  if (result != CUDA_SUCCESS || !guard.tracking()) return result;
  CUmemGenericAllocationHandle memory = 0;
  for (uint64_t at = address; at - address < bytes; at += kPage) {
    Entry mapping;
    if (at != address && !process.table.find(Tag::kMapping, at, &mapping)) continue;
    if (real::cuMemRetainAllocationHandle(&memory, reinterpret_cast<void*>(at)) != CUDA_SUCCESS) {
      continue;
    }
    uint64_t serial = 0;
    CUmemAllocationProp prop = {};
    real::cuMemGetAllocationPropertiesFromHandle(&prop, memory);
    if (add_vmm_reference(memory, &serial) &&
        !bind_memory(multicast, prop.location.id, offset + (at - address), kPage, serial)) {
      drop_vmm_reference(serial, memory);
    }
    real::cuMemRelease(memory);
  }
  return result;
}

CUresult multicast_unbind(const Observing& guard, CUmemGenericAllocationHandle multicast,
                          CUdevice device, size_t offset, size_t bytes) {
  const CUresult result = real::cuMulticastUnbind(multicast, device, offset, bytes);
  if (result == CUDA_SUCCESS && guard.tracking()) unbind_memory(multicast, device, offset, bytes);
  return result;
}

}  // namespace

void abandon_bound_memory() {
  listing.abandon();
  anything_bound.store(false);
  list = nullptr;
  count = room = 0;
}

std::span<const Hook> bound_memory_hooks() {
  static constexpr Hook hooks[] = {
      hook<map_array<real::cuMemMapArrayAsync>>("cuMemMapArrayAsync"),
      hook<map_array<real::cuMemMapArrayAsync_ptsz>>("cuMemMapArrayAsync_ptsz"),
      hook<multicast_bind_mem>("cuMulticastBindMem"),
      hook<multicast_bind_addr>("cuMulticastBindAddr"),
      hook<multicast_unbind>("cuMulticastUnbind"),
  };
  return hooks;
}

}  // namespace allot::shim
