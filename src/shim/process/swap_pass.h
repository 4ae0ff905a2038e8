// How a hook passes the swap gate (swap_gate.h), which only slices that swap fast have.
#pragma once

#include "shim/process/process.h"
#include "shim/process/submit_watch.h"
#include "shim/process/swap_gate.h"

namespace allot::shim {

// Whether this process's slice swaps fast. One load.
inline bool swap_on() {
  return (submit_watch.load(std::memory_order_relaxed) & kSwap) != 0;
}

// Follows the Scope of a hook whose call may use, allocate or free movable memory: waits during an
// eviction. Does nothing in slices that do not swap.
class SwapPass {
 public:
  SwapPass() : passed_(hook_depth == 1 && swap_on() && !forked_child()) {
    if (passed_) swap_enter();
  }
  ~SwapPass() {
    if (passed_) swap_leave();
  }
  SwapPass(const SwapPass&) = delete;
  SwapPass& operator=(const SwapPass&) = delete;

 private:
  bool passed_;
};

}  // namespace allot::shim
