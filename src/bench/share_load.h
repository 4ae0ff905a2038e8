// The loads of `bench share`: one thread that keeps a GPU busy in a given manner and writes down
// when what was done.
//
// Work is counted in nominal microseconds of kernel: what a kernel was asked to take. A
// calibration, made alone on the GPU, says what that is in device time and how much of it the load
// gets done in a second alone, so that a program that runs beside others can be told its part
// without a calibration of its own.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "bench/gpu.h"
#include "bench/progress.h"
#include "bench/share_spec.h"

namespace allot::bench {

// NOLINTNEXTLINE(bugprone-exception-escape): the implicit move; json's is noexcept and has
// assertions in it
struct Calibration {
  double iters_per_us = 1000;  // spin steps of a nominal microsecond
  double gpu_per_work = 1;     // device time of a microsecond of work, launches back to back
  double work_rate = 1e6;      // work of a second, alone
  nlohmann::json waits;        // of its operations alone: wait_figures(); null for an idle load

  // Part of the time in which the load alone keeps the GPU busy.
  double busy_alone() const { return gpu_per_work * work_rate / 1e6; }
};

struct LoadLog {
  // What the host waited for at once: a batch of launches, a step, a request.
  struct Operation {
    double began_ms;  // submitted; a request: when it was due
    double took_ms;   // until the host knew that it had ended
  };
  Progress progress;  // microseconds of work in each millisecond since the start
  uint64_t launches = 0;
  std::vector<Operation> operations;
  std::vector<double> resumed_ms;  // when it came back from idling
};

// Runs the load from start_s (as now_s() counts) to end_s and a little longer, so that the end of
// the time looks like its middle. Failure as in gpu.h. Blocks; allocates only before it begins and
// for the log.
LoadLog run_share_load(const Gpu& gpu, const LoadSpec& load, double iters_per_us, double start_s,
                       double end_s);

// Measures the load alone; the GPU must be idle otherwise. Takes two to five seconds.
Calibration calibrate_share_load(const Gpu& gpu, const LoadSpec& load);

nlohmann::ordered_json calibration_json(const Calibration& calibration);
Calibration calibration_from_json(const nlohmann::json& json);

// count, and p50, p90, p99, p999 and max in milliseconds; null for none.
nlohmann::json wait_figures(const std::vector<double>& waits_ms);

}  // namespace allot::bench
