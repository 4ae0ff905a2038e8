// What the environment of a new program must contain so that it stays in its parent's slice.
//
// Works in a vfork child and in a signal handler: it uses the caller's memory only, takes no lock,
// and reads only what start_environment() copied when the library was loaded.
#pragma once

#include <cstdint>

namespace allot::shim {

// How to complete an environment. The counts say how many array entries and bytes the caller needs.
struct EnvironmentPlan {
  bool needed = false;      // else pass the environment as it is
  uint32_t entries = 0;     // of the completed array, with the closing null
  uint32_t text_bytes = 0;  // for the changed LD_PRELOAD and LD_LIBRARY_PATH
};

// Checks `envp` (may be null) of the program to be started. Nothing is needed when the process is
// not in a slice, when nothing is missing, or when the environment has ALLOT_DISABLE=1.
EnvironmentPlan plan_environment(char* const* envp);

// Writes the completed environment into `out` (plan.entries) and `text` (plan.text_bytes).
void complete_environment(char* const* envp, const EnvironmentPlan& plan, char** out, char* text);

}  // namespace allot::shim
