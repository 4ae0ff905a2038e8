// Spin kernels that tell how far they are, for loads whose kernels take longer than what is to be
// seen.
//
// The count is in host memory that the card writes to: reading it costs the GPU nothing. It is
// of one block, within 65,536 steps (0.3 ms on an H100); the others keep step with it closely
// enough. The software GPU tells at a kernel's beginning only.
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>

#include "bench/gpu.h"

namespace allot::bench {

class ToldSpin {
 public:
  // Failure 1 where the driver gives no such memory. Allocates.
  explicit ToldSpin(const Gpu& gpu);
  ~ToldSpin();
  ToldSpin(const ToldSpin&) = delete;
  ToldSpin& operator=(const ToldSpin&) = delete;

  // Submits a kernel of so many steps; does not wait. One thread.
  void launch(uint64_t steps);
  // All that was launched has ended. The same thread.
  void landed();
  // Calls note(from_s, to_s, steps) with the steps done between two moments (as now_s() counts),
  // about every millisecond in which there were any, until it is told to end and once more then.
  // Blocks; a thread of its own.
  void listen(const std::stop_token& end,
              const std::function<void(double, double, uint64_t)>& note) const;
  // Steps done of all kernels so far. Any thread; never blocks.
  uint64_t done() const;

 private:
  const Gpu& gpu_;
  void* word_ = nullptr;
  CUdeviceptr address_ = 0;
  uint64_t launched_ = 0;
};

}  // namespace allot::bench
