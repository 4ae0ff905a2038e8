// The blocks whose backing can be swapped, by address: which block an address lies in, in O(log n).
//
// One array in the order of the addresses, in memory of its own that doubles. New blocks come and go as often as
// cuMemAlloc of whole pages is called, which costs the driver 50 us and more; moving entries up costs less until
// there are tens of thousands. A spin lock guards it, held for the search and the move, never across a driver call.
//
// What must not happen here: two blocks that overlap (the driver gives out the addresses), or use in a forked
// child without abandon().
#pragma once

#include <cstdint>
#include <span>

#include "shim/process/spin.h"

namespace allot::shim {

struct SwapBlock {
  uint64_t base;
  uint64_t span;     // bytes mapped: whole granules
  uint64_t bytes;    // as asked for
  uint64_t context;  // that was current when it was made; it dies with this one
  uint64_t handle;   // of the driver, while a move is under way; else 0
  void* host;  // memory for its contents, while a move is under way and while it is out; else null
  int32_t ordinal;  // CUDA device
  bool out;         // nothing stands behind the addresses; the contents are at `host`
  bool ending;      // freed while a graph was captured; goes when nothing is
};

class SwapBlocks {
 public:
  // False when no memory can be had. Any thread, as all below.
  bool add(const SwapBlock& block);

  // The block that begins at `base` leaves the table / the one that `address` lies in is copied out.
  bool take(uint64_t base, SwapBlock* out);
  bool find(uint64_t address, SwapBlock* out);

  // The first block that begins above `address` is copied out: for a walk while others add and take.
  bool next(uint64_t address, SwapBlock* out);

  // Marks the block that begins at `base` as ending.
  bool end_later(uint64_t base);

  // One block for which match(block) holds leaves the table.
  template <class Match>
  bool take_if(Match match, SwapBlock* out) {
    guard_.lock();
    uint32_t i = 0;
    while (i < count_ && !match(static_cast<const SwapBlock&>(blocks_[i]))) ++i;
    const bool there = i < count_;
    if (there) remove(i, out);
    guard_.unlock();
    return there;
  }

  // All blocks themselves, for who knows that nobody else adds or takes: the gate is closed.
  std::span<SwapBlock> all() { return {blocks_, count_}; }

  uint32_t count() const { return count_; }

  void abandon();  // in a forked child

 private:
  uint32_t first_above(uint64_t address) const;  // index of the first that begins above it
  void remove(uint32_t index, SwapBlock* out);
  bool grow();

  SpinLock guard_;
  SwapBlock* blocks_ = nullptr;
  uint32_t count_ = 0;
  uint32_t room_ = 0;
};

}  // namespace allot::shim
