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
  std::string visible_gpus;  // UUIDs joined by commas; empty = keep CUDA_VISIBLE_DEVICES
  bool simulated = false;    // --sim
  DriverFiles sim;           // then: the software GPU's libraries
  std::string sim_spec;      // then: "2x80G"; empty = keep ALLOT_SIM_GPUS
};

// `inherited` (an array of "NAME=value" ending with null, such as `environ`) with the slice's
// variables set. The user's own preloads stay, after ours; LD_LIBRARY_PATH keeps all its entries.
// Pure.
std::vector<std::string> slice_environment(const SliceEnvironment& slice,
                                           const char* const* inherited);

}  // namespace allot::cli
