// Which GPUs a process of a slice sees: those of the slice, numbered from 0; CUDA_VISIBLE_DEVICES
// only narrows.
#pragma once

#include <cstdint>

#include "abi/region.h"

namespace allot::shim {

// While one lives the driver reads a CUDA_VISIBLE_DEVICES that names GPUs of the slice by their
// UUIDs: all, or those that the program's own value chooses, by their numbers in the slice or by
// UUID. Does nothing for a slice that was not given its GPUs by name (ALLOT_SLICE_OWN_GPUS). A
// thread that changes the environment meanwhile keeps its change. One thread a process.
class NarrowedDevices {
 public:
  explicit NarrowedDevices(const AllotSliceFile& file);
  ~NarrowedDevices();
  NarrowedDevices(const NarrowedDevices&) = delete;
  NarrowedDevices& operator=(const NarrowedDevices&) = delete;

 private:
  char* before_ = nullptr;        // the program's own entry, or null
  char** environment_ = nullptr;  // the program's own list, where ours took its place
  bool active_ = false;
};

}  // namespace allot::shim
