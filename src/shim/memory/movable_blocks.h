// The blocks of movable memory by address: finds the block that contains an address in O(log n).
//
// One array in the order of the addresses, in memory of its own that doubles. Blocks come and go as
// often as the program calls cuMemAlloc for whole pages, which costs the driver 50 us and more;
// moving the entries behind costs less until there are tens of thousands. A spin lock guards the
// array during the search and the move, never across a driver call.
//
// What must not happen here: two blocks that overlap (the driver chooses the addresses), or use in
// a forked child without abandon().
#pragma once

#include <cstdint>
#include <span>

#include "shim/process/spin.h"

namespace allot::shim {

struct SwapBlock {
  uint64_t base;
  uint64_t span;     // bytes mapped: whole granules
  uint64_t bytes;    // as asked for
  uint64_t context;  // current when it was made; the block ends with it
  uint64_t handle;   // the driver's, during a move; else 0
  void* host;  // memory for its contents, while a move is under way and while it is out; else null
  int32_t ordinal;  // CUDA device
  bool out;         // the addresses have no backing; the contents are at `host`
  bool ending;      // freed during a capture; really freed after it
};

class SwapBlocks {
 public:
  // False when there is no memory. Any thread; so are all functions below.
  bool add(const SwapBlock& block);

  // take removes the block that begins at `base`; find copies the block that contains `address`.
  bool take(uint64_t base, SwapBlock* out);
  bool find(uint64_t address, SwapBlock* out);

  // Copies the first block that begins above `address`: for a walk while other threads add and
  // take.
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

  // The blocks themselves, for a caller that knows that nobody adds or takes, because the gate is
  // closed.
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
