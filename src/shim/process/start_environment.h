// The slice's part of the environment with which this process started.
//
// It is read and copied once, as early as any code of ours runs: programs rewrite their environment
// (setenv, setproctitle), and a child started with an empty one must still get what its parent
// started with. Nothing here opens a file, allocates or prints.
#pragma once

#include <cstdint>

namespace allot::shim {

struct StartEnvironment {
  bool disabled = false;       // ALLOT_DISABLE=1
  bool carries_slice = false;  // it names a slice or a limit
  bool cut = false;            // there was no memory to copy all of it
  uint32_t count = 0;          // "NAME=VALUE" texts below, without LD_*
  const char** variables = nullptr;
  const char* preload = nullptr;       // value of LD_PRELOAD, or null
  const char* library_path = nullptr;  // value of LD_LIBRARY_PATH, or null
};

// Any thread, also from another library's constructor; waits for the first caller (microseconds).
const StartEnvironment& start_environment();

// Value of a variable of the slice (ALLOT_* and the aliases) at the start, or null.
const char* start_variable(const char* name);

// `name` with "_<index>" behind it; then `name` itself. Null when neither was set.
const char* start_variable_for(const char* name, uint32_t index);

}  // namespace allot::shim
