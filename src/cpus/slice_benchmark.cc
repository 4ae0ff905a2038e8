// What the parts of a CPU slice cost by themselves.
//
//   cpus_benchmark --benchmark_repetitions=5 --benchmark_report_aggregates_only=true
//
// A whole start against taskset's is tests/cpus/start_cost.py: two programs that take turns say
// more than two loops after each other. Without rights to make cpusets, Place measures affinity
// alone.
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "cpus/cpu_words.h"
#include "cpus/placement.h"
#include "cpus/watch.h"

namespace {

using namespace allot::cpus;

// A folder for leases, gone at the end.
struct Folder {
  Folder() {
    char name[] = "/tmp/allot-cpus-bench-XXXXXX";
    if (const char* made = mkdtemp(name)) path = made;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string path;
};

PlacementRequest request_in(const Folder& folder, bool use_cpuset) {
  const CpuSet allowed = cpus_within_cpuset().value_or(CpuSet{0});
  return {.name = "bench",
          .cpus = to_list(CpuSet{allowed.last()}),
          .is_list = true,
          .any_cpu = true,
          .folder = folder.path,
          .use_cpuset = use_cpuset};
}

// Topology, ledger, choice, group, lease, and all of it given back: what run does around fork.
void Place(benchmark::State& state) {
  const Folder folder;
  const PlacementRequest request = request_in(folder, state.range(0) != 0);
  Level level = Level::kNone;
  for (auto _ : state) {
    Expected<Placement> placement = place(request);
    if (!placement) {
      state.SkipWithError(placement.error().text.c_str());
      return;
    }
    level = placement->planned;
    release(&*placement);
  }
  state.SetLabel(std::string(level_name(level)));
}
BENCHMARK(Place)->ArgName("cpuset")->Arg(0)->Arg(1)->UseRealTime()->Unit(benchmark::kMicrosecond);

// The reading of /sys, most of what a run spends in user mode.
void ReadTopology(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(read_topology(FsRoot{}));
}
BENCHMARK(ReadTopology)->Unit(benchmark::kMicrosecond);

Topology large_machine() {
  Topology machine;
  machine.cpus.resize(256);
  machine.domains.resize(16);
  for (int i = 0; i < 128; ++i) {
    const int package = i / 64, domain = i / 8;
    machine.cores.push_back({{i, i + 128}, package, domain, package});
    for (int cpu : {i, i + 128}) {
      machine.cpus[static_cast<size_t>(cpu)] = {cpu, true, package, i, domain, package};
      machine.online.add(cpu);
    }
    Domain& cache = machine.domains[static_cast<size_t>(domain)];
    cache.cpus |= machine.cores.back().threads;
    cache.package = cache.node = package;
  }
  machine.present = machine.possible = machine.allowed = machine.online;
  return machine;
}

// Sixteen CPUs of 256 on 16 caches.
void Choose(benchmark::State& state) {
  const Topology machine = large_machine();
  const PlacementRequest request{.cpus = "16"};
  for (auto _ : state) benchmark::DoNotOptimize(choose(machine, machine.allowed, {}, request));
}
BENCHMARK(Choose)->Unit(benchmark::kMicrosecond);

// One look of the watcher at one slice.
void Look(benchmark::State& state) {
  const Folder folder;
  Expected<Placement> placement = place(request_in(folder, true));
  if (!placement) {
    state.SkipWithError(placement.error().text.c_str());
    return;
  }
  set_member(&*placement, getpid());
  Watcher watcher({.folder = folder.path, .dry_run = true});
  double now_s = 0;
  for (auto _ : state) benchmark::DoNotOptimize(watcher.look(now_s += 0.2));
  release(&*placement);
}
BENCHMARK(Look)->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace

BENCHMARK_MAIN();
