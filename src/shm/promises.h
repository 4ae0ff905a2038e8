// What slices are promised of a GPU, counted over a region's folder. For all who grant a share: the
// command, and programs whose share comes from their environment.
//
// Two who grant at the same moment must not give the same share away twice: each holds a lock on
// the folder while it counts and writes. The lock ends with its holder; one who keeps it delays
// others by kPromisePatienceMs.
#pragma once

#include <cstdint>

#include "shm/slice_file.h"
#include "sys/file.h"

namespace allot::shm {

inline constexpr uint32_t kPromisePatienceMs = 2000;

class PromiseLock {
 public:
  // Waits for the lock, at most kPromisePatienceMs; continues without it then.
  explicit PromiseLock(const char* folder);

 private:
  sys::Fd folder_;
};

struct Promised {
  uint32_t share_permille = 0;  // the sum; one slice counts as 1000 at most
  bool uncounted = false;       // a slice may be in use whose share cannot be read
};

// The shares of the slices in use in `folder` on the GPU with this UUID, except that at
// `except_path`. Reads each file; any thread; does not allocate.
Promised promised_share(const char* folder, const uint8_t uuid[16], const char* except_path);

}  // namespace allot::shm
