// Entries of IPC: memory and events that another process of the machine opens by a 64-byte handle.
//
// A memory handle names the share of the block's pages (vram.h) and the place in it. The memory
// lives until its last holder has closed it, also when the process that made it is gone.
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "handles.h"
#include "ipc.h"
#include "memory.h"
#include "runtime.h"

namespace allot::sim {

IpcEvent* take_ipc_event() {
  MachineLock lock;
  Machine* m = machine();
  for (IpcEvent& event : m->events) {
    if (event.used != 0) continue;
    event.slot = my_slot();
    event.generation = m->next_generation++;
    event.recorded = event.done = 0;
    event.time_ns = 0;
    event.used = 1;
    return &event;
  }
  return nullptr;
}

void drop_ipc_event(IpcEvent* event) {
  MachineLock lock;
  if (event->used > 0) event->used--;
}

}  // namespace allot::sim

using namespace allot::sim;

namespace {

struct MemoryName {
  char magic[8];
  ShareName share;
  uint64_t offset, bytes;
  uint32_t pid;
};
struct EventName {
  char magic[8];
  uint64_t index, generation;
  uint32_t pid;
};
constexpr char kMemory[8] = "allotme", kEvent[8] = "allotev";
static_assert(sizeof(MemoryName) <= CU_IPC_HANDLE_SIZE && sizeof(EventName) <= CU_IPC_HANDLE_SIZE);

// Memory opened here, by the share's index: opening it again only counts.
struct Opened {
  Block* block;
  int count;
};
std::map<uint32_t, Opened>& opened() {
  static auto& map = *new std::map<uint32_t, Opened>;
  return map;
}
std::mutex& ipc_lock() {
  static auto& mutex = *new std::mutex;
  return mutex;
}

}  // namespace

namespace allot::sim {
void drop_context_ipc(Context* c) {
  std::lock_guard<std::mutex> lock(ipc_lock());
  for (auto it = opened().begin(); it != opened().end();) {
    Block* block = it->second.block;
    if (block->context != c) {
      ++it;
      continue;
    }
    it = opened().erase(it);
    release_block(block);
  }
}
}  // namespace allot::sim

namespace allot::sim {

CUresult open_memory(CUdeviceptr* out, const CUipcMemHandle& handle) {
  Context* c = nullptr;
  if (const CUresult r = current_context(&c); r != CUDA_SUCCESS) return r;
  MemoryName name;
  memcpy(&name, handle.reserved, sizeof name);
  if (out == nullptr || memcmp(name.magic, kMemory, sizeof kMemory) != 0)
    return CUDA_ERROR_INVALID_VALUE;
  if (name.pid == static_cast<uint32_t>(getpid())) return CUDA_ERROR_INVALID_CONTEXT;
  std::lock_guard<std::mutex> lock(ipc_lock());
  if (auto it = opened().find(name.share.index);
      it != opened().end() && it->second.block->share_generation == name.share.generation) {
    it->second.count++;
    *out = it->second.block->base + name.offset;
    return CUDA_SUCCESS;
  }
  uint32_t gpu = 0;
  Runs pages = hold_share(name.share, &gpu);
  if (pages.empty()) return CUDA_ERROR_INVALID_VALUE;
  uint64_t span = 0;
  for (const Run& run : pages) span += run.count * kPageBytes;
  const uint64_t at = open_vram(gpu) ? reserve_va(span, kPageBytes, 0) : 0;
  if (at == 0 || !map_runs(gpu, pages, at, PROT_READ | PROT_WRITE)) {
    drop_share(name.share.index);
    return CUDA_ERROR_MAP_FAILED;
  }
  auto* block = new Block;
  block->base = at;
  block->bytes = block->span = span;
  block->kind = Kind::kIpc;
  block->gpu = gpu;
  block->device = c->device;
  block->context = c;
  block->pages = std::move(pages);
  block->own_range = true;
  block->share = name.share.index;
  block->share_generation = name.share.generation;
  {
    std::lock_guard<std::mutex> memory(memory_lock());
    register_block(block);
  }
  opened()[name.share.index] = Opened{block, 1};
  *out = at + name.offset;
  return CUDA_SUCCESS;
}

CUresult close_memory(CUdeviceptr address) {
  std::lock_guard<std::mutex> lock(ipc_lock());
  for (auto it = opened().begin(); it != opened().end(); ++it) {
    Block* block = it->second.block;
    if (address < block->base || address >= block->base + block->span) continue;
    if (--it->second.count == 0) {
      opened().erase(it);
      release_block(block);
    }
    return CUDA_SUCCESS;
  }
  return CUDA_ERROR_INVALID_VALUE;
}

bool name_memory(uint64_t address, Kind kind, CUipcMemHandle* out) {
  Area area;
  if (!find_area(address, &area) || area.kind != kind) return false;
  std::lock_guard<std::mutex> lock(ipc_lock());
  Block* block = area.block;
  if (block->share == UINT32_MAX) {
    ShareName share;
    if (!make_share(block->gpu, block->pages, &share)) return false;
    block->share = share.index;
    block->share_generation = share.generation;
  }
  MemoryName name{};
  memcpy(name.magic, kMemory, sizeof kMemory);
  name.share = ShareName{block->share, block->share_generation};
  name.offset = area.base - block->base;
  name.bytes = area.bytes;
  name.pid = static_cast<uint32_t>(getpid());
  memset(out, 0, sizeof *out);
  memcpy(out->reserved, &name, sizeof name);
  return true;
}

}  // namespace allot::sim

