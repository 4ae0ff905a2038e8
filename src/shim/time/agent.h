// The agent: one thread in each process of a slice, which holds the process to its GPU time.
//
//     own client, own limits ---\                        /--> channels (level channel)
//     neighbours' files ---------+--> policy --> grant --+--> gate     (level launch)
//     prober: work or none -----/     (pure)              \-> client: for ps and the neighbours
//
// It sleeps on the slice's wake_seq until the next edge of a window. Alone and without a ceiling it
// only updates its heartbeat. It never calls the driver's library, so nothing the program does
// there (a launch that blocks with a lock held because its channels are closed) can keep it from
// opening them again.
//
// What must not happen here: channels or a gate stay closed when the agent cannot continue. If the
// driver refuses a call, the agent opens everything and falls back to another level, and the client
// says why.
#pragma once

#include <cstdint>

namespace allot::shim {

// Starts the agent and the prober of this process; called once it is in its slice and the driver is
// initialised. `slice_path`: the file, in the folder whose slices share the GPUs. False when no
// thread can be had: then nothing is held, and the clients say so.
bool start_agent(const char* slice_path);

// Makes the agent look at everything now. Any thread, signal-safe.
void wake_agent();

// In a forked child that starts afresh.
void forget_agent();

}  // namespace allot::shim
