// See movable_blocks.h.
#include "shim/memory/movable_blocks.h"

#include <cstring>

#include "sys/file.h"

namespace allot::shim {
namespace {

constexpr uint32_t kFirstRoom = 256;

}  // namespace

uint32_t SwapBlocks::first_above(uint64_t address) const {
  uint32_t low = 0;
  uint32_t high = count_;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (blocks_[middle].base > address) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

bool SwapBlocks::grow() {
  const uint32_t wider = room_ == 0 ? kFirstRoom : room_ * 2;
  const Result<void*> memory = sys::map_memory(wider * sizeof(SwapBlock));
  if (!memory) return false;
  if (count_ > 0) memcpy(*memory, blocks_, count_ * sizeof(SwapBlock));
  if (blocks_ != nullptr) sys::unmap(blocks_, room_ * sizeof(SwapBlock));
  blocks_ = static_cast<SwapBlock*>(*memory);
  room_ = wider;
  return true;
}

bool SwapBlocks::add(const SwapBlock& block) {
  guard_.lock();
  const bool fits = count_ < room_ || grow();
  if (fits) {
    const uint32_t at = first_above(block.base);
    memmove(blocks_ + at + 1, blocks_ + at, (count_ - at) * sizeof(SwapBlock));
    blocks_[at] = block;
    ++count_;
  }
  guard_.unlock();
  return fits;
}

void SwapBlocks::remove(uint32_t index, SwapBlock* out) {
  *out = blocks_[index];
  --count_;
  memmove(blocks_ + index, blocks_ + index + 1, (count_ - index) * sizeof(SwapBlock));
}

bool SwapBlocks::take(uint64_t base, SwapBlock* out) {
  guard_.lock();
  const uint32_t above = first_above(base);
  const bool there = above > 0 && blocks_[above - 1].base == base;
  if (there) remove(above - 1, out);
  guard_.unlock();
  return there;
}

bool SwapBlocks::find(uint64_t address, SwapBlock* out) {
  guard_.lock();
  const uint32_t above = first_above(address);
  const bool there = above > 0 && address - blocks_[above - 1].base < blocks_[above - 1].span;
  if (there) *out = blocks_[above - 1];
  guard_.unlock();
  return there;
}

bool SwapBlocks::next(uint64_t address, SwapBlock* out) {
  guard_.lock();
  const uint32_t above = first_above(address);
  const bool there = above < count_;
  if (there) *out = blocks_[above];
  guard_.unlock();
  return there;
}

bool SwapBlocks::end_later(uint64_t base) {
  guard_.lock();
  const uint32_t above = first_above(base);
  const bool there = above > 0 && blocks_[above - 1].base == base;
  if (there) blocks_[above - 1].ending = true;
  guard_.unlock();
  return there;
}

void SwapBlocks::abandon() {
  guard_.abandon();
  blocks_ = nullptr;
  count_ = 0;
  room_ = 0;
}

}  // namespace allot::shim
