// See swap_orders.h.
#include "cli/evict/swap_orders.h"

#include "cli/evict/checkpoint.h"
#include "core/shared.h"
#include "sys/clock.h"
#include "sys/futex.h"

namespace allot::cli {

using core::load;

namespace {

constexpr uint64_t kLookNs = 50'000'000;

}  // namespace

Phase phase_of(uint32_t state) {
  return state == ALLOT_SWAP_OUT    ? Phase::kMoved
         : state == ALLOT_SWAP_HELD ? Phase::kLocked
                                    : Phase::kRuns;
}

const char* state_text(AllotSwapState state) {
  return state == ALLOT_SWAP_OUT    ? "move to the host"
         : state == ALLOT_SWAP_HELD ? "pause"
                                    : "resume";
}

bool SwapOrders::obeys(const Target& target) const {
  return load(swap(target).owner) == target.word;
}

uint32_t SwapOrders::order(const Target& target, AllotSwapState state) {
  AllotSwap& place = swap(target);
  const uint32_t serial = (ALLOT_SWAP_SERIAL(load(place.order)) + 1) & 0xffffffu;
  core::store(place.patience_ms, static_cast<uint32_t>(options_.timeout_seconds * 1e3));
  core::store(place.order, ALLOT_SWAP_WORD(serial, state));
  sys::futex_wake(&place.order, sys::FutexScope::kShared);
  return serial;
}

bool SwapOrders::wait_for(Target& target, uint32_t serial, double seconds) {
  const uint64_t end = sys::monotonic_ns() + static_cast<uint64_t>(seconds * 1e9);
  AllotSwap& place = swap(target);
  for (;;) {
    const uint32_t answer = load(place.answer);
    if (!obeys(target) || !still_there(target)) {
      target.phase = Phase::kLost;  // ended; what it had goes with it
      return true;
    }
    if (ALLOT_SWAP_SERIAL(answer) == serial) {
      target.phase = phase_of(ALLOT_SWAP_STATE(answer));
      return true;
    }
    if (sys::monotonic_ns() >= end) return false;
    sys::futex_wait(&place.answer, answer, kLookNs, sys::FutexScope::kShared);
  }
}

std::string SwapOrders::why_not(const Target& target, AllotSwapState wanted) const {
  switch (load(swap(target).result)) {
    case ALLOT_SWAP_BUSY:
      return fmt::format("the work of {} did not end within {} s", who(target),
                         options_.timeout_seconds);
    case ALLOT_SWAP_CAPTURE:
      return fmt::format("{} never stops capturing graphs", who(target));
    case ALLOT_SWAP_PINNED:
      return fmt::format("{} has let another device access its memory", who(target));
    case ALLOT_SWAP_NO_HOST:
      return fmt::format("{}: the host has no memory for it", who(target));
    case ALLOT_SWAP_NO_CARD: {
      const std::string missing = missing_room(target.movable);
      return missing.empty() ? fmt::format("{}: no room on the GPU", who(target)) : missing;
    }
    default:
      return fmt::format("{} could not {} ({})", who(target), state_text(wanted),
                         cuda_text(static_cast<CUresult>(load(swap(target).cuda_result))));
  }
}

void SwapOrders::settle(bool run) {
  for (Target& target : targets_) {
    const uint32_t left = ALLOT_SWAP_SERIAL(load(swap(target).order));
    if (!obeys(target) || left == ALLOT_SWAP_SERIAL(load(swap(target).answer))) continue;
    const uint32_t serial = run ? order(target, ALLOT_SWAP_RUNS) : left;
    if (wait_for(target, serial, options_.timeout_seconds + move_limit(target))) continue;
    refuse("{}: {} is not responding (stopped by a signal?); nothing was changed", command_,
           who(target));
  }
}

}  // namespace allot::cli
