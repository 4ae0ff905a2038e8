// Messages: silent unless ALLOT_LOG names a file; one line per cause, at most once a second each.
//
// A line has the pid, the monotonic time in ms, and what happened. The file is opened, written and
// closed each time, so the host keeps no descriptor. errno does not change.
#pragma once

#include <cstdint>

#include "abi/region.h"

namespace allot::shim {

// A request of `bytes` was refused: `used` of `limit` were in use.
void log_refusal(uint32_t gpu, AllotKind kind, uint64_t bytes, uint64_t used, uint64_t limit);

// The real library cannot be found or opened.
void log_missing_library(const char* soname);

// The driver makes no IPC handle for memory whose backing can be swapped.
void log_no_ipc();

// The slice could not be set up; `why` says what failed. The process runs without limits (open) or
// refuses GPU work (closed).
void log_no_slice(const char* why, int os_errno, bool closed);

// A part of what the environment asks for cannot be had; the process continues without it.
void log_less(const char* why);

// So many GPUs found no place in the slice's file: they are refused (closed) or not limited (open).
void log_gpus_beyond(uint32_t count, bool closed);

}  // namespace allot::shim
