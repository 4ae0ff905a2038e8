// The one way into every hook: what happens before its body and after, by the kind of the hook.
//
//     Guard<kObserves>        counts the thread's depth, so that what the driver calls of its own
//                             entries meanwhile passes; holds pthread_cancel; waits while another
//                             thread joins the slice and initialises the driver; tells the agent of
//                             an idle process
//     Guard<kTakes>           is refused besides where the slice cannot be held; never passes as a
//                             call from before cuInit
//     Guard<kMoves>           waits besides at the swap gate while memory is out (swap_gate.h)
//     Guard<kTakes | kMoves>  both
//
// A hook has its guard as its first parameter, and hook() (hook.h) makes the guard: a function
// without one does not compile into a table of hooks. unguarded() is for the few with a quick way
// of their own; they say why and use Guard::on_the_slow_way(). What a call charges (InFlight) and
// the making of a context (MakingContextOn, time/rm_tracker.h) want to see the guard.
#pragma once

#include <pthread.h>

#include <cstdint>
#include <type_traits>

#include "shim/process/hook.h"
#include "shim/process/process.h"
#include "shim/process/submit_watch.h"
#include "shim/process/swap_gate.h"

namespace allot::shim {

inline constexpr unsigned kObserves = 0;
inline constexpr unsigned kTakes = 1;  // takes memory, or makes what takes it
inline constexpr unsigned kMoves = 2;  // may use, take or free movable memory

// Waits while another thread of this process joins its slice and initialises the driver: until then
// nothing is charged and no limit holds. Returns at once in a child that was forked meanwhile.
void wait_for_start();

// For a call that came before cuInit and takes something: joins the slice if the driver is
// initialised all the same (another thread was quicker, or it was done by a way we do not see).
// Returns the driver's error if it is not.
CUresult start_late();

// Whether this process's slice swaps fast. One load.
inline bool swap_on() {
  return (submit_watch.load(std::memory_order_relaxed) & kSwap) != 0;
}

// While one lives, pthread_cancel waits: a thread that ended inside the driver would take with it
// what its call had charged, its counts here and in the gates, and the driver's own locks. The
// cancellation takes effect at the thread's next cancellation point after the call.
class HoldCancellation {
 public:
  explicit HoldCancellation(bool really) {
    if (really) pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_);
  }
  ~HoldCancellation() {
    if (before_ == PTHREAD_CANCEL_ENABLE) pthread_setcancelstate(before_, nullptr);
  }
  HoldCancellation(const HoldCancellation&) = delete;
  HoldCancellation& operator=(const HoldCancellation&) = delete;

 private:
  int before_ = PTHREAD_CANCEL_DISABLE;
};

// Where the outermost hook of this thread stands on its stack; means nothing at depth 0.
inline constinit thread_local uintptr_t hook_frame __attribute__((tls_model("initial-exec"))) = 0;

inline constexpr uintptr_t kAlive = 0x616c6c6f74;
inline constexpr uintptr_t kDriversStack = 1 << 20;  // more than the driver uses between two hooks

// Whether this thread is inside a hook. A program may leave one by longjmp out of a signal handler,
// and must not be taken for the driver from then on: the outermost hook counts while its frame is
// above ours, near, and has its mark, which later calls write over. `place`: on the stack, in the
// caller's frame.
[[gnu::no_sanitize_address]] inline bool inside_hook(
    const void* place = __builtin_frame_address(0)) {
  if (hook_depth == 0) return false;
  const uintptr_t here = reinterpret_cast<uintptr_t>(place);
  if (here >= hook_frame || hook_frame - here > kDriversStack) return false;
  return *reinterpret_cast<const volatile uintptr_t*>(hook_frame) == (hook_frame ^ kAlive);
}

// While one lives, the thread is inside.
class Inside {
 public:
  Inside() : depth_(inside_hook(this) ? hook_depth : 0), frame_(hook_frame) {
    alive_ = reinterpret_cast<uintptr_t>(this) ^ kAlive;
    if (depth_ == 0) hook_frame = reinterpret_cast<uintptr_t>(this);
    hook_depth = depth_ + 1;
  }
  ~Inside() {
    alive_ = 0;
    hook_depth = depth_;
    hook_frame = frame_;
  }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