SIM_API cuIpcGetMemHandle(CUipcMemHandle* out, CUdeviceptr address) {
  SIM_CONTEXT(c);
  static_cast<void>(c);
  if (out == nullptr || !name_memory(address, Kind::kLinear, out)) return CUDA_ERROR_INVALID_VALUE;
  return CUDA_SUCCESS;
}

SIM_API cuIpcOpenMemHandle_v2(CUdeviceptr* out, CUipcMemHandle handle, unsigned) {
  SIM_ENTER();
  return open_memory(out, handle);
}
SIM_API cuIpcOpenMemHandle(CUdeviceptr* out, CUipcMemHandle handle, unsigned) {
  SIM_ENTER();
  return open_memory(out, handle);
}

SIM_API cuIpcCloseMemHandle(CUdeviceptr address) {
  SIM_CONTEXT(c);
  if (!idle(c)) {
    if (const CUresult r = synchronize(c); r != CUDA_SUCCESS) return r;
  }
  return close_memory(address);
}

SIM_API cuIpcGetEventHandle(CUipcEventHandle* out, CUevent handle) {
  SIM_ENTER();
  const Event* e = to_event(handle);
  if (e == nullptr || e->state->shared == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  EventName name{};
  memcpy(name.magic, kEvent, sizeof kEvent);
  name.index = static_cast<uint64_t>(e->state->shared - machine()->events);
  name.generation = e->state->shared->generation;
  name.pid = static_cast<uint32_t>(getpid());
  memset(out, 0, sizeof *out);
  memcpy(out->reserved, &name, sizeof name);
  return CUDA_SUCCESS;
}

SIM_API cuIpcOpenEventHandle(CUevent* out, CUipcEventHandle handle) {
  SIM_CONTEXT(c);
  EventName name;
  memcpy(&name, handle.reserved, sizeof name);
  if (out == nullptr || memcmp(name.magic, kEvent, sizeof kEvent) != 0 ||
      name.index >= kMaxIpcEvents) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (name.pid == static_cast<uint32_t>(getpid())) return CUDA_ERROR_INVALID_CONTEXT;
  IpcEvent* shared = &machine()->events[name.index];
  {
    MachineLock lock;
    if (shared->used == 0 || shared->generation != name.generation)
      return CUDA_ERROR_INVALID_HANDLE;
    shared->used++;
  }
  auto* e = Handles<Event>::make();
  e->flags = CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;
  e->state->context = c;
  e->state->shared = shared;
  *out = reinterpret_cast<CUevent>(e);
  return CUDA_SUCCESS;
}
