// `run --wait` and `run --evict-idle`: a slice now, or as soon as there is room for it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cli/gpus/gpu_inventory.h"
#include "cli/launch/slice_file.h"

namespace allot::cli {

struct WaitOptions {
  bool wait = false;
  double timeout_seconds = -1;  // < 0 = for ever
  double evict_idle_seconds =
      -1;  // evict slices of low priority that have been idle for so long; < 0 = none
  bool asked() const { return wait || evict_idle_seconds >= 0; }
};

// Makes the slice's file once its memory and share are free (spec.free_memory); asks the driver
// again every half second. First makes room by evicting this user's idle slices of low priority,
// one after the other. `inventory` owns what `gpus` points to; this call updates its figures of
// free memory. Throws a Failure: as SliceFile; 124 when the time is over; 128 + number after a
// signal (the caller must have blocked those of SignalGuard).
std::unique_ptr<SliceFile> make_slice(const std::string& name, const SliceSpec& spec,
                                      const Bounds& bounds, Inventory* inventory, const std::vector<ChosenGpu>& gpus,
                                      const DriverFiles& driver, const WaitOptions& options,
                                      const std::function<void(const std::string&)>& say);

}  // namespace allot::cli
