// The loops of the loads. What must not happen in them: output, and waiting for anything but the GPU or the
// load's own clock.
#include "bench/share_load.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <thread>

#include "bench/pace.h"
#include "bench/statistics.h"
#include "bench/told_spin.h"

namespace allot::bench {
namespace {

constexpr double kTailSeconds = 0.2;
constexpr size_t kMixedSizes = 64;

// One launch of a load: a kernel, a kernel of varying size, or a captured graph.
class Launcher {
 public:
  Launcher(const Gpu& gpu, const LoadSpec& load, double iters_per_us)
      : gpu_(gpu), iters_per_us_(iters_per_us), sizes_us_{load.kernel_us} {
    if (load.kind == LoadKind::kMixed) draw_sizes();
    if (load.kind == LoadKind::kLong) told_ = std::make_unique<ToldSpin>(gpu);
    if (load.kernels < 2) return;
    work_of_graph_ = load.kernel_us * load.kernels;
    CUgraph captured = nullptr;
    gpu.check(gpu.api().capture_begin(gpu.stream(), CU_STREAM_CAPTURE_MODE_THREAD_LOCAL),
              "cuStreamBeginCapture");
    for (unsigned i = 0; i < load.kernels; ++i) gpu.launch_spin(steps(load.kernel_us));
    gpu.check(gpu.api().capture_end(gpu.stream(), &captured), "cuStreamEndCapture");
    const CUresult made = gpu.api().graph_instantiate(&exec_, captured, 0);
    gpu.api().graph_destroy(captured);
    gpu.check(made, "cuGraphInstantiate");
  }
  ~Launcher() {
    if (exec_ != nullptr) gpu_.api().graph_exec_destroy.quiet(exec_);
  }
  Launcher(const Launcher&) = delete;
  Launcher& operator=(const Launcher&) = delete;

  // The work that was submitted.
  double submit() {
    ++launches_;
    if (exec_ != nullptr) {
      gpu_.check(gpu_.api().graph_launch(exec_, gpu_.stream()), "cuGraphLaunch");
      return work_of_graph_;
    }
    const double size_us = sizes_us_[next_++ % sizes_us_.size()];
    if (told_ != nullptr) {
      told_->launch(steps(size_us));
    } else {
      gpu_.launch_spin(steps(size_us));
    }
    return size_us;
  }
  ToldSpin* told() const { return told_.get(); }
  double work_of(uint64_t steps) const { return static_cast<double>(steps) / iters_per_us_; }
  uint64_t launches() const { return launches_; }
  size_t period() const { return sizes_us_.size(); }

 private:
  uint64_t steps(double us) const {
    return static_cast<uint64_t>(std::max(1.0, std::round(us * iters_per_us_)));
  }
  // From 20 us to 20 ms, each length as likely as its double; the same sizes in every process.
  void draw_sizes() {
    std::minstd_rand random(20'26);
    sizes_us_.clear();
    for (size_t i = 0; i < kMixedSizes; ++i) {
      const double part = static_cast<double>(random() - 1) / double(std::minstd_rand::max());
      sizes_us_.push_back(20 * std::pow(1000, part));
    }
  }

  const Gpu& gpu_;
  double iters_per_us_;
  std::vector<double> sizes_us_;
  size_t next_ = 0;
  uint64_t launches_ = 0;
  double work_of_graph_ = 0;
  CUgraphExec exec_ = nullptr;
  std::unique_ptr<ToldSpin> told_;
};

// What the loops share.
struct Run {
  const Gpu& gpu;
  const LoadSpec& load;
  Launcher& launcher;
  LoadLog& log;
  double start_s;

