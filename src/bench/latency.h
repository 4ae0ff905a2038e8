// `bench latency`: how long a small request takes from the moment it is due to its result.
//
// A request is one kernel and a wait. Requests are due on a fixed period, and the time counts from
// when a request was due, not from when it could be sent: a request that queued behind a slow one
// waited, and a user would have noticed (no coordinated omission).
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>

namespace allot::bench {

struct LatencyOptions {
  int gpu = 0;
  double seconds = 5;
  double kernel_us = 200;
  double period_us = 2000;
  uint64_t iterations = 0;  // spin steps of a request; 0 = calibrate for kernel_us
};

// Fields of the result: requests, iters, p50, p90, p99, p999, max (milliseconds), late (requests
// that were due before the one before them had ended), and what ran it. Failure as in gpu.h. One
// thread; allocates; blocks for `seconds` and the calibration.
nlohmann::ordered_json run_latency(const LatencyOptions& options);

}  // namespace allot::bench
