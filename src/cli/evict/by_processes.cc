// Moves a slice the fast way (evict.h): each process obeys an order to move its own memory
// (AllotSwap in abi/region.h).
//
// All processes get their orders at once; then the command waits for one after the other. A process
// that does not obey in time gets the order to run on. What must not happen here: a process stays
// held because another one failed.
#include <algorithm>

#include "cli/evict/swap_orders.h"
#include "cli/output.h"
#include "cli/region/region_view.h"
#include "core/shared.h"
#include "sys/clock.h"

namespace allot::cli {
namespace {

using core::load;

constexpr double kObeySeconds = 3;  // on top of the time for work or copies

uint64_t sum(const PerGpu& bytes) {
  uint64_t total = 0;
  for (const uint64_t one : bytes) total += one;
  return total;
}

class FastMove : SwapOrders {
 public:
  FastMove(const char* command, OpenSlice& slice, const std::string& name,
           const MoveOptions& options)
      : SwapOrders(command, slice, name, options, true) {}

  Moved evict();
  Moved restore();

 private:
  void look();
  void refuse_what_cannot_move() const;
  void say_what_stays() const;
  template <class Concerned>
  void all_become(AllotSwapState state, Concerned concerned);
  template <class Concerned>
  void try_all(AllotSwapState state, Concerned concerned);
  void tell(const Target& target, bool out) const;
  void undo_evict();
};

// The processes, and the state of each. Those that hold nothing and do not obey have nothing to
// move.
void FastMove::look() {
  find_targets();
  for (Target& target : targets_) {
    target.process.stays_bytes = target.process.bytes - sum(target.movable);
    target.process.bytes = sum(target.movable);
    target.phase =
        obeys(target) ? phase_of(ALLOT_SWAP_STATE(load(swap(target).answer))) : Phase::kRuns;
  }
  std::erase_if(targets_, [this](const Target& target) {
    return !obeys(target) && target.process.stays_bytes == 0;
  });
}

void FastMove::refuse_what_cannot_move() const {
  uint64_t moves = 0;
  uint64_t stays = 0;
  for (const Target& target : targets_) {
    moves += target.process.bytes;
    stays += target.process.stays_bytes;
    if (!obeys(target)) {
      refuse(
          "evict: {} could not start its thread for '--swap fast'; nothing was changed. "
          "'allot evict --swap driver {}' needs none",
          who(target), name_);
    }
    const uint32_t pins = load(swap(target).pins);
    if (pins == 0) continue;
    refuse(
        "evict: {} lets another device access its memory ({}); nothing was changed. 'allot "
        "freeze {}' pauses the slice in place",
        who(target),
        (pins & ALLOT_SWAP_PIN_HANDLE) != 0 ? "a dma-buf handle" : "SYNC_MEMOPS, as for RDMA",
        name_);
  }
  if (moves > 0 || stays == 0) return;
  refuse(
      "evict: none of the {} that '{}' holds can be moved fast (only blocks of more than "
      "1 MiB from cuMemAlloc and cuMemAllocPitch); nothing was changed. 'allot evict --swap driver "
      "{}' may move it",
      size_text(stays), name_, name_);
}

void FastMove::say_what_stays() const {
  uint64_t moves = 0;
  uint64_t stays = 0;
  std::array<uint64_t, ALLOT_KINDS> kinds{};
  for (const Target& target : targets_) {
    moves += target.process.bytes;
    stays += target.process.stays_bytes;
    for (unsigned kind = 0; kind < ALLOT_KINDS; ++kind) kinds[kind] += target.by_kind[kind];
  }
  kinds[ALLOT_KIND_LINEAR] -= std::min(moves, kinds[ALLOT_KIND_LINEAR]);
  std::string text;
  for (unsigned kind = 0; kind < ALLOT_KINDS; ++kind) {
    if (kinds[kind] == 0) continue;
    const char* name = kind == ALLOT_KIND_LINEAR ? "small blocks" : kind_text(kind);
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, size_text(kinds[kind]));
  }
  options_.say(fmt::format("{}: {} move, {} stay on the GPU{}", name_, size_text(moves),
                           size_text(stays), text.empty() ? "" : " (" + text + ")"));
}

// Gives an order to all that concerned() names. Throws after all have answered, for the first that
// reached another state.
template <class Concerned>
void FastMove::all_become(AllotSwapState state, Concerned concerned) {
  std::vector<std::pair<Target*, uint32_t>> told;
  for (Target& target : targets_) {
    if (concerned(target)) told.emplace_back(&target, order(target, state));
  }
  std::string failed;
  for (auto& [target, serial] : told) {
    const double moving = state == ALLOT_SWAP_RUNS ? 0 : move_limit(*target);
    const bool held = target->phase == Phase::kRuns;
    const double seconds = kObeySeconds + (held ? options_.timeout_seconds : moving);
    if (!wait_for(*target, serial, seconds)) {
      order(*target, ALLOT_SWAP_RUNS);
      if (failed.empty()) {
        failed =
            fmt::format("{} did not {} within {:.0f} s", who(*target), state_text(state), seconds);
      }
    } else if (target->phase != Phase::kLost && target->phase != phase_of(state) &&
               failed.empty()) {
      failed = why_not(*target, state);
    }
  }
  if (!failed.empty()) throw Failure(kExitRefused, failed);
}

// The same for the way back, where every process does what it can.
template <class Concerned>
void FastMove::try_all(AllotSwapState state, Concerned concerned) {
  try {
    all_become(state, concerned);
  } catch (const Failure& failure) {
    options_.say(fmt::format("{}: {}", name_, failure.line()));
  }
}

void FastMove::tell(const Target& target, bool out) const {
  if (target.phase == Phase::kLost) return;
  options_.say(fmt::format(
      "{}: {}: {} to the {} {}{}", name_, who(target), size_text(target.process.bytes),
      out ? "host" : "GPU", speed_text(target.process.bytes, target.process.move_seconds),
      out ? fmt::format("; waited {:.2f} s for its work", target.process.lock_seconds) : ""));
}

// Lets every process run again that can.
void FastMove::undo_evict() {
  try_all(ALLOT_SWAP_RUNS, [](const Target& target) { return target.phase != Phase::kLost; });
  if (!any_in(Phase::kMoved)) flag(false);
}

Moved FastMove::evict() {
  const uint64_t begin = sys::monotonic_ns();
  look();
  settle(false);
  if (flagged() && all_in(Phase::kMoved)) {
    return nothing_to_do();
  }
  refuse_what_cannot_move();
  refuse_without_host_memory(bytes_to_move());
  say_what_stays();
  flag(true);
  const auto not_out = [](const Target& target) {
    return target.phase == Phase::kRuns || target.phase == Phase::kLocked;
  };
  try {
    if (!wait_for_agents(true)) {
      refuse("one of its processes is not responding (stopped by a signal?)");
    }
    all_become(ALLOT_SWAP_HELD, [](const Target& target) { return target.phase == Phase::kRuns; });
    signals_.check();
    all_become(ALLOT_SWAP_OUT, not_out);
  } catch (const Failure& failure) {
    undo_evict();
    refuse("evict: {}; {}", failure.line(),
           flagged()
               ? fmt::format("part of '{}' is still on the host: 'allot restore {}'", name_, name_)
               : fmt::format("'{}' keeps running. 'allot evict --swap driver {}' may work", name_,
                             name_));
  }
  for (Target& target : targets_) {
    target.process.lock_seconds = static_cast<double>(load(swap(target).drain_ns)) / 1e9;
    target.process.move_seconds = static_cast<double>(load(swap(target).move_ns)) / 1e9;
    tell(target, true);
  }
  return count_and_report(begin, true);
}

Moved FastMove::restore() {
  const uint64_t begin = sys::monotonic_ns();
  look();
  settle(true);
  if (!flagged() && all_in(Phase::kRuns)) {
    return nothing_to_do();
  }
  if (!flagged()) flag(true);  // left by a command that was killed
  const auto out = [](const Target& target) { return target.phase == Phase::kMoved; };
  std::vector<uint32_t> came;
  for (const Target& target : targets_) {
    if (out(target)) came.push_back(target.slot);
  }
  try {
    all_become(ALLOT_SWAP_HELD, out);
  } catch (const Failure& failure) {
    // A slice is evicted as a whole: what came back moves out again.
    try_all(ALLOT_SWAP_OUT, [&](const Target& target) {
      return target.phase == Phase::kLocked &&
             std::find(came.begin(), came.end(), target.slot) != came.end();
    });
    refuse("restore: {}; it stays evicted. Make room if that is why, then try again",
           failure.line());
  }
  for (Target& target : targets_) {
    if (std::find(came.begin(), came.end(), target.slot) == came.end()) continue;
    target.process.move_seconds = static_cast<double>(load(swap(target).move_ns)) / 1e9;
    tell(target, false);
  }
  const auto is_held = [](const Target& target) { return target.phase == Phase::kLocked; };
  go_on([&] { try_all(ALLOT_SWAP_RUNS, is_held); });
  return count_and_report(begin, false);
}

}  // namespace

Moved evict_fast(OpenSlice& slice, const std::string& name, const MoveOptions& options) {
  return FastMove("evict", slice, name, options).evict();
}

Moved restore_fast(OpenSlice& slice, const std::string& name, const MoveOptions& options) {
  return FastMove("restore", slice, name, options).restore();
}

}  // namespace allot::cli
