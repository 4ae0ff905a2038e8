// Whether a share of GPU time, or GPU memory, may be promised. The shares of all slices on a GPU
// sum to at most 100 %; its free memory is what no slice was promised and nobody uses.
//
// Two commands at the same moment must not both get the same share: a command holds a lock on the
// region's folder until its own share is in its slice's file. The lock belongs to the open folder,
// so it ends with the process. A command that never releases it delays others by kPatience at most.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/gpus/gpu_inventory.h"

namespace allot::cli {

class Admission {
 public:
  // Takes the lock and reads what is promised in `folder`. `except_path` is the caller's own slice,
  // which does not count.
  Admission(const std::string& folder, const std::string& except_path);
  ~Admission();
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;

  // Throws a NotNow (exit 125) that lists the shares of the slices, unless `share_permille` of this
  // GPU is left. 0 fits.
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
  int folder_ = -1;
  std::vector<Promise> promises_;
};

// "30%", "0.5%"; "none" for 0. Any thread; allocates.
std::string percent_text(uint32_t permille);

}  // namespace allot::cli
