// What a new program's environment must hold to stay in the slice of the process that starts it.
//
// Works in a vfork child and in a signal handler: memory of the caller's stack only, bounded, no lock, no
// call but reading what start_environment() copied when the library was loaded.
#pragma once

#include <cstdint>

namespace allot::shim {

// How an environment must be completed. All counts are of array entries and bytes to be had on the stack.
struct EnvironmentPlan {
  bool needed = false;      // else pass the environment as it is
  uint32_t entries = 0;     // of the completed array, with the closing null
  uint32_t text_bytes = 0;  // for the changed LD_PRELOAD and LD_LIBRARY_PATH
};

// Looks at `envp` (may be null) of the program to be started. Not needed when the process is not in a slice,
// when nothing is missing, when the program is told ALLOT_DISABLE=1, or when the environment is too large
// to be completed on the stack.
EnvironmentPlan plan_environment(char* const* envp);

// Writes the completed environment into `out` (plan.entries) and `text` (plan.text_bytes).
void complete_environment(char* const* envp, const EnvironmentPlan& plan, char** out, char* text);

}  // namespace allot::shim
