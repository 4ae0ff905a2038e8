// What a load does alone: device time of its work, work of a second, waits.
#include <algorithm>
#include <cmath>

#include "bench/launcher.h"
#include "bench/share_load.h"
#include "bench/statistics.h"

namespace allot::bench {
namespace {

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

// Work of a second alone. The median of tenths of a second keeps a hiccup of the host out; loads
// with a rhythm of their own are taken over whole rounds of it.
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

Calibration calibrate_share_load(const Gpu& gpu, const LoadSpec& load) {
  // A short kernel is calibrated by a longer one: its launch would be most of what is measured.
  constexpr double kWarmSeconds = 0.3, kLeastUs = 1000, kMostUs = 2000;
  Calibration calibration;
  if (load.kind == LoadKind::kIdle) return calibration;
  const double target_us = std::clamp(load.kernel_us, kLeastUs, kMostUs);
  const uint64_t iterations = calibrate_spin(gpu, target_us, kWarmSeconds);
  calibration.iters_per_us = static_cast<double>(iterations) / target_us;
  calibration.gpu_per_work = measure_gpu_per_work(gpu, load, calibration.iters_per_us);
  if (load.kernels >
      1) {  // a graph takes as long as its kernels are said to, the gaps between them included
    calibration.iters_per_us /= std::clamp(calibration.gpu_per_work, 1.0, 3.0);
    calibration.gpu_per_work = measure_gpu_per_work(gpu, load, calibration.iters_per_us);
  }
  LoadSpec now = load;
  now.from_s = 0;
  const bool rhythm = load.kind == LoadKind::kBursty || load.kind == LoadKind::kRequest;
  const bool tail = load.kind == LoadKind::kRequest;  // a p99 wants many
  const double seconds = tail ? 4 : rhythm ? 2 : 1.1, start_s = now_s() + 0.01;
  const LoadLog log =
      run_share_load(gpu, now, calibration.iters_per_us, start_s, start_s + seconds);
  calibration.work_rate = measure_work_rate(log, load, seconds);
  std::vector<double> waits;
  waits.reserve(log.operations.size());
  for (const LoadLog::Operation& operation : log.operations) waits.push_back(operation.took_ms);
  calibration.waits = wait_figures(waits);
  return calibration;
}

nlohmann::json wait_figures(const std::vector<double>& waits_ms) {
  if (waits_ms.empty()) return nullptr;
  return {{"count", waits_ms.size()},          {"p50", percentile(waits_ms, 500)},
          {"p90", percentile(waits_ms, 900)},  {"p99", percentile(waits_ms, 990)},
          {"p999", percentile(waits_ms, 999)}, {"max", percentile(waits_ms, 1000)}};
}

nlohmann::ordered_json calibration_json(const Calibration& calibration) {
  return {{"iters_per_us", calibration.iters_per_us},
          {"gpu_per_work", calibration.gpu_per_work},
          {"work_rate", calibration.work_rate},
          {"busy_alone", calibration.busy_alone()},
          {"waits", calibration.waits}};
}

Calibration calibration_from_json(const nlohmann::json& json) {
  Calibration calibration;
  calibration.iters_per_us = json.at("iters_per_us");
  calibration.gpu_per_work = json.at("gpu_per_work");
  calibration.work_rate = json.at("work_rate");
  calibration.waits = json.value("waits", nlohmann::json());
  return calibration;
}

}  // namespace allot::bench
