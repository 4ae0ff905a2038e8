// A thread of ours in somebody else's process: takes none of its signals, is never joined, small stack.
#pragma once

namespace allot::shim {

// Starts `body`; false when the system gives no thread. errno stays. Any thread.
bool start_guest_thread(void* (*body)(void*));

// The calling thread's name in listings, at most 15 bytes; also makes its sleeps exact (timer slack 1 us
// instead of 50).
void name_guest_thread(const char* name);

}  // namespace allot::shim
