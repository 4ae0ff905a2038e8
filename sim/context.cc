// Contexts: the current one of a thread, the primary one of a device, making and ending them.
#include "context.h"

#include <stdlib.h>
#include <string.h>

#include <algorithm>

#include "base/units.h"
#include "handles.h"
#include "ipc.h"
#include "memory.h"
#include "rm.h"
#include "runtime.h"

namespace allot::sim {
namespace {

struct Contexts {
  std::mutex mutex;
  std::vector<Context*> all;                 // alive or not; objects stay
  std::array<Context*, kMaxGpus> primary{};  // by device
};

Contexts& contexts() {
  static Contexts& state = *new Contexts;
  return state;
}

struct ThreadStack {  // trivial: a host may call after our thread-local destructors ran
  Context* entry[64];
  uint32_t depth;
};
thread_local ThreadStack t_stack;
std::atomic<int> g_living{0};

void set_default_limits(Context* c) {
  c->limits[CU_LIMIT_STACK_SIZE] = 1024;
  c->limits[CU_LIMIT_PRINTF_FIFO_SIZE] = 7340032;
  c->limits[CU_LIMIT_MALLOC_HEAP_SIZE] = 8 << 20;
  c->limits[CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH] = 2;
  c->limits[CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT] = 2048;
  c->limits[CU_LIMIT_MAX_L2_FETCH_GRANULARITY] = 64;
}

void count_context(const Context* c, int by) {
  MachineLock lock;
  machine()->slots[my_slot()].contexts[c->gpu] += static_cast<uint32_t>(by);
}

}  // namespace

uint64_t context_overhead_bytes() {
  static const uint64_t value = [] {
    const char* text = getenv("ALLOT_SIM_CONTEXT");
    const auto bytes = parse_size(text != nullptr ? text : "512M");
    return (bytes ? *bytes : 512ull << 20) / kPageBytes * kPageBytes;
  }();
  return value;
}

Context* current_or_null() {
  return t_stack.depth > 0 ? t_stack.entry[t_stack.depth - 1] : nullptr;
}

CUresult current_context(Context** out) {
  Context* c = current_or_null();
  if (c == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (!c->alive) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  if (const CUresult error = c->error.load(std::memory_order_relaxed); error != CUDA_SUCCESS)
    return error;
  *out = c;
  return CUDA_SUCCESS;
}

bool push_context(Context* c) {
  if (t_stack.depth == 64) return false;
  t_stack.entry[t_stack.depth++] = c;
  return true;
}

Context* pop_context() {
  return t_stack.depth > 0 ? t_stack.entry[--t_stack.depth] : nullptr;
}

void set_context(Context* c) {
  if (t_stack.depth > 0) t_stack.depth--;
  if (c != nullptr) push_context(c);
}

Context* new_context() {
  auto* c = new Context;
  std::lock_guard<std::mutex> lock(contexts().mutex);
  contexts().all.push_back(c);
  return c;
}

Context* primary_context(CUdevice device) {
  Contexts& state = contexts();
  std::lock_guard<std::mutex> lock(state.mutex);
  Context*& slot = state.primary[static_cast<size_t>(device)];
  if (slot == nullptr) {
    slot = new Context;
    slot->primary = true;
    slot->device = device;
    slot->gpu = gpu_of(device);
    state.all.push_back(slot);
  }
  return slot;
}

std::mutex& primary_lock() {
  static std::mutex& mutex = *new std::mutex;
  return mutex;
}

bool primary_active(CUdevice device) {
  return primary_context(device)->alive;
}

int living_context_count() {
  return g_living.load();
}

std::vector<Context*> living_contexts() {
  std::lock_guard<std::mutex> lock(contexts().mutex);
  std::vector<Context*> alive;
  for (Context* c : contexts().all) {
    if (c->alive) alive.push_back(c);
  }
  return alive;
}

CUresult open_context(Context* c, CUdevice device, unsigned flags) {
  static std::atomic<uint64_t> last_serial{0};
  c->device = device;
  c->gpu = gpu_of(device);
  c->flags = flags;
  if (!open_vram(c->gpu)) return CUDA_ERROR_OPERATING_SYSTEM;
  if (const uint64_t bytes = c->green ? 0 : context_overhead_bytes(); bytes > 0) {
    c->overhead = take_pages(c->gpu, static_cast<uint32_t>(bytes / kPageBytes));
    if (c->overhead.empty()) return CUDA_ERROR_OUT_OF_MEMORY;
  }
  c->group = open_group(c->gpu);
  if (c->group == UINT32_MAX) {
    give_pages(c->gpu, c->overhead, false);
    c->overhead.clear();
    return CUDA_ERROR_DEVICE_UNAVAILABLE;
  }
  c->heap = std::make_unique<Heap>(c, c->gpu, device);
  c->error = CUDA_SUCCESS;
  c->quit = false;
  c->pending = 0;
  c->serial = ++last_serial;
  c->id = c->serial;
  set_default_limits(c);
  if (c->streams.empty()) {
    c->legacy = make_stream(c, 0, 0);
    c->legacy->legacy = true;
  }
  c->alive = true;
  g_living++;
  count_context(c, 1);
  if (const CUresult r = rm_open_context(c); r != CUDA_SUCCESS) {
    close_context(c);
    return r;
  }
  return CUDA_SUCCESS;
}

CUresult take_device_heap(Context* c) {
  const uint64_t wanted = c->limits[CU_LIMIT_MALLOC_HEAP_SIZE];
  if (wanted <= 8 << 20 || !c->device_heap.empty()) return CUDA_SUCCESS;
  const uint64_t pages = (wanted - (8 << 20) + kPageBytes - 1) / kPageBytes;
  if (pages > machine()->gpus[c->gpu].card_pages) return CUDA_ERROR_OUT_OF_MEMORY;
  c->device_heap = take_pages(c->gpu, static_cast<uint32_t>(pages));
  return c->device_heap.empty() ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

void close_context(Context* c) {
  stop_executor(c);
  drop_context_modules(c);
  drop_context_ipc(c);
  drop_context_pools(c);
  rm_close_context(c);
  c->alive = false;
  g_living--;
  c->heap.reset();
  close_group(c->gpu, c->group);
  c->group = UINT32_MAX;
  give_pages(c->gpu, c->overhead, false);
  c->overhead.clear();
  give_pages(c->gpu, c->device_heap, false);
  c->device_heap.clear();
  count_context(c, -1);
  {
    std::lock_guard<std::mutex> lock(c->mutex);
    for (Stream* s : c->streams) {
      s->queue.clear();
      if (!s->legacy) Handles<Stream>::bury(s);
    }
    c->streams.resize(1);
    c->thread_streams.clear();
    c->peers.clear();
    Stream* legacy = c->streams[0];
    legacy->completed = legacy->submitted.load();
    c->pending = 0;
  }
  hub().notify();
}

}  // namespace allot::sim
