// The request loop; pace.h says how a request's moment is waited for.
#include "bench/latency.h"

#include <algorithm>
#include <vector>

#include "bench/gpu.h"
#include "bench/pace.h"
#include "bench/slice_limit.h"
#include "bench/statistics.h"

namespace allot::bench {
namespace {

constexpr double kLatencyWarmSeconds = 0.2;

}  // namespace

nlohmann::ordered_json run_latency(const LatencyOptions& options) {
  const Gpu gpu(options.gpu);
  const SliceLimit limit = limit_of_this_process(gpu);
  const uint64_t iterations =
      options.iterations != 0
          ? options.iterations
          : calibrate_spin(gpu, options.kernel_us, kLatencyWarmSeconds, limit.limited());
  std::vector<double> times_ms;
  times_ms.reserve(static_cast<size_t>(options.seconds * 1e6 / options.period_us) + 1);
  uint64_t late = 0;
  const double begin = now_s();
  double ended = begin;
  for (double due = begin; due - begin < options.seconds && ended - begin < options.seconds;
       due += options.period_us / 1e6) {
    if (ended > due) ++late;
    pace_until(due);
    gpu.launch_spin(iterations);
    gpu.synchronize();
    ended = now_s();
    times_ms.push_back((ended - due) * 1e3);
  }

  nlohmann::ordered_json result;
  result["bench"] = "latency";
  result["gpu"] = gpu.name();
  result["driver"] = gpu.driver_version();
  result["kernel_us"] = options.kernel_us;
  result["period_us"] = options.period_us;
  result["iters"] = iterations;
  result["limit"] = limit.json();
  result["requests"] = times_ms.size();
  result["late"] = late;
  result["p50"] = percentile(times_ms, 500);
  result["p90"] = percentile(times_ms, 900);
  result["p99"] = percentile(times_ms, 990);
  result["p999"] = percentile(times_ms, 999);
  result["max"] = percentile(times_ms, 1000);
  return result;
}

}  // namespace allot::bench
