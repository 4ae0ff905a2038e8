// The gate of a slice that swaps fast: who touches memory that can be swapped passes it, and an eviction closes it.
//
//     open --swap_close--> closing --swap_closed--> closed
//       ^                     |                        |
//       +-- deadline passed --+----- swap_open --------+
//
// A thread counts itself inside and then looks whether the gate is open; who closes it first marks it and then
// waits until nobody is inside. Both with sequential consistency, so one of them sees the other: when the gate is
// closed and nobody is inside, no call of the program can reach the memory until it is opened again. For that all
// calls have to pass, also before anybody asks: kSwap of submit_watch is set as long as the process lives.
//
// What must not happen here: a thread that waits for ever because the closer is stuck in the driver. Until the
// gate is closed for good it opens by itself at the deadline. Knows nothing of the driver or of the region.
#pragma once

#include <atomic>
#include <cstdint>

namespace allot::shim {

// Waits while the gate is not open, then counts the thread as inside until swap_leave(). A thread that is inside
// already goes through: calls nest. Any thread; errno stays.
void swap_enter();
void swap_leave();

// The same wait without being inside afterwards: for calls that only must not begin meanwhile. Not for who is
// inside.
void swap_wait_open();

// Called by a thread that begins to wait: it must not block or call the driver. Null: nobody is called.
extern constinit std::atomic<void (*)()> swap_wait_handler;

// ---- for the one thread that swaps -------------------------------------------------------------------

// From open: closes, for good only by swap_closed(); after `deadline_ns` (monotonic) it opens by itself.
void swap_close(uint64_t deadline_ns);
uint32_t swap_inside();
// False: the deadline has passed and the gate is open.
bool swap_closed();
void swap_open();

bool swap_is_open();
uint32_t swap_waiting();

// The process ends: who comes from now on goes through, who waits goes on waiting.
void swap_let_through();

// In a forked child that starts afresh.
void abandon_swap_gate();

}  // namespace allot::shim
