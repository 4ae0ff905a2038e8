// Scratch masks of the partition rules of 6.12: see partition_6_12.cc. Internal to src/model.
#pragma once

#include "model/cpuset_state.h"

namespace allot::model {

// What the kernel calls struct tmpmasks. The names are those of a partition's view: give_back is
// delmask where CPUs leave a remote partition, and the CPUs that a local one takes from its parent.
struct Scratch {
  Mask next, add, give_back;
};

inline const Mask& user_exclusive(const Cpuset& own) {
  return own.exclusive_cpus.empty() ? own.cpus : own.exclusive_cpus;
}

}  // namespace allot::model
