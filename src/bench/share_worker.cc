// Nothing is printed between "go" and the end of the run.
#include "bench/share_worker.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "bench/share_load.h"

namespace allot::bench {
namespace {

using nlohmann::ordered_json;

void say(const ordered_json& line) {
  fmt::print("{}\n", line.dump());
  std::fflush(stdout);
}

// As `allot run --gpu` takes it. Empty for a MIG instance, of which a process sees but one.
std::string uuid_of(const Gpu& gpu) {
  CUuuid uuid{};
  if (gpu.name().find(" MIG ") != std::string::npos) return "";
  if (gpu.api().device_uuid.quiet(&uuid, gpu.device()) != CUDA_SUCCESS) return "";
  char text[48];
  return std::string(TextBuf(text, sizeof(text)).text("GPU-").uuid(uuid.bytes).view());
}

ordered_json about(const Gpu& gpu) {
  char pci[64] = "";
  if (gpu.api().device_pci) gpu.api().device_pci(pci, sizeof pci, gpu.device());
  return {{"pid", getpid()},
          {"gpu", gpu.name()},
          {"driver", gpu.driver_version()},
          {"pci", std::string(pci)},
          {"uuid", uuid_of(gpu)}};
}

// Bins as numbers of microseconds: thousands of doubles in full would be most of the time of the
// parent.
ordered_json bins_json(const Progress& progress) {
  ordered_json bins = ordered_json::array();
  for (const double work : progress.bins()) bins.push_back(std::llround(work * 10));
  return bins;
}

ordered_json log_json(const LoadLog& log) {
  ordered_json operations = ordered_json::array();
  for (const LoadLog::Operation& operation : log.operations)
    operations.push_back(
        {std::llround(operation.began_ms * 1e3), std::llround(operation.took_ms * 1e3)});
  return {{"launches", log.launches},
          {"tenths_of_us", bins_json(log.progress)},
          {"operations_us", operations},
          {"resumed_ms", log.resumed_ms}};
}

bool read_go(double* start_s, double* end_s) {
  char line[128];
  unsigned long long start_ns = 0, end_ns = 0;
  if (std::fgets(line, sizeof line, stdin) == nullptr) return false;
  if (std::sscanf(line, "go %llu %llu", &start_ns, &end_ns) != 2 || end_ns <= start_ns) {
    throw Failure(1, "share-worker: not a line of 'allot bench share'");
  }
  *start_s = static_cast<double>(start_ns) / 1e9;
  *end_s = static_cast<double>(end_ns) / 1e9;
  return true;
}

}  // namespace

void run_share_worker(const WorkerOptions& options) {
  const nlohmann::json given = nlohmann::json::parse(options.load, nullptr, false);
  if (given.is_discarded()) throw Failure(2, "share-worker: --load is no JSON");
  const LoadSpec load = load_from_json(given);
  const Gpu gpu(options.gpu);
  ordered_json first = about(gpu);
  if (options.calibrate) {
    first["calibration"] = calibration_json(calibrate_share_load(gpu, load));
    return say(first);
  }
  gpu.launch_spin(1);
  gpu.synchronize();
  first["ready"] = true;
  say(first);
  double start_s = 0, end_s = 0;
  if (!read_go(&start_s, &end_s)) return;
  say(log_json(run_share_load(gpu, load, options.iters_per_us, start_s, end_s)));
}

}  // namespace allot::bench
