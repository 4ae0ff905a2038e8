// The load loop. Between two waits nothing is done but launching: what the host adds to the gap is
// part of the figure, as it is in the programs this stands for.
#include "bench/load.h"

#include <algorithm>
#include <vector>

#include "bench/gpu.h"
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

}  // namespace

nlohmann::ordered_json run_load(const LoadOptions& options) {
  const Gpu gpu(options.gpu);
  const uint64_t iterations = options.iterations != 0
                                  ? options.iterations
                                  : calibrate_spin(gpu, options.kernel_us, kLoadWarmSeconds);
  const Work work(gpu, iterations, options.graph);
  const double expected_us = options.kernel_us * (options.graph ? kGraphKernels : 1);
  const double solo_us =
      options.solo_us > 0 ? options.solo_us : measure_solo_us(gpu, work, expected_us);

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
  return result;
}

}  // namespace allot::bench
