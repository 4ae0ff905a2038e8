// See launch_gate.h.
//
// A thread that comes to the gate first waits for room behind it, then for the gate, then counts
// itself inside and looks again: a closer that saw nobody inside knows that whoever comes later
// sees it closed.
#include "shim/time/launch_gate.h"

#include "abi/region.h"
#include "shim/process/cuda_calls.h"
#include "shim/time/streams.h"
#include "shim/time/tables.h"
#include "sys/clock.h"
#include "sys/futex.h"

namespace allot::shim {
namespace {

constexpr uint64_t kCloserLostNs = 3'000'000'000;
constexpr uint64_t kLookAgainNs = 100'000'000;
constexpr uint64_t kAskAgainNs = 50'000;
constexpr uint64_t kGiveWayNs = 50'000'000;
constexpr uint64_t kTimesExpected = 4;
constexpr uint64_t kGiveWayAloneNs = 10'000'000;
constexpr uint64_t kTimesExpectedAlone = 2;
constexpr uint64_t kUnknownInBudget = 2;  // work never measured counts as half of it
constexpr uint32_t kMostInRow = 12;
constexpr uint64_t kMarkersInBudget = 8;

// Written by the agent; opened by the prober, too, when the agent is lost.
constinit std::atomic<uint32_t> closed{0};        // the futex word
constinit std::atomic<uint64_t> closed_at_ns{0};  // said again by the prober
constinit std::atomic<uint64_t> budget_ns{10'000'000};
constinit std::atomic<uint64_t> closes_at_ns{UINT64_MAX};
// Written by the threads that submit.
constinit std::atomic<uint32_t> waiting{0};
constinit std::atomic<uint32_t> inside{0};
constinit std::atomic<uint64_t> gave_way{0};
constinit std::atomic<uint64_t> gave_way_at{UINT64_MAX};  // markers_passed() then
constinit std::atomic<uint32_t> gave_way_in_row{0};       // without anything having ended
constinit std::atomic<uint32_t> stuck_work_passes{0};     // until something ends
constinit std::atomic<uint32_t> room_word{0};             // nobody wakes: a place to sleep

// The agent's own: since when nothing has ended.
struct Progress {
  uint64_t passed = 0;
  uint64_t since_ns = 0;
};
constinit Progress progress = {};

bool holds() {
  if (closed.load(std::memory_order_seq_cst) == 0) return false;
  if ((submit_watch.load(std::memory_order_acquire) & kGate) == 0) return false;
  // Said again by another thread between two lines here, it may be later than what the clock said.
  const uint64_t said_ns = closed_at_ns.load(std::memory_order_relaxed);
  const uint64_t now_ns = sys::monotonic_ns();
  return now_ns < said_ns || now_ns - said_ns < kCloserLostNs;
}

void wait_at_gate() {
  if (!holds()) return;
  submission_waits();
  waiting.fetch_add(1, std::memory_order_seq_cst);
  while (holds()) sys::futex_wait(&closed, 1, kLookAgainNs, sys::FutexScope::kPrivate);
  waiting.fetch_sub(1, std::memory_order_seq_cst);
  submission_goes_on();
}

uint64_t budget_now() {
  const uint64_t budget = budget_ns.load(std::memory_order_relaxed);
  const uint64_t end = closes_at_ns.load(std::memory_order_relaxed);
  if (end == UINT64_MAX) return budget;
  const uint64_t now = sys::monotonic_ns();
  const uint64_t left = end > now ? end - now : 0;
  return left < budget ? left : budget;
}

// For work of this length: half of it may stand over.
bool room(uint64_t expected) {
  return in_flight_count() == 0 || in_flight_ns() + expected / 2 <= budget_now();
}

uint64_t context_of_thread() {
  CUcontext context = nullptr;
  return real::cuCtxGetCurrent(&context) == CUDA_SUCCESS ? reinterpret_cast<uint64_t>(context) : 0;
}

// What is in flight may wait for a launch that has yet to come, for the next one or for one much
// later: each time twice as many are let through before the next wait.
void yield_to_stuck_work(uint64_t passed) {
  const bool again = gave_way_at.exchange(passed) == passed;
  const uint32_t in_row = again ? gave_way_in_row.fetch_add(1) + 1 : 0;
  if (!again) gave_way_in_row.store(0);
  stuck_work_passes.store((1u << (in_row < kMostInRow ? in_row : kMostInRow)) - 1);
  gave_way.fetch_add(1);
  distrust_measurements();
}

uint64_t patience_ns() {
  const bool alone = in_flight_count() <= 1;
  const uint64_t expected = (alone ? kTimesExpectedAlone : kTimesExpected) * in_flight_ns();
  const uint64_t least = alone && in_flight_ns() >= kGiveWayAloneNs ? kGiveWayAloneNs : kGiveWayNs;
  return expected > least ? expected : least;
}

bool take_stuck_work_pass(uint64_t passed) {
  if (passed != gave_way_at.load()) return false;
  uint32_t passes = stuck_work_passes.load();
  while (passes != 0 && !stuck_work_passes.compare_exchange_weak(passes, passes - 1)) {
  }
  return passes != 0;
}

void wait_for_room(const Submission& submission, uint64_t work_ns) {
  if (room(work_ns)) return;
  const uint64_t context = context_of_thread();
  const bool no_markers = (full_tables() & ALLOT_TABLE_MARKERS) != 0 && !something_captures();
  uint64_t seen = markers_passed();
  uint64_t since = sys::monotonic_ns();
  for (;;) {
    if (context != 0) ask_markers(context);
    if (context != 0 && no_markers) ask_stream(submission, context);
    const uint64_t passed = markers_passed();
    const uint64_t now = sys::monotonic_ns();
    // Without a marker out nothing will tell of an end; the next one covers what is there.
    if (room(work_ns) || take_stuck_work_pass(passed)) return;
    if (markers_out() == 0 && !no_markers) return;
    if ((submit_watch.load(std::memory_order_acquire) & kGate) == 0) return;
    if (passed != seen) {
      seen = passed;
      since = now;
    }
    if (now - since > patience_ns()) {
      yield_to_stuck_work(passed);
      return;
    }
    sys::futex_wait(&room_word, 0, kAskAgainNs, sys::FutexScope::kPrivate);
  }
}

}  // namespace

void gate_close() {
  closed_at_ns.store(sys::monotonic_ns(), std::memory_order_relaxed);
  closed.store(1, std::memory_order_seq_cst);
}

void gate_open() {
  closed.store(0, std::memory_order_seq_cst);
  if (waiting.load(std::memory_order_seq_cst) != 0) {
    sys::futex_wake(&closed, sys::FutexScope::kPrivate);
  }
}

bool gate_drained() {
  return closed.load(std::memory_order_seq_cst) != 0 &&
         inside.load(std::memory_order_seq_cst) == 0 && markers_out() == 0;
}

uint32_t gate_waiting() {
  if (closed.load(std::memory_order_relaxed) != 0) {
    closed_at_ns.store(sys::monotonic_ns(), std::memory_order_relaxed);
  }
  return waiting.load(std::memory_order_relaxed);
}

uint64_t gate_in_flight_us() {
  return in_flight_ns() / 1000;
}

void gate_budget_us(uint64_t budget) {
  budget_ns.store(budget * 1000, std::memory_order_relaxed);
}

void gate_closes_at(uint64_t ns) {
  closes_at_ns.store(ns, std::memory_order_relaxed);
}

bool gate_stuck(uint64_t now_ns) {
  const uint64_t passed = markers_passed();
  if (in_flight_count() == 0 || passed != progress.passed || progress.since_ns == 0) {
    progress = {passed, now_ns};
    return false;
  }
  const uint64_t expected = kTimesExpected * in_flight_ns();
  return now_ns - progress.since_ns > (expected > kGiveWayNs ? expected : kGiveWayNs);
}

uint64_t gate_gave_way() {
  return gave_way.load();
}

GateTicket gate_enter(const Submission& submission) {
  GateTicket ticket = {};
  if (stream_captures(submission.stream, submission.per_thread) || thread_captures()) {
    return ticket;
  }
  const uint64_t unknown_ns = budget_ns.load() / kUnknownInBudget;
  const uint64_t work_ns = expected_ns(submission, unknown_ns);
  for (;;) {
    wait_for_room(submission, work_ns);
    wait_at_gate();
    inside.fetch_add(1, std::memory_order_seq_cst);
    if (!holds()) break;
    inside.fetch_sub(1, std::memory_order_seq_cst);
  }
  ticket.passed = true;
  // While anything is captured an event in the default stream would break the capture.
  if (submission.returns_at_once && !something_captures()) {
    ticket.work = begin_work(submission, unknown_ns);
  }
  return ticket;
}

void gate_leave(const Submission& submission, const GateTicket& ticket, CUresult result) {
  if (ticket.work.counted) {
    end_work(submission, ticket.work, result, budget_ns.load() / kMarkersInBudget);
  }
  inside.fetch_sub(1, std::memory_order_seq_cst);
}

void abandon_gate() {
  closed.store(0);
  waiting.store(0);
  inside.store(0);
  gave_way_at.store(UINT64_MAX);
  closes_at_ns.store(UINT64_MAX);
  progress = {};
  abandon_in_flight();
}

}  // namespace allot::shim