  bool outermost() const { return depth_ == 0; }

 private:
  volatile uintptr_t alive_;  // first: it stands at hook_frame
  uint32_t depth_;
  uintptr_t frame_;
};

// What all guards have in common; made by hook() only.
class Call {
 public:
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // Charge this call.
  bool tracking() const { return outer_ && state_ == State::kOn && !forked_child(); }
  // The slice could not be set up and fails closed: refuse GPU work.
  bool refusing() const { return outer_ && state_ == State::kRefused; }

 protected:
  Call() : outer_(inside_.outermost()), hold_(outer_), watched_(outer_ && calls_are_watched()) {
    state_ = process.state.load(std::memory_order_acquire);
    if (outer_ && state_ == State::kStarting) [[unlikely]] {
      wait_for_start();
      state_ = process.state.load(std::memory_order_acquire);
    }
    if (watched_) watched_call_begins();
  }
  ~Call() {
    if (watched_) watched_call_ends();
  }

 private:
  Inside inside_;
  bool outer_;
  HoldCancellation hold_;
  bool watched_;
  State state_;
};

// Inside a hook: waits during an eviction, and counts the thread as one that may reach movable
// memory. Does nothing in slices that do not swap. Hooks of kMoves have it for their whole body;
// it stands by itself only where the arguments say whether the call touches such memory.
class SwapPass {
 public:
  explicit SwapPass(const Call&) : SwapPass() {}
  ~SwapPass() {
    if (passed_) swap_leave();
  }
  SwapPass(const SwapPass&) = delete;
  SwapPass& operator=(const SwapPass&) = delete;

 private:
  template <unsigned kind>
  friend class Guard;
  SwapPass() : passed_(hook_depth == 1 && swap_on() && !forked_child()) {
    if (passed_) swap_enter();
  }

  bool passed_;
};

struct NoPass {};

template <unsigned kind>
class Guard : public Call {
 public:
  static constexpr unsigned kKind = kind;
  static Guard on_the_slow_way() { return {}; }

 private:
  template <auto F>
  friend struct Guarded;
  Guard() = default;

  [[no_unique_address]] std::conditional_t<(kind & kMoves) != 0, SwapPass, NoPass> pass_;
};

using Observing = Guard<kObserves>;
using Taking = Guard<kTakes>;
using Moving = Guard<kMoves>;
using TakingMovable = Guard<kTakes | kMoves>;

template <unsigned kind, class... A, CUresult (*F)(const Guard<kind>&, A...)>
struct Guarded<F> {
  static constexpr bool kIs = true;
  static CUresult call(A... arguments) {
    if constexpr ((kind & kTakes) != 0) {
      if (process.state.load(std::memory_order_acquire) == State::kOff && !inside_hook())
          [[unlikely]] {
        const CUresult started = start_late();
        if (started != CUDA_SUCCESS) return started;
      }
    }
    const Guard<kind> guard;
    if constexpr ((kind & kTakes) != 0) {
      if (guard.refusing()) [[unlikely]]
        return CUDA_ERROR_NOT_PERMITTED;
    }
    return F(guard, arguments...);
  }
};

// Around calls that we make ourselves: what the driver calls of its own entries meanwhile is no
// call of the program.
class OwnCall {
 public:
  OwnCall() : hold_(inside_.outermost()) {}
  OwnCall(const OwnCall&) = delete;
  OwnCall& operator=(const OwnCall&) = delete;

 private:
  Inside inside_;
  HoldCancellation hold_;
};

// Brackets the time from a charge to the end of the driver call it is for.
class InFlight {
 public:
  explicit InFlight(const Call&) { process.flights.fetch_add(1, std::memory_order_acq_rel); }
  ~InFlight() { process.flights.fetch_add(kFlightEnded - 1, std::memory_order_acq_rel); }
  InFlight(const InFlight&) = delete;
  InFlight& operator=(const InFlight&) = delete;
};

}  // namespace allot::shim
