// Virtual memory management: address ranges, physical handles, mappings, and handles passed as
// files.
//
// A handle's memory stays on the card until the handle has been released as often as it was given
// out and no mapping is left, as on a card (create + map + release twice: there until the unmap).
// What travels between processes is a file descriptor of a memfd that names a share (vram.h).
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <vector>

#include "memory.h"
#include "runtime.h"
#include "vmm.h"

using namespace allot::sim;

namespace {

struct Allocation {
  CUmemAllocationProp prop{};
  uint32_t gpu = 0;
  uint64_t bytes = 0;
  Runs pages;
  int references = 0;  // handles given out
  int mappings = 0;
  uint32_t share = UINT32_MAX;
  uint64_t share_generation = 0;
};

struct Mapping {
  Allocation* allocation;
  uint64_t offset, bytes;
  Block* block;
  CUmemAccess_flags access = CU_MEM_ACCESS_FLAGS_PROT_NONE;
};

// What a sparse array or a multicast object holds, by (holder, device, place).
using Place = std::tuple<uint64_t, CUdevice, uint64_t>;
struct Bound {
  Allocation* allocation;
  uint64_t bytes;
};

struct Multicast {
  CUmulticastObjectProp prop{};
  std::vector<CUdevice> devices;
};

struct Vmm {
  std::mutex mutex;
  std::set<Allocation*> allocations;
  std::map<Place, Bound> bound;
  std::set<Multicast*> multicasts;
  std::map<uint64_t, uint64_t> ranges;   // reserved: base -> bytes
  std::map<uint64_t, Mapping> mappings;  // by base
};

Vmm& vmm() {
  static Vmm& state = *new Vmm;
  return state;
}

struct Exported {  // content of the memfd
  char magic[8];
  ShareName share;
  uint64_t bytes;
  CUmemAllocationProp prop;
};
constexpr char kMagic[8] = "allotsh";

Allocation* to_allocation(CUmemGenericAllocationHandle handle) {
  auto* a = reinterpret_cast<Allocation*>(handle);
  return vmm().allocations.count(a) != 0 ? a : nullptr;
}

// Lock held.
void drop_if_unused(Allocation* a) {
  if (a->references > 0 || a->mappings > 0) return;
  if (a->share != UINT32_MAX) {
    drop_share(a->share);
  } else {
    give_pages(a->gpu, a->pages);
  }
  vmm().allocations.erase(a);
  delete a;
}

// Lock held.
void bind(const Place& place, Allocation* a, uint64_t bytes) {
  a->mappings++;
  Bound& there = vmm().bound[place];
  Allocation* before = there.allocation;
  there = Bound{a, bytes};
  if (before == nullptr) return;
  before->mappings--;
  drop_if_unused(before);
}

template <class Match>
bool unbind_if(Match match) {
  bool any = false;
  for (auto it = vmm().bound.begin(); it != vmm().bound.end();) {
    if (!match(it->first, it->second)) {
      ++it;
      continue;
    }
    Allocation* a = it->second.allocation;
    it = vmm().bound.erase(it);
    a->mappings--;
    drop_if_unused(a);
    any = true;
  }
  return any;
}

Multicast* to_multicast(CUmemGenericAllocationHandle handle) {
  auto* m = reinterpret_cast<Multicast*>(handle);
  return vmm().multicasts.count(m) != 0 ? m : nullptr;
}

uint64_t tile_of(const CUarrayMapInfo& info) {
  const auto& at = info.subresource;
  if (info.subresourceType != CU_ARRAY_SPARSE_SUBRESOURCE_TYPE_SPARSE_LEVEL)
    return uint64_t{1} << 63 | uint64_t{at.miptail.layer} << 40 | at.miptail.offset >> 16;
  const auto& level = at.sparseLevel;
  return uint64_t{level.level} << 56 | uint64_t{level.layer} << 48 | uint64_t{level.offsetX} << 32 |
         uint64_t{level.offsetY} << 16 | level.offsetZ;
}

CUresult check_prop(const CUmemAllocationProp* prop) {
  if (prop == nullptr || prop->type != CU_MEM_ALLOCATION_TYPE_PINNED)
    return CUDA_ERROR_INVALID_VALUE;
  if (prop->location.type != CU_MEM_LOCATION_TYPE_DEVICE) return CUDA_ERROR_NOT_SUPPORTED;
  if (!valid_device(prop->location.id)) return CUDA_ERROR_INVALID_DEVICE;
  if ((prop->requestedHandleTypes & ~CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) != 0) {
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  return CUDA_SUCCESS;
}

bool inside_reserved(uint64_t at, uint64_t bytes) {
  auto it = vmm().ranges.upper_bound(at);
  if (it == vmm().ranges.begin()) return false;
  it = std::prev(it);
  return at + bytes <= it->first + it->second;
}

bool overlaps(uint64_t at, uint64_t bytes) {
  auto it = vmm().mappings.lower_bound(at);
  if (it != vmm().mappings.end() && it->first < at + bytes) return true;
  return it != vmm().mappings.begin() && std::prev(it)->first + std::prev(it)->second.bytes > at;
}

Runs part_of(const Runs& pages, uint64_t offset, uint64_t bytes) {
  Runs part;
  auto skip = static_cast<uint32_t>(offset / kPageBytes),
       left = static_cast<uint32_t>(bytes / kPageBytes);
  for (const Run& run : pages) {
    const uint32_t cut = std::min(skip, run.count);
    skip -= cut;
    const uint32_t take = std::min(run.count - cut, left);
    if (take > 0) part.push_back(Run{run.first + cut, take});
    left -= take;
  }
  return part;
}

// Mappings that lie whole in [at, +bytes), or nothing when that is not what stands there.
std::vector<uint64_t> covered(uint64_t at, uint64_t bytes) {
  std::vector<uint64_t> list;
  uint64_t next = at;
  while (next < at + bytes) {
    auto it = vmm().mappings.find(next);
    if (it == vmm().mappings.end()) return {};
    list.push_back(next);
    next += it->second.bytes;
  }
  return next == at + bytes ? list : std::vector<uint64_t>{};
}

int protection(CUmemAccess_flags flags) {
  switch (flags) {
    case CU_MEM_ACCESS_FLAGS_PROT_READ:
      return PROT_READ;
    case CU_MEM_ACCESS_FLAGS_PROT_READWRITE:
      return PROT_READ | PROT_WRITE;
    default:
      return PROT_NONE;
  }
}

}  // namespace

SIM_API cuMemGetAllocationGranularity(size_t* out, const CUmemAllocationProp* prop,
                                      CUmemAllocationGranularity_flags) {
  SIM_ENTER();
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (const CUresult r = check_prop(prop); r != CUDA_SUCCESS) return r;
  *out = kPageBytes;
  return CUDA_SUCCESS;
}

SIM_API cuMemAddressReserve(CUdeviceptr* out, size_t bytes, size_t alignment, CUdeviceptr wish,
                            unsigned long long flags) {
  SIM_ENTER();
  if (out == nullptr || bytes == 0 || bytes % kPageBytes != 0 || flags != 0)
    return CUDA_ERROR_INVALID_VALUE;
  if ((alignment & (alignment - 1)) != 0) return CUDA_ERROR_INVALID_VALUE;
  const uint64_t at = reserve_va(bytes, alignment, wish);
  if (at == 0) return CUDA_ERROR_OUT_OF_MEMORY;
  std::lock_guard<std::mutex> lock(vmm().mutex);
  vmm().ranges[at] = bytes;
  *out = at;
  return CUDA_SUCCESS;
}

SIM_API cuMemAddressFree(CUdeviceptr at, size_t bytes) {
  SIM_ENTER();
  std::lock_guard<std::mutex> lock(vmm().mutex);
  auto it = vmm().ranges.find(at);
  if (it == vmm().ranges.end() || it->second != bytes || overlaps(at, bytes))
    return CUDA_ERROR_INVALID_VALUE;
  vmm().ranges.erase(it);
  release_va(at, bytes);
  return CUDA_SUCCESS;
}

SIM_API cuMemCreate(CUmemGenericAllocationHandle* out, size_t bytes,
                    const CUmemAllocationProp* prop, unsigned long long flags) {
  SIM_ENTER();
  if (out == nullptr || bytes == 0 || bytes % kPageBytes != 0 || flags != 0)
    return CUDA_ERROR_INVALID_VALUE;
  if (const CUresult r = check_prop(prop); r != CUDA_SUCCESS) return r;
  const uint32_t gpu = gpu_of(prop->location.id);
  if (!open_vram(gpu)) return CUDA_ERROR_OPERATING_SYSTEM;
  if (bytes > machine()->gpus[gpu].bytes) return CUDA_ERROR_OUT_OF_MEMORY;
  Runs pages = take_pages(gpu, static_cast<uint32_t>(bytes / kPageBytes));
  if (pages.empty()) return CUDA_ERROR_OUT_OF_MEMORY;
  auto* a = new Allocation;
  a->prop = *prop;
  a->gpu = gpu;
  a->bytes = bytes;
  a->pages = std::move(pages);
  a->references = 1;
  std::lock_guard<std::mutex> lock(vmm().mutex);
  vmm().allocations.insert(a);
  *out = reinterpret_cast<CUmemGenericAllocationHandle>(a);
  return CUDA_SUCCESS;
}

SIM_API cuMemRelease(CUmemGenericAllocationHandle handle) {
  SIM_ENTER();
  std::lock_guard<std::mutex> lock(vmm().mutex);
  if (Multicast* m = to_multicast(handle)) {
    vmm().multicasts.erase(m);
    unbind_if([handle](const Place& at, const Bound&) { return std::get<0>(at) == handle; });
    delete m;
    return CUDA_SUCCESS;
  }
  Allocation* a = to_allocation(handle);
  if (a == nullptr || a->references == 0) return CUDA_ERROR_INVALID_VALUE;
  a->references--;
  drop_if_unused(a);
  return CUDA_SUCCESS;
}

SIM_API cuMemRetainAllocationHandle(CUmemGenericAllocationHandle* out, void* at) {
  SIM_ENTER();
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard<std::mutex> lock(vmm().mutex);
  const auto address = reinterpret_cast<uint64_t>(at);
  auto it = vmm().mappings.upper_bound(address);
  if (it == vmm().mappings.begin()) return CUDA_ERROR_INVALID_VALUE;
  it = std::prev(it);
  if (address >= it->first + it->second.bytes) return CUDA_ERROR_INVALID_VALUE;
  it->second.allocation->references++;
  *out = reinterpret_cast<CUmemGenericAllocationHandle>(it->second.allocation);
  return CUDA_SUCCESS;
}

SIM_API cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp* prop,
                                               CUmemGenericAllocationHandle handle) {
  SIM_ENTER();
  std::lock_guard<std::mutex> lock(vmm().mutex);
  const Allocation* a = to_allocation(handle);
  if (prop == nullptr || a == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *prop = a->prop;
  return CUDA_SUCCESS;
}

SIM_API cuMemMap(CUdeviceptr at, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                 unsigned long long flags) {
  SIM_ENTER();
  std::lock_guard<std::mutex> lock(vmm().mutex);
  Allocation* a = to_allocation(handle);
  if (a == nullptr || flags != 0 || bytes == 0 || at % kPageBytes != 0 || bytes % kPageBytes != 0 ||
      offset % kPageBytes != 0 || offset + bytes > a->bytes || !inside_reserved(at, bytes) ||
      overlaps(at, bytes)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const Runs pages = part_of(a->pages, offset, bytes);
  if (!map_runs(a->gpu, pages, at, PROT_NONE)) return CUDA_ERROR_MAP_FAILED;
  auto* block = new Block;
  block->base = at;
  block->bytes = block->span = bytes;
  block->kind = Kind::kVmm;
  block->gpu = a->gpu;
  block->device = a->prop.location.id;
  block->flags = static_cast<unsigned>(a->prop.requestedHandleTypes);
  block->own_range = true;
  {
    std::lock_guard<std::mutex> memory(memory_lock());
    register_block(block);
  }
  a->mappings++;
  vmm().mappings[at] = Mapping{a, offset, bytes, block};
  return CUDA_SUCCESS;
}

SIM_API cuMemUnmap(CUdeviceptr at, size_t bytes) {
  SIM_ENTER();
  for (Context* c : living_contexts()) {
    if (!idle(c)) synchronize(c);  // work that may still use the memory ends first
  }
  std::lock_guard<std::mutex> lock(vmm().mutex);
  const std::vector<uint64_t> list = covered(at, bytes);
  if (list.empty()) return CUDA_ERROR_INVALID_VALUE;
  for (uint64_t base : list) {
    const Mapping mapping = vmm().mappings[base];
    {
      std::lock_guard<std::mutex> memory(memory_lock());
      unregister_block(mapping.block);
    }
    delete mapping.block;
    clear_va(base, mapping.bytes);
    vmm().mappings.erase(base);
    mapping.allocation->mappings--;
    drop_if_unused(mapping.allocation);
  }
  return CUDA_SUCCESS;
}

SIM_API cuMemSetAccess(CUdeviceptr at, size_t bytes, const CUmemAccessDesc* desc, size_t count) {
  SIM_ENTER();
  if (desc == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard<std::mutex> lock(vmm().mutex);
  const std::vector<uint64_t> list = covered(at, bytes);
  if (list.empty()) return CUDA_ERROR_INVALID_VALUE;
  // One address space serves every device here: the widest right asked for holds.
  auto widest = CU_MEM_ACCESS_FLAGS_PROT_NONE;
  for (size_t i = 0; i < count; i++) {
    if (desc[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE) return CUDA_ERROR_NOT_SUPPORTED;
    if (!valid_device(desc[i].location.id)) return CUDA_ERROR_INVALID_DEVICE;
    widest = std::max(widest, desc[i].flags);
  }
  for (uint64_t base : list) {
    Mapping& mapping = vmm().mappings[base];
    mapping.access = widest;
    mprotect(reinterpret_cast<void*>(base), mapping.bytes, protection(widest));
  }
  return CUDA_SUCCESS;
}

SIM_API cuMemGetAccess(unsigned long long* flags, const CUmemLocation* where, CUdeviceptr at) {
  SIM_ENTER();
  if (flags == nullptr || where == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard<std::mutex> lock(vmm().mutex);
  auto it = vmm().mappings.upper_bound(at);
  if (it == vmm().mappings.begin()) return CUDA_ERROR_INVALID_VALUE;
  it = std::prev(it);
  if (at >= it->first + it->second.bytes) return CUDA_ERROR_INVALID_VALUE;
  *flags = static_cast<unsigned long long>(it->second.access);
  return CUDA_SUCCESS;
}

SIM_API cuMemExportToShareableHandle(void* out, CUmemGenericAllocationHandle handle,
                                     CUmemAllocationHandleType type, unsigned long long flags) {
  SIM_ENTER();
  std::lock_guard<std::mutex> lock(vmm().mutex);
  Allocation* a = to_allocation(handle);
  if (out == nullptr || a == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return CUDA_ERROR_NOT_SUPPORTED;
  if ((a->prop.requestedHandleTypes & type) == 0) return CUDA_ERROR_INVALID_VALUE;
  if (a->share == UINT32_MAX) {
    ShareName name;
    if (!make_share(a->gpu, a->pages, &name)) return CUDA_ERROR_OUT_OF_MEMORY;
    a->share = name.index;
    a->share_generation = name.generation;
  }
  Exported content{};
  memcpy(content.magic, kMagic, sizeof kMagic);
  content.share = ShareName{a->share, a->share_generation};
  content.bytes = a->bytes;
  content.prop = a->prop;
  // As on a card, the descriptor keeps the memory, wherever it is and whatever becomes of the
  // handle.
  const int fd = open_share_holder(content.share);
  if (fd < 0 || pwrite(fd, &content, sizeof content, 0) != sizeof content) {
    if (fd >= 0) close(fd);
    return CUDA_ERROR_OPERATING_SYSTEM;
  }
  *static_cast<int*>(out) = fd;
  return CUDA_SUCCESS;
}

SIM_API cuMemImportFromShareableHandle(CUmemGenericAllocationHandle* out, void* os_handle,
                                       CUmemAllocationHandleType type) {
  SIM_ENTER();
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return CUDA_ERROR_NOT_SUPPORTED;
  Exported content;
  const int fd = static_cast<int>(reinterpret_cast<intptr_t>(os_handle));
  if (pread(fd, &content, sizeof content, 0) != sizeof content ||
      memcmp(content.magic, kMagic, sizeof kMagic) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  std::lock_guard<std::mutex> lock(vmm().mutex);
  for (Allocation* a : vmm().allocations) {  // known already: one more reference
    if (a->share == content.share.index && a->share_generation == content.share.generation) {
      a->references++;
      *out = reinterpret_cast<CUmemGenericAllocationHandle>(a);
      return CUDA_SUCCESS;
    }
  }
  uint32_t gpu = 0;
  Runs pages = hold_share(content.share, &gpu);
  if (pages.empty()) return CUDA_ERROR_INVALID_VALUE;
  if (!open_vram(gpu)) return CUDA_ERROR_OPERATING_SYSTEM;
  auto* a = new Allocation;
  a->prop = content.prop;
  a->gpu = gpu;
  for (CUdevice d = 0; d < device_count(); d++) {
    if (gpu_of(d) == gpu) a->prop.location.id = d;
  }
  a->bytes = content.bytes;
  a->pages = std::move(pages);
  a->references = 1;
  a->share = content.share.index;
  a->share_generation = content.share.generation;
  vmm().allocations.insert(a);
  *out = reinterpret_cast<CUmemGenericAllocationHandle>(a);
  return CUDA_SUCCESS;
}

namespace allot::sim {
void unbind_all(uint64_t holder) {
  std::lock_guard<std::mutex> lock(vmm().mutex);
  unbind_if([holder](const Place& at, const Bound&) { return std::get<0>(at) == holder; });
}
}  // namespace allot::sim

// Memory of handles under parts of sparse arrays. Contents are not modelled.
static CUresult map_array(CUarrayMapInfo* infos, unsigned count) {
  if (infos == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard<std::mutex> lock(vmm().mutex);
  for (unsigned i = 0; i < count; i++) {
    if (infos[i].memOperationType == CU_MEM_OPERATION_TYPE_MAP &&
        to_allocation(infos[i].memHandle.memHandle) == nullptr) {
      return CUDA_ERROR_INVALID_VALUE;
    }
  }
  for (unsigned i = 0; i < count; i++) {
    const Place place{reinterpret_cast<uint64_t>(infos[i].resource.array), 0, tile_of(infos[i])};
    if (infos[i].memOperationType == CU_MEM_OPERATION_TYPE_MAP) {
      bind(place, to_allocation(infos[i].memHandle.memHandle), kPageBytes);
    } else {
      unbind_if([&](const Place& at, const Bound&) { return at == place; });
    }
  }
  return CUDA_SUCCESS;
}
SIM_API cuMemMapArrayAsync(CUarrayMapInfo* infos, unsigned count, CUstream) {
  SIM_ENTER();
  return map_array(infos, count);
}
SIM_API cuMemMapArrayAsync_ptsz(CUarrayMapInfo* infos, unsigned count, CUstream) {
  SIM_ENTER();
  return map_array(infos, count);
}

// Multicast objects hold the memory that is bound to them. Their addresses cannot be mapped here.
SIM_API cuMulticastGetGranularity(size_t* out, const CUmulticastObjectProp* prop, int) {
  SIM_ENTER();
  if (out == nullptr || prop == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = kPageBytes;
  return CUDA_SUCCESS;
}
SIM_API cuMulticastCreate(CUmemGenericAllocationHandle* out, const CUmulticastObjectProp* prop) {
  SIM_ENTER();
  if (out == nullptr || prop == nullptr || prop->numDevices == 0 || prop->size % kPageBytes != 0)
    return CUDA_ERROR_INVALID_VALUE;
  auto* m = new Multicast;
  m->prop = *prop;
  std::lock_guard<std::mutex> lock(vmm().mutex);
  vmm().multicasts.insert(m);
  *out = reinterpret_cast<CUmemGenericAllocationHandle>(m);
  return CUDA_SUCCESS;
}
SIM_API cuMulticastAddDevice(CUmemGenericAllocationHandle handle, CUdevice device) {
  SIM_ENTER();
  std::lock_guard<std::mutex> lock(vmm().mutex);
  Multicast* m = to_multicast(handle);
  if (m == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  m->devices.push_back(device);
  return CUDA_SUCCESS;
}
SIM_API cuMulticastBindMem(CUmemGenericAllocationHandle handle, size_t offset,
                           CUmemGenericAllocationHandle memory, size_t memory_offset, size_t bytes,
                           unsigned long long flags) {
  SIM_ENTER();
  std::lock_guard<std::mutex> lock(vmm().mutex);
  const Multicast* m = to_multicast(handle);
  Allocation* a = to_allocation(memory);
  if (m == nullptr || a == nullptr || flags != 0 || offset + bytes > m->prop.size ||
      memory_offset + bytes > a->bytes) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  bind({handle, a->prop.location.id, offset}, a, bytes);
  return CUDA_SUCCESS;
}
SIM_API cuMulticastBindAddr(CUmemGenericAllocationHandle handle, size_t offset, CUdeviceptr at,
                            size_t bytes, unsigned long long flags) {
  SIM_ENTER();
  std::lock_guard<std::mutex> lock(vmm().mutex);
  auto it = vmm().mappings.upper_bound(at);
  if (to_multicast(handle) == nullptr || flags != 0 || it == vmm().mappings.begin())
    return CUDA_ERROR_INVALID_VALUE;
  it = std::prev(it);
  if (at + bytes > it->first + it->second.bytes) return CUDA_ERROR_INVALID_VALUE;
  bind({handle, it->second.allocation->prop.location.id, offset}, it->second.allocation, bytes);
  return CUDA_SUCCESS;
}
SIM_API cuMulticastUnbind(CUmemGenericAllocationHandle handle, CUdevice device, size_t offset,
                          size_t bytes) {
  SIM_ENTER();
  std::lock_guard<std::mutex> lock(vmm().mutex);
  if (to_multicast(handle) == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const bool any = unbind_if([&](const Place& at, const Bound& bound) {
    return std::get<0>(at) == handle && std::get<1>(at) == device && std::get<2>(at) >= offset &&
           std::get<2>(at) + bound.bytes <= offset + bytes;
  });
  return any ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
