// The slice as the NVML library sees it: read, never written.
#pragma once

#include <cstdint>

#include "driver/nvml_abi.h"
#include "shm/slice_file.h"

namespace allot::shim {

// A look at the slice of this process, for as long as the object lives. A slice of the same user is
// mapped once and shows its changes; another user's is copied for each look. Empty outside a slice,
// and while no process has joined a slice whose limits are in the environment.
class SliceLook {
 public:
  SliceLook();
  ~SliceLook();
  SliceLook(const SliceLook&) = delete;
  SliceLook& operator=(const SliceLook&) = delete;

  // This process belongs to a slice, even if the slice has no file yet.
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

// UUID and index of a device handle; asks NVML once for each handle. False when NVML does not know.
bool identify(nvmlDevice_t handle, uint8_t uuid[16], uint32_t* index);

// Forgets what handles mean: after nvmlShutdown they may mean something else.
void forget_handles();

}  // namespace allot::shim
