// The figures of `bench hooks` in Google Benchmark form (allot-hooks-benchmark).
//
// Runs under the shim: on the software GPU in `./dev bench`, on a card in `./dev gpu-check`. One
// iteration is one pair of batches, hooked and unhooked; its time is the hooked batch's, and the
// counters hooked_ns, real_ns and added_ns (median of paired differences) are what to read.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench/hooks.h"
#include "bench/statistics.h"

namespace allot::bench {
namespace {

using Batch = std::function<double(HookBench&, const DriverApi&, unsigned)>;

void run_pairs(benchmark::State& state, HookBench& bench, uint64_t live, unsigned calls,
               const Batch& batch) {
  bench.set_live_blocks(live);
  std::vector<double> with, without;
  bool hooked_first = false;
  for (auto _ : state) {
    double hooked_ns = 0, real_ns = 0;
    hooked_first = !hooked_first;
    if (hooked_first) hooked_ns = batch(bench, bench.hooked(), calls);
    real_ns = batch(bench, bench.unhooked(), calls);
    if (!hooked_first) hooked_ns = batch(bench, bench.hooked(), calls);
    state.SetIterationTime(hooked_ns * calls / 1e9);
    with.push_back(hooked_ns);
    without.push_back(real_ns);
  }
  state.counters["added_ns"] = median_difference(without, with);
  state.counters["hooked_ns"] = percentile(with, 500);
  state.counters["real_ns"] = percentile(without, 500);
  state.counters["live_blocks"] = static_cast<double>(live);
  state.SetItemsProcessed(static_cast<int64_t>(with.size()) * calls);
}

void add(const std::string& name, HookBench& bench, uint64_t live, unsigned calls, Batch batch) {
  benchmark::RegisterBenchmark(name.c_str(),
                               [&bench, live, calls, batch](benchmark::State& state) {
                                 run_pairs(state, bench, live, calls, batch);
                               })
      ->UseManualTime()
      ->Iterations(401);
}

void add_all(HookBench& bench) {
  add("launch", bench, 10, 200, [](HookBench& b, const DriverApi& api, unsigned calls) {
    return b.launch_batch(api, calls);
  });
  add("cuGetProcAddress", bench, 10, 1000, [](HookBench& b, const DriverApi& api, unsigned calls) {
    return b.symbol_batch(api, calls);
  });
  for (const uint64_t live : {uint64_t{10}, uint64_t{1000}, uint64_t{100000}}) {
    const std::string suffix = "/live:" + std::to_string(live);
    add("alloc_free_4k" + suffix, bench, live, 100,
        [](HookBench& b, const DriverApi& api, unsigned calls) {
          const HookBench::AllocFree batch = b.alloc_free_batch(api, calls, 4096);
          return batch.alloc_ns + batch.free_ns;
        });
    add("alloc_4k" + suffix, bench, live, 100,
        [](HookBench& b, const DriverApi& api, unsigned calls) {
          return b.alloc_free_batch(api, calls, 4096).alloc_ns;
        });
    add("free_4k" + suffix, bench, live, 100,
        [](HookBench& b, const DriverApi& api, unsigned calls) {
          return b.alloc_free_batch(api, calls, 4096).free_ns;
        });
    add("churn" + suffix, bench, live, 100, [](HookBench& b, const DriverApi& api, unsigned calls) {
      return b.churn_batch(api, calls);
    });
    add("memory_query" + suffix, bench, live, 100,
        [](HookBench& b, const DriverApi& api, unsigned calls) {
          return b.query_batch(api, calls);
        });
  }
}

}  // namespace
}  // namespace allot::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  try {
    allot::bench::HookBench bench(0);
    benchmark::AddCustomContext("gpu", bench.gpu().name());
    benchmark::AddCustomContext("driver", std::to_string(bench.gpu().driver_version()));
    benchmark::AddCustomContext("real_driver", bench.real_path());
    allot::bench::add_all(bench);
    benchmark::RunSpecifiedBenchmarks();
  } catch (const allot::Failure& failure) {
    std::fprintf(stderr, "allot-hooks-benchmark: %s\n", failure.what());
    return failure.exit_status();
  }
  benchmark::Shutdown();
  return 0;
}
