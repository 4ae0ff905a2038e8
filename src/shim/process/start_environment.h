// The environment this process started with, as far as it concerns the slice.
//
// Read once, as early as anything of ours runs, and copied: programs rewrite their environment (setenv,
// setproctitle), and a child started with an emptied one must still get back what its parent began with.
// Nothing here opens, allocates or prints.
#pragma once

#include <cstdint>

namespace allot::shim {

struct StartEnvironment {
  bool disabled = false;       // ALLOT_DISABLE=1
  bool carries_slice = false;  // a slice or a limit is named
  uint32_t count = 0;          // "NAME=VALUE" texts below, without LD_*
  const char* variables[64] = {};
  const char* preload = nullptr;       // value of LD_PRELOAD, or null
  const char* library_path = nullptr;  // value of LD_LIBRARY_PATH, or null
};

// Any thread, also from another library's constructor; spins for the first caller (microseconds).
const StartEnvironment& start_environment();

// Value of a variable of the slice (ALLOT_* and the aliases) at the start, or null.
const char* start_variable(const char* name);

// `name` with "_<index>" behind it; then `name` itself. Null when neither was set.
const char* start_variable_for(const char* name, uint32_t index);

}  // namespace allot::shim
