// The thread that obeys orders, and how it holds the process.
//
// Held means: the gate is closed, no thread of the program is between the gate and the driver, no
// graph is being captured, and the driver says that all contexts have finished their work. A
// capture must not be interrupted, and its thread may have to pass the gate to finish it: so the
// gate opens again until no capture is under way, and then the thread tries once more.
//
// The program may have submitted work that never ends. So this thread first asks the prober and
// only then waits in the driver, where it would spin as long as the work lasts; and the gate opens
// by itself at the deadline.
#include "shim/swap/swap.h"

#include <cstdlib>

#include "core/shared.h"
#include "shim/memory/movable.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/guest_thread.h"
#include "shim/process/hook_guard.h"
#include "shim/process/swap_gate.h"
#include "shim/time/prober.h"
#include "shim/time/stream_table.h"
#include "shim/time/streams.h"
#include "sys/clock.h"
#include "sys/futex.h"

namespace allot::shim {
namespace {

constexpr uint64_t kIdleLookNs = 3'600'000'000'000;
constexpr uint64_t kLookNs = 500'000;
constexpr uint64_t kLookOnCaptureNs = 2'000'000;
constexpr uint64_t kExitPatienceNs = 1'000'000'000;

constinit std::atomic<bool> running{false};
constinit std::atomic<bool> obeying{false};
constinit uint32_t pause_word = 0;  // a futex that nobody wakes: to sleep on

void pause(uint64_t ns) {
  sys::futex_wait(&pause_word, 0, ns, sys::FutexScope::kPrivate);
}

// Held threads want the slice back, if it is evicted (`run --evict-idle`).
void somebody_waits() {
  AllotSliceFile& file = *process.slice.file;
  if ((core::load(file.header.flags) & ALLOT_SLICE_EVICTED) == 0) return;
  core::store(file.slots[process.slot.index].wants, 1u);
}

bool prober_sees_work() {
  for (uint32_t i = 0; i < process.device_count; ++i) {
    if (activity_of(i).unfinished.load(std::memory_order_acquire)) return true;
  }
  return false;
}

CUresult synchronize_all() {
  const uint32_t end = streams::table.contexts_high.load();
  for (uint32_t i = 0; i < end; ++i) {
    const uint64_t context = streams::table.contexts[i].handle.load();
    if (context <= streams::kFilling) continue;
    CUcontext popped = nullptr;
    CUresult result = real::cuCtxPushCurrent_v2(reinterpret_cast<CUcontext>(context));
    if (result != CUDA_SUCCESS) return result;
    result = real::cuCtxSynchronize();
    real::cuCtxPopCurrent_v2(&popped);
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

constinit uint32_t current_order = 0;

// Waits until done() holds, the deadline has passed, or the command has given another order.
template <class Done>
bool wait_until(uint64_t deadline, uint64_t look_ns, Done done) {
  while (!done()) {
    if (sys::monotonic_ns() >= deadline || !running.load()) return false;
    if (core::load(swap_entry().order) != current_order) return false;
    pause(look_ns);
  }
  return true;
}

bool nothing_captures() {
  return !something_captures();
}

SwapOutcome give_up(AllotSwapResult why, CUresult result = CUDA_SUCCESS) {
  swap_open();
  return {why, result};
}

SwapOutcome hold(uint64_t deadline) {
  for (;;) {
    if (!wait_until(deadline, kLookOnCaptureNs, nothing_captures)) return {ALLOT_SWAP_CAPTURE};
    swap_close(deadline);
    const bool left =
        wait_until(deadline, kLookNs, [] { return swap_inside() == 0 || something_captures(); });
    if (nothing_captures() && swap_inside() == 0) break;
    swap_open();
    if (!left) return {ALLOT_SWAP_BUSY};
    pause(kLookOnCaptureNs);
  }
  const bool quiet = wait_until(deadline, kLookNs, [] {
    wake_prober();
    return !prober_sees_work();
  });
  if (!quiet) return give_up(ALLOT_SWAP_BUSY);
  const CUresult result = synchronize_all();
  if (result != CUDA_SUCCESS) return give_up(ALLOT_SWAP_DRIVER, result);
  if (!swap_closed()) return give_up(ALLOT_SWAP_BUSY);
  swap_reap();
  return {};
}

// ---- the states --------------------------------------------------------------------------------

constinit uint32_t state = ALLOT_SWAP_RUNS;

void set_evicted(bool evicted) {
  AllotSlot& slot = process.slice.file->slots[process.slot.index];
  core::store(slot.evicted,
              static_cast<uint32_t>(evicted ? ALLOT_EVICTED_FAST : ALLOT_EVICTED_NOT));
}

SwapOutcome timed_move(bool out) {
  const uint64_t begin = sys::monotonic_ns();
  const SwapOutcome outcome = out ? swap_move_out() : swap_move_in();
  core::store(swap_entry().move_ns, sys::monotonic_ns() - begin);
  const bool is_out = outcome.result == ALLOT_SWAP_OK ? out : swap_anything_out();
  set_evicted(is_out);
  state = is_out ? ALLOT_SWAP_OUT : ALLOT_SWAP_HELD;
  return outcome;
}

SwapOutcome timed_hold() {
  const uint64_t begin = sys::monotonic_ns();
  const uint64_t patience = uint64_t{core::load(swap_entry().patience_ms)} * 1'000'000;
  const SwapOutcome outcome = hold(begin + patience);
  core::store(swap_entry().drain_ns, sys::monotonic_ns() - begin);
  if (outcome.result == ALLOT_SWAP_OK) state = ALLOT_SWAP_HELD;
  return outcome;
}

// One step towards `wanted`, which must differ from the state now.
SwapOutcome step(uint32_t wanted) {
  if (state == ALLOT_SWAP_RUNS) return timed_hold();
  if (state == ALLOT_SWAP_OUT) return timed_move(false);
  if (wanted == ALLOT_SWAP_OUT) return timed_move(true);
  swap_open();
  wake_prober();
  state = ALLOT_SWAP_RUNS;
  return {};
}

void obey(uint32_t order) {
  current_order = order;
  const uint32_t wanted = ALLOT_SWAP_STATE(order);
  SwapOutcome outcome;
  while (wanted <= ALLOT_SWAP_OUT && state != wanted && outcome.result == ALLOT_SWAP_OK) {
    outcome = step(wanted);
  }
  AllotSwap& mine = swap_entry();
  core::store(mine.result, static_cast<uint32_t>(outcome.result));
  core::store(mine.cuda_result, static_cast<uint32_t>(outcome.cuda));
  core::store(mine.answer, ALLOT_SWAP_WORD(ALLOT_SWAP_SERIAL(order), state));
  sys::futex_wake(&mine.answer, sys::FutexScope::kShared);
}

void* swap_main(void*) {
  name_guest_thread("allot-swap");
  const OwnCall own;
  bool relaxed = false;
  uint32_t obeyed = 0;
  while (running.load(std::memory_order_acquire)) {
    const uint32_t order = core::load(swap_entry().order);
    if (order == obeyed) {
      sys::futex_wait(&swap_entry().order, order, kIdleLookNs, sys::FutexScope::kShared);
      continue;
    }
    obeying.store(true);
    if (!relaxed) relax_capture_mode();
    relaxed = true;
    if (running.load()) obey(order);
    obeyed = order;
    obeying.store(false);
  }
  return nullptr;
}

// Runs before the driver's own exit handlers. Threads that wait at the gate stay there; the thread
// that ends the process continues.
void before_exit() {
  if (forked_child() || !running.exchange(false)) return;
  swap_stop_copying();
  const uint64_t begin = sys::monotonic_ns();
  while (obeying.load() && sys::monotonic_ns() - begin < kExitPatienceNs) pause(kLookNs);
  swap_let_through();
}

}  // namespace

void start_swap() {
  AllotSliceFile& file = *process.slice.file;
  if ((core::load(file.header.flags) & ALLOT_SLICE_SWAP_FAST) == 0) return;
  AllotSwap& mine = swap_entry();
  // May hold an earlier process's state; but its counters are this process's already.
  __builtin_memset(&mine, 0, offsetof(AllotSwap, counters));
  __builtin_memset(mine.movable, 0, sizeof(mine.movable));
  state = ALLOT_SWAP_RUNS;
  set_evicted(false);
  swap_wait_handler.store(somebody_waits, std::memory_order_release);
  running.store(true);
  if (!start_guest_thread(swap_main)) {
    running.store(false);
    return;  // only the driver can evict this process
  }
  submit_watch.fetch_or(kSwap, std::memory_order_acq_rel);
  core::store(mine.owner, core::load(file.slot_words[process.slot.index]));
  static constinit bool registered = false;
  if (!registered) registered = std::atexit(before_exit) == 0;
}

void forget_swap() {
  running.store(false);
  obeying.store(false);
  swap_blocks.abandon();
  abandon_swap_gate();
  for (std::atomic<uint64_t>& peers : swap_peers) peers.store(0);
  state = ALLOT_SWAP_RUNS;
}

}  // namespace allot::shim
