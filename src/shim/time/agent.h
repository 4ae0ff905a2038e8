// The agent: one thread in each process that has a slice, which holds it to its GPU time.
//
//     own client, own limits ---\                              /--> channels (level channel)
//     neighbours' files -------+--> policy --> grant --------+--> gate     (level launch)
//     prober: work or none ---/    (pure)                     \-> client: what ps and the neighbours see
//
// It sleeps on the slice's wake_seq until the next edge of a window. Alone and without a ceiling it
// does nothing but show a sign of life. It never calls the driver's library, so nothing the program
// does there (a launch that blocks with a lock held because its channels are closed) can keep it
// from opening them again.
//
// What must not happen here: channels or a gate left closed when the agent cannot go on. If a call
// is refused everything is opened and the level falls back, with the reason in the client.
#pragma once

#include <cstdint>

namespace allot::shim {

// Starts the agent and the prober of this process; called once it is in its slice and the driver is
// initialised. `slice_path`: the file, in the folder whose slices share the GPUs. False when no
// thread can be had: then nothing is held, and the clients say so.
bool start_agent(const char* slice_path);

// Makes the agent look around now. Any thread, signal-safe.
void wake_agent();

// In a forked child that starts afresh.
void forget_agent();

}  // namespace allot::shim
