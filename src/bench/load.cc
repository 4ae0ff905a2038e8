// The load loop. Between two waits nothing is done but launching: what the host adds to the gap is
// part of the figure, as it is in the programs this stands for.
#include "bench/load.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "bench/gpu.h"
#include "bench/slice_limit.h"
#include "bench/statistics.h"

namespace allot::bench {
namespace {

constexpr double kLoadWarmSeconds = 0.3;

// One launch of the load: a kernel, or a captured graph of them.
class Work {
 public:
  Work(const Gpu& gpu, uint64_t iterations, bool graph) : gpu_(gpu), iterations_(iterations) {
    if (!graph) return;
    CUgraph captured = nullptr;
    gpu.check(gpu.api().capture_begin(gpu.stream(), CU_STREAM_CAPTURE_MODE_THREAD_LOCAL),
              "cuStreamBeginCapture");
    for (unsigned i = 0; i < kGraphKernels; ++i) gpu.launch_spin(iterations);
    gpu.check(gpu.api().capture_end(gpu.stream(), &captured), "cuStreamEndCapture");
    const CUresult made = gpu.api().graph_instantiate(&exec_, captured, 0);
    gpu.api().graph_destroy(captured);
    gpu.check(made, "cuGraphInstantiate");
  }
  ~Work() {
    if (exec_ != nullptr) gpu_.api().graph_exec_destroy.quiet(exec_);
  }
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;

  void submit() const {
    if (exec_ == nullptr) return gpu_.launch_spin(iterations_);
    gpu_.check(gpu_.api().graph_launch(exec_, gpu_.stream()), "cuGraphLaunch");
  }

 private:
  const Gpu& gpu_;
  uint64_t iterations_;
  CUgraphExec exec_ = nullptr;
};

// Device time of one launch among others, in microseconds: the median of five runs of about 50 ms.
double measure_solo_us(const Gpu& gpu, const Work& work, double expected_us) {
  const double runs = std::clamp(50000.0 / std::max(expected_us, 1.0), 2.0, 200.0);
  const unsigned launches = static_cast<unsigned>(runs);
  std::vector<double> samples;
  samples.reserve(5);
  for (int i = 0; i < 5; ++i) {
    samples.push_back(device_us(gpu, launches, [&] { work.submit(); }) / launches);
  }
  return percentile(samples, 500);
}

// The same of a process that is stopped now and then: the fastest of many runs so short that some
// lie between two stops, if the launches themselves do.
double measure_fastest_us(const Gpu& gpu, const Work& work, double expected_us) {
  constexpr int kRuns = 40;
  const auto launches =
      static_cast<unsigned>(std::clamp(1000.0 / std::max(expected_us, 1.0), 1.0, 200.0));
  double fastest = 0;
  for (int i = 0; i < kRuns; ++i) {
    const double us = device_us(gpu, launches, [&] { work.submit(); }) / launches;
    if (i == 0 || us < fastest) fastest = us;
  }
  return fastest;
}

// What a launch of `kernels` takes alone, by kernels short enough to run between two stops.
double work_out_solo_us(const Gpu& gpu, uint64_t iterations, unsigned kernels) {
  const uint64_t brief =
      std::min(iterations, calibrate_spin(gpu, kBetweenStopsUs, kLoadWarmSeconds, true));
  const double us = measure_fastest_us(gpu, Work(gpu, brief, false), kBetweenStopsUs);
  return us * static_cast<double>(iterations) / static_cast<double>(brief) * kernels;
}

std::string calibration_note(const SliceLimit& limit) {
  const bool ceiling = limit.max_permille != 0;
  const uint32_t permille = ceiling ? limit.max_permille : limit.share_permille;
  return fmt::format(
      "calibrated in slice {} ({} {}.{} %): solo_us is worked out from the fastest of many short "
      "runs, too long if each was interrupted; measure it without the slice and give --solo-us to "
      "be sure",
      limit.slice, ceiling ? "ceiling" : "share", permille / 10, permille % 10);
}

}  // namespace

nlohmann::ordered_json run_load(const LoadOptions& options) {
  const Gpu gpu(options.gpu);
  const SliceLimit limit = limit_of_this_process(gpu);
  const uint64_t iterations =
      options.iterations != 0
          ? options.iterations
          : calibrate_spin(gpu, options.kernel_us, kLoadWarmSeconds, limit.limited());
  const Work work(gpu, iterations, options.graph);
  const double expected_us = options.kernel_us * (options.graph ? kGraphKernels : 1);
  const double solo_us = options.solo_us > 0 ? options.solo_us
                         : limit.limited()
                             ? work_out_solo_us(gpu, iterations, options.graph ? kGraphKernels : 1)
                             : measure_solo_us(gpu, work, expected_us);

  PerSecond done;
  uint64_t launches = 0;
  const double begin = now_s();
  double waited_at = begin, now = begin;
  do {
    for (unsigned i = 0; i < options.inflight; ++i) work.submit();
    gpu.synchronize();
    now = now_s();
    done.add(waited_at - begin, now - begin, options.inflight);
    waited_at = now;
    launches += options.inflight;
  } while (now - begin < options.seconds);
  const double wall_s = now - begin;

  std::vector<double> per_second = done.full_seconds(wall_s);
  for (double& second : per_second) second *= solo_us / 1e6;
  nlohmann::ordered_json result;
  result["bench"] = "load";
  result["gpu"] = gpu.name();
  result["driver"] = gpu.driver_version();
  result["kernel_us"] = options.kernel_us;
  result["inflight"] = options.inflight;
  result["graph"] = options.graph;
  result["iters"] = iterations;
  result["launches"] = launches;
  result["kernels"] = launches * (options.graph ? kGraphKernels : 1);
  result["solo_us"] = solo_us;
  result["wall_s"] = wall_s;
  result["achieved"] = static_cast<double>(launches) * solo_us / 1e6 / wall_s;
  result["per_second"] = per_second;
  result["limit"] = limit.json();
  if (limit.limited() && options.solo_us <= 0) result["note"] = calibration_note(limit);
  return result;
}

}  // namespace allot::bench
