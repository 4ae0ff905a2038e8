// The slice as the NVML library sees it: read, never written.
#pragma once

#include <cstdint>

#include "driver/nvml_abi.h"
#include "shm/slice_file.h"

namespace allot::shim {

// Look at the slice of this process while it lives. The slice of the same user is mapped once and seen as it
// changes; another user's is copied for each look. Empty outside a slice, and while a slice that is given by
// limits in the environment has no process in it yet.
class SliceLook {
 public:
  SliceLook();
  ~SliceLook();
  SliceLook(const SliceLook&) = delete;
  SliceLook& operator=(const SliceLook&) = delete;

  // This process belongs to a slice, whether or not there is a slice to be seen.
  bool in_slice() const { return in_slice_; }
  const AllotSliceFile* file() const { return slice_.file; }

  // The region's entry for the GPU of this UUID, or -1.
  int gpu_of(const uint8_t uuid[16]) const;

  // Bytes that live processes of the slice hold on that GPU.
  uint64_t used(int gpu) const;

  // Whether a live process of the slice has this pid.
  bool has_process(uint32_t pid) const;

 private:
  shm::Slice slice_;
  bool ours_ = false;  // to be unmapped at the end of the look
  bool in_slice_ = false;
};

// UUID and index of a device handle, asked of NVML once for each handle. False when NVML cannot tell.
bool identify(nvmlDevice_t handle, uint8_t uuid[16], uint32_t* index);

// Handles may mean something else after nvmlShutdown.
void forget_handles();

}  // namespace allot::shim
