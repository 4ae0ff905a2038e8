// Virtual memory management: cuMemCreate, cuMemMap, cuMemUnmap, cuMemRelease and shareable handles.
//
// cuMemCreate takes physical memory on the device that its properties name, whatever context is
// current; host locations take no GPU memory. The memory stays until every reference to the handle
// is released and every mapping is gone (measured: after create, map, release and release it stays
// until the unmap). cuMemRetainAllocationHandle returns the same handle value again and adds a
// reference.
//
//   kHandle  handle  -> serial          an allocation has a serial number of ours, because the
//   kMapping address -> serial          driver may use a handle value again; 0: not ours
//   kObject  serial  -> bytes, references and mappings (count), flags (extra)
//
// A descriptor that was exported keeps the memory on the card, too, after the last handle and
// mapping. Then the charge stays while the descriptor is open here. Where it was sent and closed
// here, whoever imported it holds the memory (vmm_import()): borrowed while a process of the slice
// has exported memory, else charged by what is mapped of it. A descriptor that was duplicated and
// lies in nobody's hands is the gap that is left.
#include "shim/memory/vmm.h"

#include "shim/memory/charge.h"
#include "shim/memory/driver_memory.h"
#include "shim/memory/exported.h"
#include "shim/memory/movable.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/hook_guard.h"
#include "shim/process/hook_lists.h"
#include "shim/process/process.h"
#include "shim/process/spin.h"
#include "sys/file.h"

