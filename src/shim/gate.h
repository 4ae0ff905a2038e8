// Level `launch`: a gate before every submission of this process, and a bound on the work behind it.
//
// The agent closes and opens the gate for the process's windows. Threads that submit wait at a closed gate;
// what they have put on the GPU before must then end soon, so with kGate set no more than the budget of
// microseconds is on its way at any time. Costs nothing while kGate is not set (submit.h).
//
// Never held back: a submission into a stream that is being captured (a graph is built, nothing runs) and
// anything from a thread that captures. A gate whose closer has not said so again within 3 s is open.
#pragma once

#include <cstdint>

#include "driver/cuda_abi.h"
#include "shim/submit.h"

namespace allot::shim {

// ---- for the agent: one thread; never block, allocate or call the driver -----------------------------

// Says it again at least every second while the gate is to stay closed.
void gate_close();
void gate_open();

// Whether the gate is closed, no thread is between gate and driver, and nothing that went through is known
// to be unfinished. unfinished_work() (streams.h) says what the driver says.
bool gate_drained();

// Threads waiting at the closed gate now: the process has work to do.
uint32_t gate_waiting();

// Microseconds of work that went through the gate and is not known to have ended; an estimate from what the
// same kernels and graphs took before.
uint64_t gate_in_flight_us();

// How much may be in flight. At least two submissions always may.
void gate_budget_us(uint64_t budget);

// ---- for submit.cc -----------------------------------------------------------------------------------

// Waits until the submission may go. True: gate_leave() is to be called after the driver.
bool gate_enter(const Submission& submission);
void gate_leave(const Submission& submission, CUresult result);

}  // namespace allot::shim
