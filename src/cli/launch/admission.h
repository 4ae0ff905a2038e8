// Whether a share of GPU time, or memory, may be promised: the shares of all slices on a GPU sum to at most
// 100 %; what is free of its memory is what no slice was promised and nobody uses.
//
// Two commands that ask at the same moment must not both be told yes: whoever asks holds a lock on the
// region's folder until his own share stands in his file. The lock belongs to the open folder, so it goes
// with the process. Somebody who never lets go delays others by kPatience and no longer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/gpus/gpu_inventory.h"

namespace allot::cli {

class Admission {
 public:
  // Takes the lock and reads what is promised in `folder`. `except_path`: the slice that asks, which does not
  // count.
  Admission(const std::string& folder, const std::string& except_path);
  ~Admission();
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;

  // Throws a NotNow (exit 125) that says who has what, unless `share_permille` of this GPU is left. 0 fits.
  void check(const Uuid& gpu, const std::string& label, uint32_t share_permille) const;

  // The same for memory, for those who want it free and not only below their limit. Free is what the card has
  // free, less what slices were promised and have not taken yet. Limits of evicted slices do not count.
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
