// One process of `bench share`, started by it: calibrates a load, or runs it as a slice.
//
// It speaks in lines of JSON on standard output. A slice says {"ready"} once its context is up,
// waits for "go START END" (nanoseconds of the monotonic clock, the same in all processes) on
// standard input, runs and prints what it did. When standard input ends before the word comes, it
// ends.
#pragma once

#include <string>

namespace allot::bench {

struct WorkerOptions {
  std::string load;  // load_json of share_spec.h
  int gpu = 0;
  bool calibrate = false;
  double iters_per_us = 1000;
};

// Blocks until the run is over. Failure as in gpu.h; 1 when the line on standard input is not
// understood.
void run_share_worker(const WorkerOptions& options);

}  // namespace allot::bench
