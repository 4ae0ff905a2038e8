// Virtual memory management: cuMemCreate, cuMemMap, cuMemUnmap, cuMemRelease and shareable handles.
//
// cuMemCreate takes physical memory on the device that its properties name, whatever context is
// current; host locations take no GPU memory. The memory stays until every reference to the handle
// is released and every mapping is gone (measured: after create, map, release and release it stays
// until the unmap). cuMemRetainAllocationHandle returns the same handle value again and adds a
// reference.
//
//   kHandle  handle  -> serial          an allocation has a serial number of ours, because the
//   kMapping address -> serial          driver may use a handle value again
//   kObject  serial  -> bytes, references (count), mappings (extra)
//
// An imported allocation is charged to the process that created it and is tracked here with 0
// bytes.
#include "shim/memory/charge.h"
#include "shim/memory/driver_memory.h"
#include "shim/memory/movable.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/hook_lists.h"
#include "shim/process/process.h"
#include "sys/file.h"

namespace allot::shim {
namespace {

constinit std::atomic<uint64_t> next_serial{1};

// Removes one reference or mapping from an allocation; the last of both ends it and gives back its
// charge.
void drop_reference(uint64_t serial, uint64_t handle, bool mapping) {
  Entry object;
  bool ended = false;
  process.table.update(Tag::kObject, serial, [&](Entry& e) {
    if (mapping ? e.extra > 0 : e.count > 0) mapping ? --e.extra : --e.count;
    object = e;
    ended = e.count == 0 && e.extra == 0;
    return !ended;
  });
  if (!ended) return;
  release_entry(object);
  // Remove the handle only while it still means this allocation.
  const uint64_t name = handle != 0 ? handle : object.owner;
  process.table.update(Tag::kHandle, name, [serial](Entry& e) { return e.owner != serial; });
}

// Adds a reference or mapping; false when the handle is not one of ours.
bool add_reference(uint64_t handle, bool mapping, uint64_t* serial) {
  Entry name;
  if (!process.table.find(Tag::kHandle, handle, &name)) return false;
  *serial = name.owner;
  return process.table.update(Tag::kObject, name.owner, [mapping](Entry& e) {
    mapping ? ++e.extra : ++e.count;
    return true;
  });
}

// Puts a new allocation of one reference into the table.
bool note_allocation(uint64_t handle, uint32_t gpu, uint64_t bytes) {
  const uint64_t serial = next_serial.fetch_add(1, std::memory_order_relaxed);
  const uint8_t where = Entry::pack(gpu, ALLOT_KIND_VMM);
  if (!process.table.put({serial, handle, bytes, 1, 0, Tag::kObject, where})) return false;
  if (process.table.put({handle, serial, 0, 0, 0, Tag::kHandle, where})) return true;
  Entry gone;
  process.table.take(Tag::kObject, serial, &gone);
  return false;
}

CUresult mem_create(CUmemGenericAllocationHandle* out, size_t bytes,
                    const CUmemAllocationProp* prop, unsigned long long flags) {
  const Scope scope;
  if (scope.refusing()) return CUDA_ERROR_NOT_PERMITTED;
  Device* device = nullptr;
  if (scope.tracking() && out != nullptr && prop != nullptr && bytes != 0 &&
      prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE) {
    device = device_of(prop->location.id);
  }
  if (device == nullptr) return real::cuMemCreate(out, bytes, prop, flags);
  keep_accounts(*device);
  const InFlight in_flight;
  const uint64_t charged = round_up(bytes, kPage);
  if (!reserve(*device, ALLOT_KIND_VMM, charged)) return CUDA_ERROR_OUT_OF_MEMORY;
  const CUresult result = real::cuMemCreate(out, bytes, prop, flags);
  if (result == CUDA_SUCCESS &&
      note_allocation(*out, static_cast<uint32_t>(device->gpu), charged)) {
    return result;
  }
  if (result == CUDA_SUCCESS) real::cuMemRelease(*out);
  release(*device, ALLOT_KIND_VMM, charged);
  return result == CUDA_SUCCESS ? CUDA_ERROR_OUT_OF_MEMORY : result;
}

CUresult mem_release(CUmemGenericAllocationHandle handle) {
  const Scope scope;
  Entry name;
  if (!scope.tracking() || !process.table.find(Tag::kHandle, handle, &name)) {
    return real::cuMemRelease(handle);
  }
  // The reference goes first: once the driver has released it, another thread may get the same
  // value. A mapping taken out meanwhile keeps the allocation alive until the driver has answered.
  process.table.update(Tag::kObject, name.owner, [](Entry& e) {
    ++e.extra;
    if (e.count > 0) --e.count;
    return true;
  });
  const InFlight in_flight;
  const CUresult result = real::cuMemRelease(handle);
  if (result != CUDA_SUCCESS) {
    process.table.update(Tag::kObject, name.owner, [](Entry& e) {
      ++e.count;
      return true;
    });
  }
  drop_reference(name.owner, handle, true);
  return result;
}

CUresult mem_map(CUdeviceptr address, size_t bytes, size_t offset,
                 CUmemGenericAllocationHandle handle, unsigned long long flags) {
  const Scope scope;
  uint64_t serial = 0;
  if (!scope.tracking() || !add_reference(handle, true, &serial)) {
    return real::cuMemMap(address, bytes, offset, handle, flags);
  }
  const InFlight in_flight;
  CUresult result = real::cuMemMap(address, bytes, offset, handle, flags);
  if (result == CUDA_SUCCESS) {
    if (process.table.put({address, serial, bytes, 0, 0, Tag::kMapping, 0})) return result;
    real::cuMemUnmap(address, bytes);
    result = CUDA_ERROR_OUT_OF_MEMORY;
  }
  drop_reference(serial, handle, true);
  return result;
}

// Takes the mappings of a range out of the table, in the order of their addresses.
class TakenMappings {
 public:
  TakenMappings(uint64_t address, uint64_t bytes) {
    uint64_t at = address;
    while (at - address < bytes) {
      Entry mapping;
      if (!process.table.take(Tag::kMapping, at, &mapping)) break;
      if (count_ == room_ && !grow()) {
        process.table.put(mapping);
        break;
      }
      list_[count_++] = mapping;
      at += mapping.bytes;
    }
  }
  ~TakenMappings() {
    if (list_ != few_) sys::unmap(list_, room_ * sizeof(Entry));
  }
  TakenMappings(const TakenMappings&) = delete;
  TakenMappings& operator=(const TakenMappings&) = delete;

