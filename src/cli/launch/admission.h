// Whether a share of GPU time, or GPU memory, may be promised. The shares of all slices on a GPU
// sum to at most 100 %; its free memory is what no slice was promised and nobody uses.
//
// Two commands at the same moment must not both get the same share: a command holds the lock of
// shm/promises.h until its own share is in its slice's file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/gpus/gpu_inventory.h"
#include "shm/promises.h"

namespace allot::cli {

class Admission {
 public:
  // Takes the lock and reads what is promised in `folder`. `except_path` is the caller's own slice,
  // which does not count.
  Admission(const std::string& folder, const std::string& except_path);
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;

  // Throws a NotNow (exit 125) that lists the shares of the slices, unless `share_permille` of this
  // GPU is left; also while a slice runs whose share cannot be read. 0 fits.
  void check(const Uuid& gpu, const std::string& label, uint32_t share_permille) const;

  // The same for memory that must be free, not only below a limit. Free is what the GPU has free,
  // minus what slices were promised and have not taken yet. The limits of evicted slices do not
  // count.
  void check_memory(const Gpu& gpu, uint64_t bytes) const;

 private:
  struct Promise {
    std::string slice;
    Uuid gpu;
    uint32_t share_permille;
    uint64_t untaken_bytes;  // of its memory limit
  };
  shm::PromiseLock lock_;
  std::vector<Promise> promises_;
  std::string uncounted_;  // a slice whose share cannot be known, and why; empty = none
};

// "30%", "0.5%"; "none" for 0. Any thread; allocates.
std::string percent_text(uint32_t permille);

}  // namespace allot::cli
