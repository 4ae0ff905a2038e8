// Shares are compared in percentage points: 29.3 % granted 30 % is an error of -0.7.
//
// Which figure is judged: a load that fills the GPU alone is judged by its throughput against
// alone, because the small gaps it leaves alone it also leaves here, and they are no fault of the
// sharing. A load that means to leave the GPU idle for a good part of its time could double its
// throughput under the same ceiling, so it is judged by device time. The kind decides, not a
// measurement, so that a figure means the same on every machine.
#include "bench/share_report.h"

#include <algorithm>
#include <cmath>

#include "bench/share_judge.h"
#include "bench/statistics.h"

namespace allot::bench {
namespace {

using nlohmann::ordered_json;

double per_second(const SliceRun& run, double from_ms, double to_ms) {
  return work_between(run.log.progress.bins(), from_ms, to_ms) / (to_ms - from_ms) * 1e3;
}

// Keeps the GPU busy, or waits for every step: due all of its share.
bool saturates(const SliceRun& run) {
  switch (run.spec.load.kind) {
    case LoadKind::kFull:
    case LoadKind::kGraph:
    case LoadKind::kLong:
    case LoadKind::kStep:
    case LoadKind::kMixed:
      return true;
    case LoadKind::kWait:
    case LoadKind::kLaunchBound:
    case LoadKind::kBursty:
    case LoadKind::kRequest:
    case LoadKind::kIdle:
      return false;
  }
  return false;
}

double judged(const SliceRun& run, double rate) {
  if (run.spec.load.kind == LoadKind::kIdle) return 0;
  return saturates(run) ? rate / run.calibration.work_rate
                        : rate * run.calibration.gpu_per_work / 1e6;
}

// The part of the whole that a slice with a share is due when all are busy; 0 when that cannot be
// said: a slice that works without a share gets what is left, one with gaps may use less than it is
// due.
double due_of(const std::vector<SliceRun>& runs, const Phase& phase, size_t which) {
  double sum = 0;
  for (size_t i = 0; i < runs.size(); ++i) {
    if (runs[i].spec.load.kind == LoadKind::kIdle) continue;
    const Grant& grant = phase.grants[i];
    if (!saturates(runs[i]) || grant.share_permille == 0 || grant.max_permille != 0) return 0;
    sum += grant.share_permille;
  }
  return sum > 0 ? phase.grants[which].share_permille / sum : 0;
}

double points(double fraction) {
  return std::round(fraction * 1e4) / 100;
}

double worst_points(const std::vector<double>& seconds, double due, bool only_above) {
  double worst = 0;
  for (const double second : seconds) {
    const double error = only_above ? std::max(0.0, second - due) : std::fabs(second - due);
    worst = std::max(worst, error);
  }
  return points(worst);
}

ordered_json percent_json(uint32_t permille) {
  return permille == 0 ? ordered_json(nullptr) : ordered_json(permille / 10.0);
}

// The slice's work in milliseconds of what is judged, so that a span's sum over its length is its
// share.
std::vector<double> judged_bins(const SliceRun& run) {
  std::vector<double> bins = run.log.progress.bins();
  for (double& bin : bins)
    bin = judged(run, bin * 1e3);  // work a second -> share of this millisecond
  return bins;
}

std::vector<std::vector<double>> all_judged_bins(const std::vector<SliceRun>& runs) {
  std::vector<std::vector<double>> all;
  all.reserve(runs.size());
  for (const SliceRun& run : runs) all.push_back(judged_bins(run));
  return all;
}

// How long after a change of grants a slice is where it ought to be.
ordered_json settled(const std::vector<SliceRun>& runs, const Phase& phase, size_t i) {
  if (phase.changed_ms < 0) return nullptr;
  const double due = due_of(runs, phase, i);
  const bool ceiling = phase.grants[i].max_permille != 0;
  if (due <= 0 && !ceiling) return nullptr;
  Reached what;
  what.at_ms = phase.changed_ms;
  what.span_ms = 200;
  what.spans = 2;
  what.target = ceiling ? phase.grants[i].max_permille / 1000.0 : due;
  const double ms =
      reached_ms(judged_bins(runs[i]),
                 ceiling ? std::vector<std::vector<double>>{} : all_judged_bins(runs), what);
  return ms < 0 ? ordered_json(nullptr) : ordered_json(ms);
}

// How long after each return from idling the slice has its share, over 50 ms each.
ordered_json returns(const std::vector<SliceRun>& runs, const Phase& phase, size_t i) {
  const uint32_t share = phase.grants[i].share_permille;
  ordered_json each = ordered_json::array();
  if (share == 0 || runs[i].log.resumed_ms.empty()) return nullptr;
  const std::vector<double> mine = judged_bins(runs[i]);
  const std::vector<std::vector<double>> all = all_judged_bins(runs);
  std::vector<double> times;
  for (const double at : runs[i].log.resumed_ms) {
    if (at < phase.begin_ms || at + 300 > phase.end_ms) continue;
    Reached what;
    what.at_ms = at;
    what.span_ms = 50;
    what.target = share / 1000.0;
    what.limit_ms = 250;
    what.at_least = true;
    const double ms = reached_ms(mine, all, what);
    times.push_back(ms < 0 ? 1e3 : ms);
    each.push_back(ms < 0 ? ordered_json(nullptr) : ordered_json(ms));
  }
  if (times.empty()) return nullptr;
  return {
      {"median_ms", percentile(times, 500)}, {"max_ms", percentile(times, 1000)}, {"each", each}};
}

std::vector<double> rounded(std::vector<double> values) {
  for (double& value : values) value = std::round(value * 1e4) / 1e4;
  return values;
}

// When the slowest came tells a burst of the machine from a tail of its own.
ordered_json slowest(std::vector<LoadLog::Operation> operations) {
  constexpr size_t kNamed = 20;
  const size_t named = std::min(operations.size(), kNamed);
  std::partial_sort(operations.begin(), operations.begin() + static_cast<ptrdiff_t>(named),
                    operations.end(),
                    [](const auto& a, const auto& b) { return a.took_ms > b.took_ms; });
  ordered_json out = ordered_json::array();
  for (size_t i = 0; i < named; ++i) out.push_back({operations[i].began_ms, operations[i].took_ms});
  return out;
}

std::vector<LoadLog::Operation> operations_of(const SliceRun& run, const Phase& phase) {
  std::vector<LoadLog::Operation> of_phase;
  for (const LoadLog::Operation& operation : run.log.operations) {
    if (operation.began_ms >= phase.begin_ms && operation.began_ms < phase.end_ms)
      of_phase.push_back(operation);
  }
  return of_phase;
}

nlohmann::json waits_of(const SliceRun& run, const Phase& phase) {
  std::vector<double> waits;
  for (const LoadLog::Operation& operation : operations_of(run, phase))
    waits.push_back(operation.took_ms);
  return wait_figures(waits);
}

std::vector<Had> all_had(const std::vector<SliceRun>& runs, const Phase& phase,
                         const std::vector<PhaseShare>& shares) {
  std::vector<Had> all;
  for (size_t i = 0; i < runs.size(); ++i) {
    const SliceSpec& spec = runs[i].spec;
    Had had;
    had.load = spec.load;
    had.grant = phase.grants[i];
    had.priority = spec.priority;
    had.latency_ms = spec.latency_ms;
    had.alone = runs[i].calibration;
    had.progress = shares[i].achieved;
    had.gpu_time = shares[i].gpu_time;
    had.works = spec.load.from_s * 1e3 <= phase.begin_ms;
    had.waits = waits_of(runs[i], phase);
    all.push_back(std::move(had));
  }
  return all;
}

ordered_json slice_json(const std::vector<SliceRun>& runs, const Phase& phase, size_t i,
                        const PhaseShare& got) {
  const Grant& grant = phase.grants[i];
  ordered_json out = {{"load", kind_name(runs[i].spec.load.kind)},
                      {"share", percent_json(grant.share_permille)},
                      {"max", percent_json(grant.max_permille)},
                      {"achieved", got.achieved},
                      {"gpu_time", got.gpu_time},
                      {"judged", got.judged},
                      {"share_of_total", got.of_total},
                      {"per_second", rounded(got.judged_per_second)},
                      {"share_per_second", rounded(got.of_total_per_second)}};
  if (const double due = due_of(runs, phase, i); due > 0) {
    out["due"] = due;
    out["share_error_points"] = points(got.of_total - due);
    out["share_worst_second_points"] = worst_points(got.of_total_per_second, due, false);
  }
  if (grant.max_permille != 0) {
    const double max = grant.max_permille / 1000.0;
    out["max_error_points"] = points(got.judged - max);
    out["max_worst_second_points"] = worst_points(got.judged_per_second, max, false);
    out["max_passed_points"] = worst_points(got.judged_per_second, max, true);
  }
  out["waits"] = waits_of(runs[i], phase);
  out["waits_alone"] = runs[i].calibration.waits;
  out["slowest"] = slowest(operations_of(runs[i], phase));
  if (ordered_json ms = settled(runs, phase, i); phase.changed_ms >= 0) out["settled_ms"] = ms;
  if (ordered_json back = returns(runs, phase, i); !back.is_null()) out["back_from_idle"] = back;
  return out;
}

}  // namespace

std::vector<PhaseShare> phase_shares(const std::vector<SliceRun>& runs, const Phase& phase) {
  std::vector<PhaseShare> shares(runs.size());
  const double length_ms = phase.end_ms - phase.begin_ms;
  if (!(length_ms > 0)) return shares;
  double sum = 0;
  for (size_t i = 0; i < runs.size(); ++i) {
    const double rate = per_second(runs[i], phase.begin_ms, phase.end_ms);
    shares[i].achieved =
        runs[i].spec.load.kind == LoadKind::kIdle ? 0 : rate / runs[i].calibration.work_rate;
    shares[i].gpu_time = rate * runs[i].calibration.gpu_per_work / 1e6;
    shares[i].judged = judged(runs[i], rate);
    sum += shares[i].judged;
  }
  for (double at = phase.begin_ms; at + 1000 <= phase.end_ms + 0.5; at += 1000) {
    double second_sum = 0;
    for (size_t i = 0; i < runs.size(); ++i) {
      shares[i].judged_per_second.push_back(judged(runs[i], per_second(runs[i], at, at + 1000)));
      second_sum += shares[i].judged_per_second.back();
    }
    for (PhaseShare& share : shares) {
      const double mine = share.judged_per_second.back();
      share.of_total_per_second.push_back(second_sum > 0 ? mine / second_sum : 0);
    }
  }
  for (PhaseShare& share : shares) share.of_total = sum > 0 ? share.judged / sum : 0;
  return shares;
}

ordered_json phase_json(const std::vector<SliceRun>& runs, const Phase& phase, double points) {
  const std::vector<PhaseShare> shares = phase_shares(runs, phase);
  const std::vector<Had> had = all_had(runs, phase, shares);
  ordered_json out = {{"seconds", (phase.end_ms - phase.begin_ms) / 1e3},
                      {"slices", ordered_json::array()}};
  double total = 0, errors = 0, worst = 0;
  int with_error = 0;
  bool all_kept = true;
  for (size_t i = 0; i < runs.size(); ++i) {
    ordered_json slice = slice_json(runs, phase, i, shares[i]);
    const std::vector<Promise> promised = promises(had, i, points);
    slice["promises"] = promises_json(promised);
    all_kept = all_kept && std::all_of(promised.begin(), promised.end(),
                                       [](const Promise& promise) { return promise.kept(); });
    total += shares[i].achieved;
    if (slice.contains("share_error_points")) {
      errors += std::fabs(slice["share_error_points"].get<double>());
      worst = std::max(worst, slice["share_worst_second_points"].get<double>());
      ++with_error;
    }
    out["slices"].push_back(std::move(slice));
  }
  out["total_achieved"] = total;
  out["promises_kept"] = all_kept;
  if (with_error > 0) {
    out["share_error_mean_points"] = std::round(errors / with_error * 100) / 100;
    out["share_worst_second_points"] = worst;
  }
  return out;
}

void add_native(const ordered_json& native, ordered_json* phase) {
  double total = 0;
  for (size_t i = 0; i < (*phase)["slices"].size(); ++i) {
    const ordered_json& was = native["slices"][i];
    (*phase)["slices"][i]["native"] = {
        {"achieved", was["achieved"]}, {"gpu_time", was["gpu_time"]}, {"waits", was["waits"]}};
    total += was["achieved"].get<double>();
  }
  (*phase)["native_total_achieved"] = total;
}

}  // namespace allot::bench
