// One mapping, made with the first small block, holds the bits of all slabs; a free list says which
// places in it are free. A slab beyond the last place (64 GiB of small blocks) has a count and no
// bits: then only the driver knows whether an address is a block.
#include "shim/memory/slabs.h"

#include "shim/memory/charge.h"
#include "shim/process/spin.h"
#include "sys/file.h"

namespace allot::shim {
namespace {

constexpr uint32_t kSlabShift = 21;
constexpr uint32_t kPlaceShift = 9;
constexpr uint32_t kWords = 64;  // 4,096 places of 512 bytes
constexpr uint16_t kNoBits = 0;  // Entry::extra of a slab without bits
constexpr uint16_t kMaxSlabs = 32768;

constinit SpinLock placing;
constinit uint64_t* bits = nullptr;  // kMaxSlabs groups of kWords; written once, under placing
constinit uint16_t free_list[kMaxSlabs] = {};
constinit uint32_t free_count = 0;
constinit uint16_t next_unused = 1;

uint16_t bits_take() {
  uint16_t place = kNoBits;
  placing.lock();
  if (bits == nullptr) {
    const Result<void*> memory = sys::map_memory(uint64_t{kMaxSlabs} * kWords * sizeof(uint64_t));
    if (memory) bits = static_cast<uint64_t*>(*memory);
  }
  if (bits != nullptr) {
    if (free_count > 0) {
      place = free_list[--free_count];
    } else if (next_unused < kMaxSlabs) {
      place = next_unused++;
    }
  }
  placing.unlock();
  return place;
}

void bits_give_back(uint16_t place) {
  if (place == kNoBits) return;
  for (uint32_t i = 0; i < kWords; ++i) bits[uint32_t{place} * kWords + i] = 0;
  placing.lock();
  free_list[free_count++] = place;
  placing.unlock();
}

// The word and the bit of `address` in its slab's group.
uint64_t& word_of(const Entry& slab, CUdeviceptr address) {
  const uint64_t place = (address >> kPlaceShift) & (kWords * 64 - 1);
  return bits[uint32_t{slab.extra} * kWords + place / 64];
}
uint64_t bit_of(CUdeviceptr address) {
  return uint64_t{1} << ((address >> kPlaceShift) & 63);
}

void mark(const Entry& slab, CUdeviceptr address) {
  if (slab.extra != kNoBits) word_of(slab, address) |= bit_of(address);
}

}  // namespace

SlabAdd slab_add(const Device& device, CUcontext context, CUdeviceptr address) {
  const auto more = [address](Entry& slab) {
    ++slab.count;
    mark(slab, address);
  };
  const bool known = process.table.update(Tag::kSlab, address >> kSlabShift, [&](Entry& slab) {
    more(slab);
    return true;
  });
  if (known) return SlabAdd::kMore;
  const Entry fresh = {address >> kSlabShift,
                       reinterpret_cast<uint64_t>(context),
                       kPage,
                       1,
                       bits_take(),
                       Tag::kSlab,
                       Entry::pack(static_cast<uint32_t>(device.gpu), ALLOT_KIND_LINEAR)};
  mark(fresh, address);
  bool ok = true;
  if (process.table.put_or_update(fresh, more, &ok)) {
    bits_give_back(fresh.extra);
    return SlabAdd::kMore;
  }
  if (ok) return SlabAdd::kFirst;
  bits_give_back(fresh.extra);
  return SlabAdd::kNoMemory;
}

bool slab_take(CUdeviceptr address) {
  bool ours = false;
  process.table.update(Tag::kSlab, address >> kSlabShift, [&](Entry& slab) {
    if (slab.extra == kNoBits) {
      ours = true;
    } else {
      uint64_t& word = word_of(slab, address);
      ours = (address & ((1u << kPlaceShift) - 1)) == 0 && (word & bit_of(address)) != 0;
      if (ours) word &= ~bit_of(address);
    }
    return true;
  });
  return ours;
}

void slab_put_back(CUdeviceptr address) {
  process.table.update(Tag::kSlab, address >> kSlabShift, [address](Entry& slab) {
    mark(slab, address);
    return true;
  });
}

void slab_block_gone(CUdeviceptr address) {
  Entry slab;
  bool last = false;
  process.table.update(Tag::kSlab, address >> kSlabShift, [&](Entry& e) {
    slab = e;
    last = --e.count == 0;
    return !last;
  });
  if (!last) return;
  bits_give_back(slab.extra);
  release_entry(slab);
}

void slab_dropped(const Entry& slab) {
  bits_give_back(slab.extra);
}

void abandon_slabs() {
  placing.abandon();
  bits = nullptr;
  free_count = 0;
  next_unused = 1;
}

}  // namespace allot::shim
