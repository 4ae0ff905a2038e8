// The tables of fixed size on the side of GPU time, and what has not fitted into one of them.
//
// The law: nothing is left out in silence. What does not fit is held less finely, by a measure that
// still keeps the limits, and the process's slot says so for `ps` and `doctor` (AllotTable bits of
// abi/region.h). Where no such measure is left, the closed rule decides (gpu_clients.h). One test
// at N + 1 for each: time/tables_test.cc, time/rm_tracker_test.cc, tests/shim/tables_test.cc.
//
//   table                       room   what does not fit
//   RM objects of the process   2,048  the process is held at the gate (rm_objects.h)
//   channel groups, channels    64,    likewise, on that GPU (channels.h)
//     of a process on a GPU     512
//   descriptors of the driver   16     the channels of the last one cannot be stopped: the gate
//   streams, contexts           1,024, work is never known to have ended: the process counts as
//                               128    busy; at the gate the markers alone tell (streams.h)
//   contexts with markers       11     a thread that waits for room asks its own stream
//     in flight, at least              (work_in_flight.h)
//   streams with work in flight 256    two share an account: what they have without a marker counts
//                                      as ended with either's next one
//   kernels and graphs          4,096  counts as half a budget each (work_cost.h)
//   runs within a ceiling's     256    the two with the shortest pause become one
//     span                             (core/time_ceiling.h)
//   slices weighed on a GPU     64     the closed rule (neighbours.h)
//   clients, GPUs of a slice    256,   the closed rule (gpu_clients.h, entry/attach.cc)
//                               16
//   GPUs as the driver numbers  32     the driver has no more (NV_MAX_DEVICES)
//
// What must not happen here: a lock, an allocation; a table that is full and does not say so.
#pragma once

#include <cstdint>

namespace allot::shim {

// Something did not fit into that table (ALLOT_TABLE_*). That stays said for as long as the process
// lives, unless table_has_room(). Any thread, signal-safe; the agent writes it into the process's
// slot.
void table_full(uint32_t table);
void table_has_room(uint32_t table);

// The bits of all tables that are or were full.
uint32_t full_tables();

// In a forked child that starts afresh.
void forget_full_tables();

}  // namespace allot::shim
