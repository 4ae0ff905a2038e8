// The limits of GPU time that this process is held to, for measurements that must know of them:
// what a kernel takes alone cannot simply be measured by a program that is stopped on its way.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "bench/gpu.h"

namespace allot::bench {

struct SliceLimit {
  std::string slice;            // its name; empty = in no slice, or in one without limits of time
  uint32_t max_permille = 0;    // ceiling; 0 = none
  uint32_t share_permille = 0;  // share; 0 = none
  bool limited() const { return max_permille != 0 || share_permille != 0; }

  // {"slice", "max_percent", "share_percent"}, or null when not limited.
  nlohmann::ordered_json json() const;
};

// Read from the file of the slice that `allot run` started this process in, else from the variables
// of the way without `run`, where a library of ours is in front of the driver. Files that cannot be
// read say nothing. After cuInit. Any thread; allocates; reads a file.
SliceLimit limit_of_this_process(const Gpu& gpu);

// The entry of the GPU with this UUID in the slice's file at `path`; not limited for what is none.
SliceLimit limit_in_file(const std::string& path, const unsigned char* uuid);

}  // namespace allot::bench
