// `bench load`: keeps one GPU busy with kernels of a fixed amount of work and says how much got
// done.
//
// Each launch is the same number of spin steps on all multiprocessors. The host waits after every
// N-th launch, as a training loop does. What a launch takes alone is measured once with events (or
// given by --solo-us, when the GPU is shared already), so that work done times that, divided by the
// wall time, is the part of the GPU this program had: `achieved`. In a slice with a ceiling or a
// share that measurement is stopped now and then, so it is made in another way, and the result says
// so.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>

namespace allot::bench {

struct LoadOptions {
  int gpu = 0;
  double seconds = 5;
  double kernel_us = 1000;
  unsigned inflight = 16;
  bool graph = false;       // a launch replays a graph of kGraphKernels kernels of kernel_us each
  uint64_t iterations = 0;  // spin steps of a kernel; 0 = calibrate for kernel_us
  double solo_us = 0;       // device time of one launch alone; 0 = measure at start
};

inline constexpr unsigned kGraphKernels = 20;

// Runs the load. Fields of the result: iters (of one kernel), launches, kernels, solo_us (of one
// launch), wall_s, achieved (0 to about 1), per_second (the same for each full second), and what
// ran it (gpu, driver, kernel_us, inflight, graph), limit (of the slice it runs in, or null), note
// (only where it calibrated under a limit). Failure as in gpu.h. One thread; allocates; blocks for
// `seconds` and the calibration.
nlohmann::ordered_json run_load(const LoadOptions& options);

}  // namespace allot::bench
