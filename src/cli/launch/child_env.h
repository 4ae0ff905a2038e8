// The environment that carries a slice into a program (abi/env.h names the variables).
#pragma once

#include <string>
#include <vector>

#include "cli/gpus/libraries.h"

namespace allot::cli {

struct SliceEnvironment {
  ShimFiles shim;
  std::string slice_path;  // the slice's region file
  bool fail_closed = true;
  bool preload = true;       // false: the program could not load our libraries (--fail open)
  std::string visible_gpus;  // UUIDs joined by commas; empty = leave CUDA_VISIBLE_DEVICES alone
  bool simulated = false;    // --sim
  DriverFiles sim;           // then: the software GPU's libraries
  std::string sim_spec;      // then: "2x80G"; empty = leave ALLOT_SIM_GPUS alone
};

// `inherited` (an array of "NAME=value" closed by null, such as `environ`) with the slice's variables
// set. What the user preloads already stays, after ours; of LD_LIBRARY_PATH nothing is dropped. Pure.
std::vector<std::string> slice_environment(const SliceEnvironment& slice,
                                           const char* const* inherited);

}  // namespace allot::cli
