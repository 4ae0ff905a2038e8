// Memory of graphs: ranges of addresses that get the card's memory with the first launch.
#include <sys/mman.h>

#include "memory.h"
#include "pool_state.h"
#include "runtime.h"

namespace allot::sim {

// The addresses go. Lock held.
static void forget_region(GraphRegion* region) {
  {
    std::lock_guard<std::mutex> memory(memory_lock());
    unregister_block(region->block);
  }
  release_va(region->block->base, region->block->span);
  std::erase(pools().regions, region);
  delete region->block;
  delete region;
}

GraphRegion* make_region(CUdevice device, uint64_t bytes, uint64_t* address) {
  const uint64_t span = round_up(bytes, kPoolStep);
  const uint64_t base = reserve_va(span, kPageBytes, 0);
  if (base == 0) return nullptr;
  auto* block = new Block;
  block->base = base;
  block->bytes = bytes;
  block->span = span;
  block->kind = Kind::kGraph;
  block->gpu = gpu_of(device);
  block->device = device;
  block->own_range = true;
  auto* region = new GraphRegion{block};
  std::lock_guard<std::mutex> lock(pools().mutex);
  pools().regions.push_back(region);
  std::lock_guard<std::mutex> memory(memory_lock());
  register_block(block);
  *address = base;
  return region;
}

CUresult back_region(GraphRegion* region) {
  Pools& state = pools();
  Block* block = region->block;
  const uint32_t gpu = block->gpu;
  std::lock_guard<std::mutex> lock(state.mutex);
  if (block->pages.empty()) {
    if (!open_vram(gpu)) return CUDA_ERROR_OPERATING_SYSTEM;
    Runs pages = take_pages(gpu, static_cast<uint32_t>(block->span / kPageBytes));
    if (pages.empty()) return CUDA_ERROR_OUT_OF_MEMORY;
    if (!map_runs(gpu, pages, block->base, PROT_READ | PROT_WRITE)) {
      give_pages(gpu, pages, false);
      return CUDA_ERROR_MAP_FAILED;
    }
    {
      std::lock_guard<std::mutex> memory(memory_lock());
      block->pages = std::move(pages);
    }
    state.graph_used[gpu] += block->span;
    state.graph_used_high[gpu] = std::max(state.graph_used_high[gpu], state.graph_used[gpu]);
    state.graph_reserved[gpu] += block->span;
    state.graph_reserved_high[gpu] =
        std::max(state.graph_reserved_high[gpu], state.graph_reserved[gpu]);
  }
  region->in_use = true;
  return CUDA_SUCCESS;
}

// The figures of a card keep counting the memory as used until it is trimmed; only that it may be
// trimmed is noted here.
void end_region_use(GraphRegion* region) {
  std::lock_guard<std::mutex> lock(pools().mutex);
  region->in_use = false;
}

void drop_region(GraphRegion* region) {
  std::lock_guard<std::mutex> lock(pools().mutex);
  region->dropped = true;
  if (region->block->pages.empty()) forget_region(region);
}

GraphRegion* region_at(uint64_t address) {
  std::lock_guard<std::mutex> lock(pools().mutex);
  for (GraphRegion* region : pools().regions) {
    if (region->block->base == address) return region;
  }
  return nullptr;
}

CUresult free_graph_memory(uint64_t address) {
  GraphRegion* region = region_at(address);
  if (region == nullptr || !region->in_use) return CUDA_ERROR_INVALID_VALUE;
  end_region_use(region);
  return CUDA_SUCCESS;
}

}  // namespace allot::sim

using namespace allot::sim;

SIM_API cuDeviceGetGraphMemAttribute(CUdevice device, CUgraphMem_attribute which, void* out) {
  SIM_ENTER();
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  Pools& state = pools();
  std::lock_guard<std::mutex> lock(state.mutex);
  const uint32_t gpu = gpu_of(device);
  const uint64_t values[] = {state.graph_used[gpu], state.graph_used_high[gpu],
                             state.graph_reserved[gpu], state.graph_reserved_high[gpu]};
  if (which < 0 || which > 3) return CUDA_ERROR_INVALID_VALUE;
  *static_cast<cuuint64_t*>(out) = values[which];
  return CUDA_SUCCESS;
}

SIM_API cuDeviceSetGraphMemAttribute(CUdevice device, CUgraphMem_attribute which, void* in) {
  SIM_ENTER();
  if (in == nullptr || *static_cast<cuuint64_t*>(in) != 0) return CUDA_ERROR_INVALID_VALUE;
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  Pools& state = pools();
  std::lock_guard<std::mutex> lock(state.mutex);
  const uint32_t gpu = gpu_of(device);
  if (which == CU_GRAPH_MEM_ATTR_USED_MEM_HIGH) {
    state.graph_used_high[gpu] = state.graph_used[gpu];
  } else if (which == CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH) {
    state.graph_reserved_high[gpu] = state.graph_reserved[gpu];
  } else {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}

SIM_API cuDeviceGraphMemTrim(CUdevice device) {
  SIM_ENTER();
  if (!valid_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  Pools& state = pools();
  std::lock_guard<std::mutex> lock(state.mutex);
  const uint32_t gpu = gpu_of(device);
  for (size_t i = state.regions.size(); i-- > 0;) {
    GraphRegion* region = state.regions[i];
    Block* block = region->block;
    if (block->gpu != gpu || region->in_use || block->pages.empty()) continue;
    Runs pages;
    {
      std::lock_guard<std::mutex> memory(memory_lock());
      pages.swap(block->pages);
    }
    clear_va(block->base, block->span);
    give_pages(gpu, pages);
    state.graph_reserved[gpu] -= block->span;
    state.graph_used[gpu] -= block->span;
    if (region->dropped) forget_region(region);
  }
  return CUDA_SUCCESS;
}
