// The gate of a slice that swaps fast: every call that may touch movable memory passes it, and an
// eviction closes it.
//
//     open --swap_close--> closing --swap_closed--> closed
//       ^                     |                        |
//       +-- deadline passed --+----- swap_open --------+
//
// A thread counts itself inside and then checks whether the gate is open; the closing thread marks
// the gate and then waits until nobody is inside. Both are sequentially consistent, so at least one
// sees the other: when the gate is closed and nobody is inside, no call of the program can reach
// the memory until the gate opens again. This needs every call to pass, also while nobody wants to
// close: kSwap of submit_watch stays set as long as the process lives.
//
// What must not happen here: a thread waits for ever because the closing thread is stuck in the
// driver. Until swap_closed() the gate opens by itself at the deadline. This file knows nothing of
// the driver or of the region.
#pragma once

#include <atomic>
#include <cstdint>

namespace allot::shim {

// Waits while the gate is not open, then counts the thread as inside until swap_leave(). A thread
// that is already inside passes at once: calls nest. Any thread; errno does not change.
void swap_enter();
void swap_leave();

// The same wait, but the thread is not inside afterwards: for calls that only must not begin
// meanwhile. A thread that is inside returns at once.
void swap_wait_open();

// A thread that begins to wait calls it: it must not block or call the driver. Null: no handler.
extern constinit std::atomic<void (*)()> swap_wait_handler;

// ---- for the one thread that swaps -------------------------------------------------------------

// Begins to close an open gate. Until swap_closed() it opens by itself at `deadline_ns`
// (monotonic).
void swap_close(uint64_t deadline_ns);
uint32_t swap_inside();
// Closes it for good. False: the deadline has passed and the gate is open.
bool swap_closed();
void swap_open();

bool swap_is_open();
uint32_t swap_waiting();

// The process ends: threads that come from now on pass, threads that wait keep waiting.
void swap_let_through();

// In a forked child that starts afresh.
void abandon_swap_gate();

}  // namespace allot::shim