  void put_back() {
    for (size_t i = 0; i < count_; ++i) process.table.put(list_[i]);
  }
  void end() {
    for (size_t i = 0; i < count_; ++i) drop_reference(list_[i].owner, 0, true);
  }

 private:
  bool grow() {
    const Result<void*> memory = sys::map_memory(room_ * 4 * sizeof(Entry));
    if (!memory) return false;
    Entry* wider = static_cast<Entry*>(*memory);
    for (size_t i = 0; i < count_; ++i) wider[i] = list_[i];
    if (list_ != few_) sys::unmap(list_, room_ * sizeof(Entry));
    list_ = wider;
    room_ *= 4;
    return true;
  }

  static constexpr size_t kFew = 32;
  Entry few_[kFew];
  Entry* list_ = few_;
  size_t room_ = kFew;
  size_t count_ = 0;
};

// As for memory of cuMemAlloc: that is what movable memory is to the program.
CUresult mem_unmap(CUdeviceptr address, size_t bytes) {
  const Scope scope;
  if (swap_covers(address)) return CUDA_ERROR_INVALID_VALUE;
  if (!scope.tracking()) return real::cuMemUnmap(address, bytes);
  TakenMappings mappings(address, bytes);
  const InFlight in_flight;
  const CUresult result = real::cuMemUnmap(address, bytes);
  if (result == CUDA_SUCCESS) {
    mappings.end();
  } else {
    mappings.put_back();
  }
  return result;
}

CUresult mem_retain(CUmemGenericAllocationHandle* out, void* address) {
  const Scope scope;
  if (swap_covers(reinterpret_cast<CUdeviceptr>(address))) return CUDA_ERROR_INVALID_VALUE;
  const CUresult result = real::cuMemRetainAllocationHandle(out, address);
  uint64_t serial = 0;
  if (result == CUDA_SUCCESS && scope.tracking()) add_reference(*out, false, &serial);
  return result;
}

CUresult mem_import(CUmemGenericAllocationHandle* out, void* shareable,
                    CUmemAllocationHandleType type) {
  const Scope scope;
  if (scope.refusing()) return CUDA_ERROR_NOT_PERMITTED;
  const CUresult result = real::cuMemImportFromShareableHandle(out, shareable, type);
  uint64_t serial = 0;
  if (result == CUDA_SUCCESS && scope.tracking() && !add_reference(*out, false, &serial)) {
    note_allocation(*out, 0, 0);
  }
  return result;
}

}  // namespace

std::span<const Hook> vmm_hooks() {
  static constexpr Hook hooks[] = {
      hook<mem_create>("cuMemCreate"),
      hook<mem_release>("cuMemRelease"),
      hook<mem_map>("cuMemMap"),
      hook<mem_unmap>("cuMemUnmap"),
      hook<mem_retain>("cuMemRetainAllocationHandle"),
      hook<mem_import>("cuMemImportFromShareableHandle"),
  };
  return hooks;
}

}  // namespace allot::shim
