// Level `launch`: a gate before every submission of this process, and a bound on the work behind
// it.
//
// The agent closes and opens the gate for the process's windows. Threads that submit wait at a
// closed gate; what they have put on the GPU before must then end soon, so with kGate set no more
// than the budget of microseconds is on its way at any time (work_in_flight.h), and before a
// window's end no more than what is left of the window. One piece of work may always go; what it
// overruns by, the agent charges (core/time_debt.h). Costs nothing while kGate is not set
// (submit.h).
//
// Never held back: a submission into a stream that is being captured (a graph is built, nothing
// runs) and anything from a thread that captures. Nothing waits for ever: a gate opens when its
// closer has not confirmed it for 3 s; a thread that finds no room behind the gate is let through
// when no work has completed for 50 ms, or for four times the expected time of the work in flight:
// a kernel may wait for a later launch or for the host. Until some work completes, one thread is
// let through, then two, four, and so on. A single long item gets twice its expected time.
#pragma once

#include <cstdint>

#include "driver/cuda_abi.h"
#include "shim/time/submit.h"
#include "shim/time/work_in_flight.h"

namespace allot::shim {

// ---- for the agent: one thread; never block, allocate or call the driver -----------------------

// To keep the gate closed, call again (or poll gate_waiting()) at least once a second.
void gate_close();
void gate_open();

// Whether the gate is closed, no thread is between gate and driver, and no marker is out. The
// driver's own word is unfinished_work() (streams.h).
bool gate_drained();

// Threads waiting at the closed gate now: the process has work to do. Asking says again that a
// closed gate is to stay closed.
uint32_t gate_waiting();

// Microseconds of work that went through the gate and is not known to have ended; an estimate from
// what the same kernels and graphs took before.
uint64_t gate_in_flight_us();

// How much may be in flight; 10,000 at first. One submission always may, and the last one may pass
// it by half.
void gate_budget_us(uint64_t budget);

// When the gate is going to be closed; monotonic_ns(), UINT64_MAX = not soon.
void gate_closes_at(uint64_t ns);

// Whether work is in flight of which nothing has ended for far longer than it should take, since
// asked first: it may wait for a launch that the gate holds. Asked while the gate is closed, every
// few milliseconds.
bool gate_stuck(uint64_t now_ns);

// How often a thread was let through although there was no room.
uint64_t gate_gave_way();

// ---- for submit.cc -----------------------------------------------------------------------------

// Waits until the submission may go. Not passed: it goes to the driver without the gate,
// gate_leave() is not to be called.
struct GateTicket {
  bool passed;
  WorkTicket work;
};
GateTicket gate_enter(const Submission& submission);
void gate_leave(const Submission& submission, const GateTicket& ticket, CUresult result);

// In a forked child that starts afresh.
void abandon_gate();

}  // namespace allot::shim
