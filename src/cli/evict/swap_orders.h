// Orders to the processes of a slice that swaps fast, and their answers (AllotSwap in
// abi/region.h).
//
// An order is a serial and a state. The process answers with the serial, the state that it reached,
// and the reason if that is another state. A process obeys the latest order. What must not happen
// here: the answer to an earlier command is taken for the answer to this one.
#pragma once

#include "cli/evict/evict_base.h"

namespace allot::cli {

Phase phase_of(uint32_t state);  // of AllotSwapState

class SwapOrders : protected MoveBase {
 protected:
  using MoveBase::MoveBase;

  AllotSwap& swap(const Target& target) const { return file_.swaps[target.slot]; }
  // Whether the process has a thread that obeys.
  bool obeys(const Target& target) const;

  // Gives an order; returns the serial to wait for.
  uint32_t order(const Target& target, AllotSwapState state);

  // Waits until the process has answered or ended: true, and its phase is known. Sleeps on the
  // answer.
  bool wait_for(Target& target, uint32_t serial, double seconds);

  // Waits for an order that a killed command has left, or cancels it (`run`).
  void settle(bool run);

  // Why a process did not reach the ordered state, for people.
  std::string why_not(const Target& target, AllotSwapState wanted) const;
};

const char* state_text(AllotSwapState state);  // "go to the host", "be held", "run on"

}  // namespace allot::cli
