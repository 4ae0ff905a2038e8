// Address lookup and the heap. Everything is O(1) or O(log n) in the number of live blocks.
#include "memory.h"

#include <string.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>

#include "machine.h"

namespace allot::sim {

namespace {

constexpr uint64_t kSmallLimit = 1ull << 20;

struct Registry {
  std::mutex mutex;
  std::vector<Block*> by_page[kMaxGpus];  // for addresses in a GPU's own mapping
  std::map<uint64_t, Block*> by_address;  // all others, by base
};

Registry& registry() {
  static Registry& state = *new Registry;
  return state;
}

bool in_mapping(uint64_t address, uint32_t* gpu, uint32_t* page) {
  const Machine* m = machine();
  for (uint32_t g = 0; g < m->gpu_count; g++) {
    const uint64_t base = gpu_base(g);
    if (base == 0 || address < base || address >= base + m->gpus[g].page_count * kPageBytes)
      continue;
    *gpu = g;
    *page = static_cast<uint32_t>((address - base) / kPageBytes);
    return true;
  }
  return false;
}

uint64_t units_of(uint64_t bytes) {
  return (bytes + kUnit - 1) / kUnit;
}

}  // namespace

std::mutex& memory_lock() {
  return registry().mutex;
}

uint64_t next_id() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

void register_block(Block* block) {
  Registry& r = registry();
  block->id = next_id();
  if (block->own_range || block->pages.empty()) {
    r.by_address[block->base] = block;
    return;
  }
  auto& pages = r.by_page[block->gpu];
  if (pages.empty()) pages.resize(machine()->gpus[block->gpu].page_count);
  const Run run = block->pages[0];
  std::fill_n(pages.begin() + run.first, run.count, block);
}

void unregister_block(Block* block) {
  Registry& r = registry();
  if (block->own_range || block->pages.empty()) {
    r.by_address.erase(block->base);
    return;
  }
  const Run run = block->pages[0];
  std::fill_n(r.by_page[block->gpu].begin() + run.first, run.count, nullptr);
}

Block* block_at(uint64_t address) {
  Registry& r = registry();
  uint32_t gpu, page;
  if (in_mapping(address, &gpu, &page)) {
    return r.by_page[gpu].empty() ? nullptr : r.by_page[gpu][page];
  }
  auto it = r.by_address.upper_bound(address);
  if (it == r.by_address.begin()) return nullptr;
  Block* block = std::prev(it)->second;
  return address - block->base < block->span ? block : nullptr;
}

bool find_area(uint64_t address, Area* out) {
  std::lock_guard<std::mutex> lock(memory_lock());
  Block* block = block_at(address);
  if (block == nullptr) return false;
  *out = Area{block->base,    block->bytes, block->kind,  block->device,
              block->context, block->id,    block->flags, block};
  if (block->kind == Kind::kSlab) {
    auto unit = static_cast<uint32_t>((address - block->base) / kUnit);
    if (!block->slab->taken(unit)) return false;
    while (block->slab->bytes[unit] == 0) unit--;
    out->base = block->base + unit * kUnit;
    out->bytes = block->slab->bytes[unit];
    out->id = block->id << 13 | unit;
    out->kind = Kind::kLinear;
  } else if (block->kind == Kind::kPool) {
    auto it = block->parts.upper_bound(address);
    if (it == block->parts.begin()) return false;
    it = std::prev(it);
    if (address - it->first >= it->second) return false;
    out->base = it->first;
    out->bytes = it->second;
  }
  return true;
}

bool device_reaches(uint64_t address, uint64_t bytes) {
  if (bytes == 0) return true;
  if (bytes > UINT64_MAX - address) return false;
  std::lock_guard<std::mutex> lock(memory_lock());
  // Neighbouring mappings may be walked as one (VMM, slabs of one pool).
  for (uint64_t at = address, end = address + bytes; at < end;) {
    const Block* block = block_at(at);
    if (block == nullptr) return false;
    if (block->kind == Kind::kSlab &&
        !block->slab->taken(static_cast<uint32_t>((at - block->base) / kUnit))) {
      return false;
    }
    at = block->base + block->span;
  }
  return true;
}

bool has_managed_memory() {
  std::lock_guard<std::mutex> lock(memory_lock());
  const auto& others = registry().by_address;
  return std::any_of(others.begin(), others.end(),
                     [](const auto& entry) { return entry.second->kind == Kind::kManaged; });
}

bool not_backed(uint64_t address) {
  std::lock_guard<std::mutex> lock(memory_lock());
  const Block* block = block_at(address);
  return block != nullptr && block->kind == Kind::kGraph && block->pages.empty();
}

Block* allocate_block(uint32_t gpu, CUdevice device, Context* context, Kind kind, uint64_t bytes) {
  const uint64_t count = (bytes + kPageBytes - 1) / kPageBytes;
  if (count == 0 || count > machine()->gpus[gpu].card_pages || !open_vram(gpu)) return nullptr;
  Runs runs = take_pages(gpu, static_cast<uint32_t>(count));
  if (runs.empty()) return nullptr;
  auto block = std::make_unique<Block>();
  block->bytes = bytes;
  block->span = count * kPageBytes;
  block->kind = kind;
  block->gpu = gpu;
  block->device = device;
  block->context = context;
  block->own_range = runs.size() > 1;
  block->base = gpu_base(gpu) + runs[0].first * kPageBytes;
  if (block->own_range) {
    block->base = reserve_va(block->span, kPageBytes, 0);
    if (block->base == 0 || !map_runs(gpu, runs, block->base, PROT_READ | PROT_WRITE)) {
      if (block->base != 0) release_va(block->base, block->span);
      give_pages(gpu, runs, false);
      return nullptr;
    }
  }
  block->pages = std::move(runs);
  std::lock_guard<std::mutex> lock(memory_lock());
  register_block(block.get());
  return block.release();
}

void release_block(Block* block) {
  {
    std::lock_guard<std::mutex> lock(memory_lock());
    unregister_block(block);
  }
  if (block->own_range) release_va(block->base, block->span);
  if (block->share != UINT32_MAX) {
    drop_share(block->share);
  } else if (!block->pages.empty()) {
    give_pages(block->gpu, block->pages);
  }
  delete block;
}

Heap::~Heap() {
  std::vector<Block*> mine;
  {
    std::lock_guard<std::mutex> lock(memory_lock());
    Registry& r = registry();
    const auto collect = [&](Block* b) {
      if (b == nullptr || b->context != context_ || (!mine.empty() && mine.back() == b)) return;
      if (b->kind == Kind::kSlab || b->kind == Kind::kLinear || b->kind == Kind::kArray ||
          b->kind == Kind::kExternal) {
        mine.push_back(b);
      }
    };
    for (Block* b : r.by_page[gpu_]) collect(b);
    for (auto& [base, b] : r.by_address) collect(b);
  }
  for (Block* b : mine) release_block(b);
}

// Puts a slab into the bin that its room asks for. memory_lock() held.
void Heap::file_slab(Block* block, uint32_t room) {
  Slab& slab = *block->slab;
  slab.room = room;
  const uint32_t bin = room == 0 ? UINT32_MAX : 31 - static_cast<uint32_t>(__builtin_clz(room));
  if (bin == slab.bin) return;
  if (slab.bin != UINT32_MAX) {
    auto& old = by_room_[slab.bin];
    old[slab.position] = old.back();
    old[slab.position]->slab->position = slab.position;
    old.pop_back();
  }
  slab.bin = bin;
  if (bin == UINT32_MAX) return;
  slab.position = static_cast<uint32_t>(by_room_[bin].size());
  by_room_[bin].push_back(block);
}

CUresult Heap::allocate_small(uint64_t bytes, uint64_t* address) {
  const auto count = static_cast<uint32_t>(units_of(bytes));
  std::unique_lock<std::mutex> lock(memory_lock());
  for (bool fresh = false;; fresh = true) {
    for (uint32_t bin = 31 - static_cast<uint32_t>(__builtin_clz(count)); bin < by_room_.size();
         bin++) {
      while (!by_room_[bin].empty()) {
        Block* block = by_room_[bin].back();
        Slab& slab = *block->slab;
        uint32_t longest = 0;
        uint32_t unit = slab.find(count, slab.hint, kUnits, &longest);
        if (unit == kUnits) unit = slab.find(count, 0, kUnits, &longest);
        if (unit == kUnits) {  // its room was an upper bound: now it is exact
          const uint32_t before = slab.bin;
          file_slab(block, longest);
          if (slab.bin == before) break;  // others in this bin may still fit, but a higher one does
          continue;
        }
        slab.mark(unit, count, true);
        slab.bytes[unit] = static_cast<uint32_t>(bytes);
        slab.hint = unit + count;
        slab.live++;
        if (slab.hint == kUnits) slab.hint = 0;
        *address = block->base + unit * kUnit;
        return CUDA_SUCCESS;
      }
    }
    if (fresh) return CUDA_ERROR_OUT_OF_MEMORY;
    lock.unlock();
    Block* block = allocate_block(gpu_, device_, context_, Kind::kLinear, kPageBytes);
    if (block == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    lock.lock();
    block->slab = std::make_unique<Slab>();
    block->kind = Kind::kSlab;
    block->slab->bin = UINT32_MAX;
    file_slab(block, kUnits);
  }
}

CUresult Heap::allocate(uint64_t bytes, uint64_t* address) {
  if (bytes <= kSmallLimit) return allocate_small(bytes, address);
  Block* block = allocate_block(gpu_, device_, context_, Kind::kLinear, bytes);
  if (block == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  *address = block->base;
  return CUDA_SUCCESS;
}

CUresult Heap::release(uint64_t address, Block* block) {
  if (block->kind == Kind::kLinear) {
    if (address != block->base) return CUDA_ERROR_INVALID_VALUE;
    release_block(block);
    return CUDA_SUCCESS;
  }
  std::unique_lock<std::mutex> lock(memory_lock());
  Slab& slab = *block->slab;
  const uint64_t offset = address - block->base;
  const auto unit = static_cast<uint32_t>(offset / kUnit);
  if (offset % kUnit != 0 || !slab.taken(unit) || slab.bytes[unit] == 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const auto count = static_cast<uint32_t>(units_of(slab.bytes[unit]));
  slab.mark(unit, count, false);
  slab.bytes[unit] = 0;
  slab.hint = std::min(slab.hint, unit);
  if (--slab.live == 0) {
    file_slab(block, 0);
    lock.unlock();
    release_block(block);
    return CUDA_SUCCESS;
  }
  // A bound is enough: the stretch may have joined one on each side.
  file_slab(block, std::min(kUnits, 2 * slab.room + count));
  return CUDA_SUCCESS;
}

}  // namespace allot::sim
