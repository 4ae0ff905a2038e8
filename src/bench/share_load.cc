// The loops of the loads. What must not happen in them: output, and waiting for anything but the
// GPU or the load's own clock.
#include "bench/share_load.h"

#include <algorithm>
#include <cmath>
#include <thread>

#include "bench/launcher.h"
#include "bench/pace.h"

namespace allot::bench {
namespace {

constexpr double kTailSeconds = 0.2;

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
  void waited(double from_s, double to_s) const {
    log.operations.push_back({(from_s - start_s) * 1e3, (to_s - from_s) * 1e3});
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
    run.waited(begin, now);
    begin = now;
  }
}

// A kernel, a wait, host work. Its work counts as done over the whole of it, as it does alone.
void waits(const Run& run, double until_s) {
  for (double begin = now_s(); begin < until_s;) {
    const double work = run.launcher.submit();
    run.gpu.synchronize();
    const double ended = now_s();
    run.waited(begin, ended);
    pace_until(ended + run.load.host_us / 1e6);
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
    double began_s = 0;
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
    run.waited(flight.began_s, now);
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
    flight.began_s = now_s();
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

// Of the moments that passed while a request ran, the last one's request is sent at once and the
// others are left out: a backlog would say how long the overload has lasted, and nothing of the
// waits.
void requests(const Run& run, double begin_s, double until_s) {
  const double period_s = run.load.period_us / 1e6;
  for (double due = begin_s; due < until_s && now_s() < until_s; due += period_s) {
    const double late = std::floor((now_s() - due) / period_s);
    if (late > 0) due += late * period_s;
    pace_until(due);
    const double sent = now_s();
    const double work = run.launcher.submit();
    run.gpu.synchronize();
    const double now = now_s();
    run.done(sent, now, work);
    run.waited(due, now);
  }
}

void run_kind(const Run& run, double begin_s, double until_s) {
  switch (run.load.kind) {
    case LoadKind::kFull:
    case LoadKind::kGraph:
    case LoadKind::kStep:
      return batches(run, until_s);
    case LoadKind::kLong:
    case LoadKind::kMixed:
      return rolling(run, until_s);
    case LoadKind::kLaunchBound:
      return batches(run, until_s, run.load.kernel_us / run.load.busy_percent * 100);
    case LoadKind::kWait:
      return waits(run, until_s);
    case LoadKind::kBursty:
      return bursts(run, until_s);
    case LoadKind::kRequest:
      return requests(run, begin_s, until_s);
    case LoadKind::kIdle:
      return pace_until(until_s - kTailSeconds);
  }
}

// The least time between the beginnings of two operations, for room in the log.
double least_us(const LoadSpec& load) {
  if (load.kind == LoadKind::kIdle) return 1e6;
  if (load.kind == LoadKind::kRequest) return load.period_us;
  if (load.kind == LoadKind::kMixed) return 20;
  const double launch_us = std::max(load.kernel_us * load.kernels / 2, 2.0);
  return load.kind == LoadKind::kLong ? launch_us : launch_us * load.inflight;
}

}  // namespace

LoadLog run_share_load(const Gpu& gpu, const LoadSpec& load, double iters_per_us, double start_s,
                       double end_s) {
  const double until_s = end_s + kTailSeconds, begin_s = start_s + load.from_s;
  LoadLog log{Progress((until_s - start_s) * 1e3), 0, {}, {}};
  log.operations.reserve(static_cast<size_t>((until_s - start_s) * 1e6 / least_us(load)) + 16);
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

}  // namespace allot::bench
