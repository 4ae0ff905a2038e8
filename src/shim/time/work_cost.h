// How long a kernel or an executable graph takes, learned: microseconds of GPU time per launch.
//
// A fixed table keyed by CUfunction, CUgraphExec or entry; what does not fit is unknown. A handle
// that the driver gives out again for something else brings its old cost with it for a few
// launches. No lock: two threads that learn the same work at once may lose one of the two lessons.
#pragma once

#include <atomic>
#include <cstdint>

namespace allot::shim {

struct WorkCost {
  std::atomic<uint64_t> work;      // 0 = free
  std::atomic<uint64_t> ns;        // 0 = not known yet
  std::atomic<uint32_t> launches;  // counted to choose what is measured
};

// The place of `work` (not 0), or null when there is none left. Any thread, signal-safe, some 10
// ns.
WorkCost* cost_of(uint64_t work);

// Counts a launch; whether it is to be measured: the first ones, then each 32nd.
bool measure_this(WorkCost& cost);

// A measured launch took so long.
void learn_cost(WorkCost& cost, uint64_t ns);

void abandon_costs();

}  // namespace allot::shim