namespace allot::shim {
namespace {

constinit std::atomic<uint64_t> next_serial{1};

// Flags of an allocation.
constexpr uint16_t kExported = 1;   // a descriptor of it was given out
constexpr uint16_t kImported = 2;   // made by another process
constexpr uint16_t kMulticast = 4;  // holds the memory of others

// ---- descriptors that were given out ---------------------------------------------------------

struct Descriptor {
  uint64_t serial;
  uint64_t device;
  uint64_t inode;
  int fd;  // kEnded: says that nothing but descriptors keeps the allocation
};
constexpr int kEnded = -1;
constexpr uint32_t kFirstRoom = 128;
constinit SpinLock listing;
constinit Descriptor* descriptors = nullptr;
constinit uint32_t descriptor_count = 0;
constinit uint32_t descriptor_room = 0;
constinit std::atomic<uint32_t> kept_by_descriptors{0};
constinit std::atomic<uint32_t> exported_objects{0};

bool is_open(const Descriptor& known) {
  const Result<sys::FileInfo> now = sys::info_of(known.fd);
  return now && now->device == known.device && now->inode == known.inode;
}

// Forgets the entries that match. `listing` is held.
template <class Match>
void forget_descriptors(Match match) {
  for (uint32_t i = 0; i < descriptor_count;) {
    if (match(descriptors[i])) {
      descriptors[i] = descriptors[--descriptor_count];
    } else {
      ++i;
    }
  }
}

// Whether a descriptor of `serial` is open; forgets those that are not. The kernel's answer takes
// less than 1 us.
bool kept_by_descriptor(uint64_t serial) {
  bool open = false;
  listing.lock();
  forget_descriptors([&](const Descriptor& d) {
    if (d.serial != serial || d.fd == kEnded) return false;
    const bool closed = !is_open(d);
    open = open || !closed;
    return closed;
  });
  listing.unlock();
  return open;
}

// `listing` is held. False when no memory can be had.
bool add_descriptor(const Descriptor& fresh) {
  if (descriptor_count == descriptor_room) {
    const uint32_t wider = descriptor_room == 0 ? kFirstRoom : descriptor_room * 2;
    const Result<void*> memory = sys::map_memory(uint64_t{wider} * sizeof(Descriptor));
    if (!memory) return false;
    Descriptor* list = static_cast<Descriptor*>(*memory);
    for (uint32_t i = 0; i < descriptor_count; ++i) list[i] = descriptors[i];
    if (descriptors != nullptr)
      sys::unmap(descriptors, uint64_t{descriptor_room} * sizeof(Descriptor));
    descriptors = list;
    descriptor_room = wider;
  }
  descriptors[descriptor_count++] = fresh;
  return true;
}

// A number that is given out again was closed meanwhile.
bool note_descriptor(int fd, uint64_t serial) {
  const Result<sys::FileInfo> info = sys::info_of(fd);
  if (!info) return false;
  listing.lock();
  forget_descriptors([fd](const Descriptor& d) { return d.fd == fd; });
  const bool noted = add_descriptor({serial, info->device, info->inode, fd});
  listing.unlock();
  return noted;
}

bool note_ended(uint64_t serial) {
  listing.lock();
  const bool noted = add_descriptor({serial, 0, 0, kEnded});
  if (noted) kept_by_descriptors.fetch_add(1, std::memory_order_release);
  listing.unlock();
  return noted;
}

// The serial of the nth allocation that only descriptors keep, or 0.
uint64_t nth_ended(uint32_t n) {
  uint64_t serial = 0;
  listing.lock();
  for (uint32_t i = 0; i < descriptor_count && serial == 0; ++i) {
    if (descriptors[i].fd == kEnded && n-- == 0) serial = descriptors[i].serial;
  }
  listing.unlock();
  return serial;
}

// ---- allocations -----------------------------------------------------------------------------

// Nothing holds it any more; it is out of the table.
void allocation_ended(const Entry& object, uint64_t handle) {
  release_entry(object);
  if ((object.extra & kImported) != 0) borrowed_closed(import_key(object.key));
  if ((object.extra & kExported) != 0 && exported_objects.fetch_sub(1) == 1) {
    shm::drop_export(process.slice, kDescriptorOffer, process.slot);
  }
  // The handle's name is ours to remove only while it still means this allocation.
  const uint64_t name = handle != 0 ? handle : object.owner;
  const uint64_t serial = object.key;
  process.table.update(Tag::kHandle, name, [serial](Entry& e) { return e.owner != serial; });
  if ((object.extra & kMulticast) != 0) holder_of_memory_gone(name);
}

// Puts a new allocation of one reference into the table.
bool note_allocation(uint64_t handle, uint32_t gpu, uint64_t bytes, uint16_t flags) {
  const uint64_t serial = next_serial.fetch_add(1, std::memory_order_relaxed);
  const uint8_t where = Entry::pack(gpu, ALLOT_KIND_VMM);
  if (!process.table.put({serial, handle, bytes, 1, flags, Tag::kObject, where})) return false;
  if (process.table.put({handle, serial, 0, 0, 0, Tag::kHandle, where})) return true;
  Entry gone;
  process.table.take(Tag::kObject, serial, &gone);
  return false;
}

CUresult mem_create(const Taking& guard, CUmemGenericAllocationHandle* out, size_t bytes,
                    const CUmemAllocationProp* prop, unsigned long long flags) {
  Device* device = nullptr;
  if (guard.tracking() && out != nullptr && prop != nullptr && bytes != 0 &&
      prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE) {
    device = device_of(prop->location.id);
    if (device == nullptr && refused_gpu(prop->location.id)) return CUDA_ERROR_NOT_PERMITTED;
  }
  if (device == nullptr) return real::cuMemCreate(out, bytes, prop, flags);
  keep_accounts(*device);
  const InFlight in_flight(guard);
  const uint64_t charged = round_up(bytes, kPage);
  if (!reserve(*device, ALLOT_KIND_VMM, charged)) return CUDA_ERROR_OUT_OF_MEMORY;
  const CUresult result = real::cuMemCreate(out, bytes, prop, flags);
  if (result == CUDA_SUCCESS &&
      note_allocation(*out, static_cast<uint32_t>(device->gpu), charged, 0)) {
    return result;
  }
  if (result == CUDA_SUCCESS) real::cuMemRelease(*out);
  release(*device, ALLOT_KIND_VMM, charged);
  return result == CUDA_SUCCESS ? CUDA_ERROR_OUT_OF_MEMORY : result;
}

CUresult mem_release(const Observing& guard, CUmemGenericAllocationHandle handle) {
  Entry name;
  if (!guard.tracking() || !process.table.find(Tag::kHandle, handle, &name)) {
    return real::cuMemRelease(handle);
  }
  // By its serial: once the driver has released the handle, another thread may get the same value.
  const InFlight in_flight(guard);
  const CUresult result = real::cuMemRelease(handle);
  if (result == CUDA_SUCCESS) drop_vmm_reference(name.owner, handle);
  return result;
}

// How far into an imported allocation a mapping reaches is all that tells its size.
bool import_may_reach(uint64_t serial, uint64_t end) {
  Entry object;
  if (!process.table.find(Tag::kObject, serial, &object) || (object.extra & kImported) == 0) {
    return true;
  }
  return charge_import(import_key(serial), round_up(end, kPage), object.gpu());
}

CUresult mem_map(const Observing& guard, CUdeviceptr address, size_t bytes, size_t offset,
                 CUmemGenericAllocationHandle handle, unsigned long long flags) {
  if (!guard.tracking()) return real::cuMemMap(address, bytes, offset, handle, flags);
  uint64_t serial = 0;
  const bool ours = add_vmm_reference(handle, &serial);
  const InFlight in_flight(guard);
  CUresult result = ours && !import_may_reach(serial, offset + bytes)
                        ? CUDA_ERROR_OUT_OF_MEMORY
                        : real::cuMemMap(address, bytes, offset, handle, flags);
  if (result == CUDA_SUCCESS) {
    if (process.table.put({address, serial, bytes, 0, 0, Tag::kMapping, 0})) return result;
    real::cuMemUnmap(address, bytes);
    result = CUDA_ERROR_OUT_OF_MEMORY;
  }
  if (ours) drop_vmm_reference(serial, handle);
  return result;
}

// Takes the mappings of a range out of the table, in the order of their addresses.
class TakenMappings {
 public:
  TakenMappings(uint64_t address, uint64_t bytes) {
    uint64_t at = address;
    while (at - address < bytes) {
      Entry mapping;
      if (!process.table.take(Tag::kMapping, at, &mapping)) {
        at = round_up(at + 1, kPage);  // mapped in a way that we do not see: the next may be ours
        continue;
      }
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
    for (size_t i = 0; i < count_; ++i) drop_vmm_reference(list_[i].owner, 0);
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
CUresult mem_unmap(const Observing& guard, CUdeviceptr address, size_t bytes) {
  if (swap_covers(address)) return CUDA_ERROR_INVALID_VALUE;
  if (!guard.tracking()) return real::cuMemUnmap(address, bytes);
  TakenMappings mappings(address, bytes);
  const InFlight in_flight(guard);
  const CUresult result = real::cuMemUnmap(address, bytes);
  if (result == CUDA_SUCCESS) {
    mappings.end();
  } else {
    mappings.put_back();
  }
  return result;
}

CUresult mem_retain(const Observing& guard, CUmemGenericAllocationHandle* out, void* address) {
  if (swap_covers(reinterpret_cast<CUdeviceptr>(address))) return CUDA_ERROR_INVALID_VALUE;
  const CUresult result = real::cuMemRetainAllocationHandle(out, address);
  uint64_t serial = 0;
  if (result == CUDA_SUCCESS && guard.tracking()) add_vmm_reference(*out, &serial);
  return result;
}

CUresult mem_import(const Taking& guard, CUmemGenericAllocationHandle* out, void* shareable,
                    CUmemAllocationHandleType type) {
  const CUresult result = real::cuMemImportFromShareableHandle(out, shareable, type);
  uint64_t serial = 0;
  if (result != CUDA_SUCCESS || !guard.tracking() || add_vmm_reference(*out, &serial)) {
    return result;
  }
  CUmemAllocationProp prop = {};
  const Device* device = nullptr;
  if (real::cuMemGetAllocationPropertiesFromHandle(&prop, *out) == CUDA_SUCCESS &&
      prop.location.type == CU_MEM_LOCATION_TYPE_DEVICE) {
    device = device_of(prop.location.id);
  }
  // Memory of the host, or of another machine by a fabric, takes nothing of this card.
  const uint16_t flags = device != nullptr ? kImported : 0;
  const uint32_t gpu = device != nullptr ? static_cast<uint32_t>(device->gpu) : 0;
  if (note_allocation(*out, gpu, 0, flags)) return result;
  real::cuMemRelease(*out);
  *out = 0;
  return CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult mem_export(const Observing& guard, void* out, CUmemGenericAllocationHandle handle,
                    CUmemAllocationHandleType type, unsigned long long flags) {
  const CUresult result = real::cuMemExportToShareableHandle(out, handle, type, flags);
  Entry name;
  if (result != CUDA_SUCCESS || !guard.tracking() ||
      !process.table.find(Tag::kHandle, handle, &name)) {
    return result;
  }
  if (type == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR &&
      !note_descriptor(*static_cast<int*>(out), name.owner)) {
    return result;
  }
  bool first = false;
  process.table.update(Tag::kObject, name.owner, [&first](Entry& e) {
    first = (e.extra & (kExported | kImported)) == 0;
    if (first) e.extra |= kExported;
    return true;
  });
  if (first && exported_objects.fetch_add(1) == 0) {
    static_cast<void>(shm::add_export(process.slice, kDescriptorOffer, process.slot));
  }
  return result;
}

CUresult multicast_create(const Taking& guard, CUmemGenericAllocationHandle* out,
                          const CUmulticastObjectProp* prop) {
  const CUresult result = real::cuMulticastCreate(out, prop);
  if (result == CUDA_SUCCESS && guard.tracking()) note_allocation(*out, 0, 0, kMulticast);
  return result;
}

}  // namespace

bool add_vmm_reference(uint64_t handle, uint64_t* serial) {
  Entry name;
  if (!process.table.find(Tag::kHandle, handle, &name)) return false;
  *serial = name.owner;
  return process.table.update(Tag::kObject, name.owner, [](Entry& e) {
    ++e.count;
    return true;
  });
}

void drop_vmm_reference(uint64_t serial, uint64_t handle) {
  Entry object = {};
  bool ended = false;
  process.table.update(Tag::kObject, serial, [&](Entry& e) {
    if (e.count > 0) --e.count;
    object = e;
    ended = e.count == 0 && (e.extra & kExported) == 0;
    return !ended;
  });
  if (ended) {
    allocation_ended(object, handle);
  } else if (object.tag == Tag::kObject && object.count == 0 && note_ended(serial)) {
    settle_exported_allocations();
  }
}

bool descriptors_keep_memory() {
  return kept_by_descriptors.load(std::memory_order_acquire) != 0;
}

void settle_exported_allocations() {
  if (kept_by_descriptors.load(std::memory_order_acquire) == 0) return;
  for (uint32_t n = 0;;) {
    const uint64_t serial = nth_ended(n);
    if (serial == 0) return;
    if (kept_by_descriptor(serial)) {
      ++n;
      continue;
    }
    listing.lock();
    forget_descriptors([serial](const Descriptor& d) { return d.serial == serial; });
    listing.unlock();
    Entry object;
    if (!process.table.take(Tag::kObject, serial, &object)) continue;  // another thread was first
    kept_by_descriptors.fetch_sub(1, std::memory_order_release);
    allocation_ended(object, 0);
  }
}

void abandon_vmm() {
  listing.abandon();
  descriptors = nullptr;
  descriptor_count = descriptor_room = 0;
  kept_by_descriptors.store(0);
  exported_objects.store(0);
}

std::span<const Hook> vmm_hooks() {
  static constexpr Hook hooks[] = {
      hook<mem_create>("cuMemCreate"),
      hook<mem_release>("cuMemRelease"),
      hook<mem_map>("cuMemMap"),
      hook<mem_unmap>("cuMemUnmap"),
      hook<mem_retain>("cuMemRetainAllocationHandle"),
      hook<mem_import>("cuMemImportFromShareableHandle"),
      hook<mem_export>("cuMemExportToShareableHandle"),
      hook<multicast_create>("cuMulticastCreate"),
  };
  return hooks;
}

}  // namespace allot::shim
