// A thread of ours in somebody else's process: it takes none of its signals, is never joined, and
// has a small stack.
#pragma once

namespace allot::shim {

// Starts `body`; false when the system refuses a thread. errno does not change. Any thread.
bool start_guest_thread(void* (*body)(void*));

// Sets the calling thread's name in listings, at most 15 bytes, and makes its sleeps exact (timer
// slack of 1 us instead of 50).
void name_guest_thread(const char* name);

}  // namespace allot::shim
