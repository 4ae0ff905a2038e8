// Figures out of samples: percentiles, medians of pairs, and work spread over seconds.
//
// Kept apart from the workloads so that the arithmetic is tested without a GPU. Medians, never
// means, for anything short: one preemption of the measuring thread is worth thousands of samples.
#pragma once

#include <cstdint>
#include <vector>

namespace allot::bench {

// The `permille`-th smallest part of `samples` by nearest rank: 500 is the median, 999 the p99.9.
// Works on a copy, in any order; 0 for no samples.
// Any thread; allocates; does not block.
double percentile(std::vector<double> samples, unsigned permille);

// Median of b[i] - a[i] over the pairs both have. Pairs taken next to each other in time cancel
// what drifts (clocks, neighbours), which is why this and not the difference of two medians is
// reported. 0 for no pairs. Any thread; allocates; does not block.
double median_difference(const std::vector<double>& a, const std::vector<double>& b);

// Spreads work over the seconds of a run. Each add() says that `work` (in any unit) was done evenly
// between two instants, in seconds since the run began; a part that lies on both sides of a
// second's end is split. Instants before 0 or out of order are taken as 0 length at `to_s`.
class PerSecond {
 public:
  void add(double from_s, double to_s, double work);

  // Work of each full second of a run that lasted `wall_s`; a rest of less than a second is left
  // out. Any thread while nobody adds; allocates; does not block.
  std::vector<double> full_seconds(double wall_s) const;

 private:
  void put(uint64_t second, double work);
  std::vector<double> seconds_;
};

}  // namespace allot::bench