  void done(double from_s, double to_s, double work) const {
    log.progress.add((from_s - start_s) * 1e3, (to_s - start_s) * 1e3, work);
  }
};

// `gap_us`: from the beginning of one launch to the next, at least.
void batches(const Run& run, double until_s, double gap_us = 0) {
  for (double begin = now_s(); begin < until_s;) {
    double work = 0;
    for (unsigned i = 0; i < run.load.inflight; ++i) {
      const double next_s = gap_us > 0 ? now_s() + gap_us / 1e6 : 0;
      work += run.launcher.submit();
      if (gap_us > 0) pace_until(next_s);
    }
    run.gpu.synchronize();
    const double now = now_s();
    run.done(begin, now, work);
    begin = now;
  }
}

// Keeps `inflight` launches in flight and notes each one's end, or what they tell on their way.
void rolling(const Run& run, double until_s) {
  struct Flight {
    CUevent end = nullptr;
    double work = 0;
  };
  std::vector<Flight> flights(std::max(run.load.inflight, 1u));
  const DriverApi& api = run.gpu.api();
  ToldSpin* const told = run.launcher.told();
  for (Flight& flight : flights)
    run.gpu.check(api.event_create(&flight.end, CU_EVENT_DISABLE_TIMING), "cuEventCreate");
  double last_s = now_s();
  const auto land = [&](Flight& flight) {
    if (flight.work <= 0) return;
    run.gpu.check(api.event_synchronize(flight.end), "cuEventSynchronize");
    const double now = now_s();
    if (told == nullptr) run.done(last_s, now, flight.work);
    last_s = now;
    flight.work = 0;
  };
  std::jthread listener;
  if (told != nullptr) {
    listener = std::jthread([&run, told](const std::stop_token& end) {
      told->listen(end, [&run](double from_s, double to_s, uint64_t steps) {
        run.done(from_s, to_s, run.launcher.work_of(steps));
      });
    });
  }
  for (size_t i = 0; now_s() < until_s; ++i) {
    Flight& flight = flights[i % flights.size()];
    land(flight);
    flight.work = run.launcher.submit();
    run.gpu.check(api.event_record(flight.end, run.gpu.stream()), "cuEventRecord");
  }
  // The oldest first; which one that is no longer matters for the sum.
  for (Flight& flight : flights) land(flight);
  if (told != nullptr) told->landed();
  for (Flight& flight : flights) api.event_destroy.quiet(flight.end);
}

void bursts(const Run& run, double until_s) {
  while (now_s() < until_s) {
    const double begin = now_s();
    run.log.resumed_ms.push_back((begin - run.start_s) * 1e3);
    batches(run, std::min(begin + run.load.busy_ms / 1e3, until_s));
    pace_until(std::min(now_s() + run.load.idle_ms / 1e3, until_s));
  }
}

void requests(const Run& run, double begin_s, double until_s) {
  const double period_s = run.load.period_us / 1e6;
  for (double due = begin_s; due < until_s && now_s() < until_s; due += period_s) {
    pace_until(due);
    const double sent = now_s();
    const double work = run.launcher.submit();
    run.gpu.synchronize();
    const double now = now_s();
    run.done(sent, now, work);
    run.log.requests.push_back({(due - run.start_s) * 1e3, (now - due) * 1e3});
  }
}

void run_kind(const Run& run, double begin_s, double until_s) {
  switch (run.load.kind) {
    case LoadKind::kEager:
    case LoadKind::kGraph:
    case LoadKind::kStep:
      return batches(run, until_s);
    case LoadKind::kLong:
    case LoadKind::kMixed:
      return rolling(run, until_s);
    case LoadKind::kLaunchBound:
      return batches(run, until_s, run.load.kernel_us / run.load.busy_percent * 100);
    case LoadKind::kBursty:
      return bursts(run, until_s);
    case LoadKind::kRequest:
      return requests(run, begin_s, until_s);
    case LoadKind::kIdle:
      return pace_until(until_s - kTailSeconds);
  }
}

// Device time of a microsecond of work: the median of five runs of about 50 ms.
double measure_gpu_per_work(const Gpu& gpu, const LoadSpec& load, double iters_per_us) {
  Launcher launcher(gpu, load, iters_per_us);
  const double expected_us = load.kernel_us * load.kernels;
  const double runs = std::clamp(50000.0 / std::max(expected_us, 1.0), 2.0, 200.0);
  const auto launches =
      static_cast<unsigned>(std::max<size_t>(static_cast<size_t>(runs), launcher.period()));
  std::vector<double> samples;
  samples.reserve(5);
  for (int i = 0; i < 5; ++i) {
    double work = 0;
    const double us = device_us(gpu, launches, [&] { work += launcher.submit(); });
    samples.push_back(us / work);
  }
  return percentile(samples, 500);
}

// Work of a second alone. The median of tenths of a second keeps a hiccup of the host out; loads with a rhythm
// of their own are taken over whole rounds of it.
double measure_work_rate(const LoadLog& log, const LoadSpec& load, double seconds) {
  const std::vector<double>& bins = log.progress.bins();
  if (load.kind == LoadKind::kBursty) {
    const double round = load.busy_ms + load.idle_ms;
    const double end = std::floor(seconds * 1e3 / round) * round;
    return work_between(bins, 0, end) / end * 1e3;
  }
  std::vector<double> rates;
  for (double at = 100; at + 100 <= seconds * 1e3; at += 100)
    rates.push_back(work_between(bins, at, at + 100) * 10);
  return percentile(rates, 500);
}

}  // namespace

LoadLog run_share_load(const Gpu& gpu, const LoadSpec& load, double iters_per_us, double start_s,
                       double end_s) {
  const double until_s = end_s + kTailSeconds, begin_s = start_s + load.from_s;
  LoadLog log{Progress((until_s - start_s) * 1e3), 0, {}, {}};
  if (load.kind == LoadKind::kRequest)
    log.requests.reserve(static_cast<size_t>((until_s - start_s) * 1e6 / load.period_us) + 1);
  Launcher launcher(gpu, load, iters_per_us);
  if (load.kind != LoadKind::kIdle) {  // what a first launch costs is not the run's
    for (int i = 0; i < 2 && now_s() < start_s; ++i) launcher.submit();
    gpu.synchronize();
    if (launcher.told() != nullptr) launcher.told()->landed();
  }
  const uint64_t before = launcher.launches();
  pace_until(begin_s);
  if (load.from_s > 0) log.resumed_ms.push_back(load.from_s * 1e3);
  run_kind({gpu, load, launcher, log, start_s}, begin_s, until_s);
  log.launches = launcher.launches() - before;
  return log;
}

Calibration calibrate_share_load(const Gpu& gpu, const LoadSpec& load) {
  constexpr double kWarmSeconds = 0.3, kMostUs = 2000;
  Calibration calibration;
  if (load.kind == LoadKind::kIdle) return calibration;
  const double target_us = std::min(load.kernel_us, kMostUs);
  const uint64_t iterations = calibrate_spin(gpu, target_us, kWarmSeconds);
  calibration.iters_per_us = static_cast<double>(iterations) / target_us;
  calibration.gpu_per_work = measure_gpu_per_work(gpu, load, calibration.iters_per_us);
  LoadSpec now = load;
  now.from_s = 0;
  const bool rhythm = load.kind == LoadKind::kBursty || load.kind == LoadKind::kRequest;
  const bool tail = load.kind == LoadKind::kRequest;  // a p99 wants many
  const double seconds = tail ? 4 : rhythm ? 2 : 1.1, start_s = now_s() + 0.01;
  const LoadLog log =
      run_share_load(gpu, now, calibration.iters_per_us, start_s, start_s + seconds);
  calibration.work_rate = measure_work_rate(log, load, seconds);
  std::vector<double> latencies;
  for (const LoadLog::Request& request : log.requests) latencies.push_back(request.latency_ms);
  calibration.latency = latency_figures(latencies);
  return calibration;
}

nlohmann::json latency_figures(const std::vector<double>& latencies_ms) {
  if (latencies_ms.empty()) return nullptr;
  return {{"requests", latencies_ms.size()},       {"p50", percentile(latencies_ms, 500)},
          {"p90", percentile(latencies_ms, 900)},  {"p99", percentile(latencies_ms, 990)},
          {"p999", percentile(latencies_ms, 999)}, {"max", percentile(latencies_ms, 1000)}};
}

nlohmann::ordered_json calibration_json(const Calibration& calibration) {
  return {{"iters_per_us", calibration.iters_per_us},
          {"gpu_per_work", calibration.gpu_per_work},
          {"work_rate", calibration.work_rate},
          {"busy_alone", calibration.busy_alone()},
          {"latency", calibration.latency}};
}

Calibration calibration_from_json(const nlohmann::json& json) {
  Calibration calibration;
  calibration.iters_per_us = json.at("iters_per_us");
  calibration.gpu_per_work = json.at("gpu_per_work");
  calibration.work_rate = json.at("work_rate");
  calibration.latency = json.value("latency", nlohmann::json());
  return calibration;
}

}  // namespace allot::bench
