// What a load of `bench share` submits at a time.
#pragma once

#include <memory>
#include <vector>

#include "bench/gpu.h"
#include "bench/share_spec.h"
#include "bench/told_spin.h"

namespace allot::bench {

// A kernel, a kernel of varying size, or a captured graph. One thread.
class Launcher {
 public:
  // Failure as in gpu.h. Allocates.
  Launcher(const Gpu& gpu, const LoadSpec& load, double iters_per_us);
  ~Launcher();
  Launcher(const Launcher&) = delete;
  Launcher& operator=(const Launcher&) = delete;

  // Submits the next one and says how much work it is, in nominal microseconds; does not wait.
  double submit();

  ToldSpin* told() const { return told_.get(); }
  double work_of(uint64_t steps) const { return static_cast<double>(steps) / iters_per_us_; }
  uint64_t launches() const { return launches_; }
  size_t period() const { return sizes_us_.size(); }  // launches until the sizes come again

 private:
  uint64_t steps(double us) const;
  void draw_sizes();

  const Gpu& gpu_;
  double iters_per_us_;
  std::vector<double> sizes_us_;
  size_t next_ = 0;
  uint64_t launches_ = 0;
  double work_of_graph_ = 0;
  CUgraphExec exec_ = nullptr;
  std::unique_ptr<ToldSpin> told_;
};

}  // namespace allot::bench
