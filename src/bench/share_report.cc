// Shares are compared in percentage points: 29.3 % granted 30 % is an error of -0.7.
//
// Which figure is judged: a load that fills the GPU alone is judged by its throughput against alone, because
// the small gaps it leaves alone it also leaves here, and they are no fault of the sharing. A load that means to
// leave the GPU idle for a good part of its time could double its throughput under the same ceiling, so it is
// judged by device time. The kind decides, not a measurement, so that a figure means the same on every machine.
#include "bench/share_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

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
    case LoadKind::kEager:
    case LoadKind::kGraph:
    case LoadKind::kLong:
    case LoadKind::kStep:
    case LoadKind::kMixed:
      return true;
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
  return saturates(run) ? rate / run.calibration.work_rate : rate * run.calibration.gpu_per_work / 1e6;
}

// The part of the whole that a slice with a share is due when all are busy; 0 when that cannot be said: a
// slice that works without a share gets what is left, one with gaps may use less than it is due.
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

// The slice's work in milliseconds of what is judged, so that a span's sum over its length is its share.
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
ordered_json slowest(std::vector<LoadLog::Request> requests) {
  constexpr size_t kNamed = 20;
  const size_t named = std::min(requests.size(), kNamed);
  std::partial_sort(requests.begin(), requests.begin() + static_cast<ptrdiff_t>(named),
                    requests.end(),
                    [](const auto& a, const auto& b) { return a.latency_ms > b.latency_ms; });
  ordered_json out = ordered_json::array();
  for (size_t i = 0; i < named; ++i) out.push_back({requests[i].due_ms, requests[i].latency_ms});
  return out;
}

void add_latency(const SliceRun& run, const Phase& phase, ordered_json& out) {
  std::vector<double> latencies;
  std::vector<LoadLog::Request> requests;
  for (const LoadLog::Request& request : run.log.requests) {
    if (request.due_ms < phase.begin_ms || request.due_ms >= phase.end_ms) continue;
    latencies.push_back(request.latency_ms);
    requests.push_back(request);
  }
  if (latencies.empty()) return;
  out["latency"] = latency_figures(latencies);
  out["latency_alone"] = run.calibration.latency;
  out["slowest"] = slowest(std::move(requests));
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
  add_latency(runs[i], phase, out);
  if (ordered_json ms = settled(runs, phase, i); phase.changed_ms >= 0) out["settled_ms"] = ms;
  if (ordered_json back = returns(runs, phase, i); !back.is_null()) out["back_from_idle"] = back;
  return out;
}

std::string cell(const ordered_json& slice, const char* field, const char* form) {
  if (!slice.contains(field) || !slice[field].is_number()) return "-";
  return fmt::format(fmt::runtime(form), slice[field].get<double>());
}

std::string percent_cell(const ordered_json& slice, const char* field) {
  if (!slice.contains(field) || !slice[field].is_number()) return "-";
  return fmt::format("{:.1f}", slice[field].get<double>() * 100);
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

ordered_json phase_json(const std::vector<SliceRun>& runs, const Phase& phase) {
  const std::vector<PhaseShare> shares = phase_shares(runs, phase);
  ordered_json out = {{"seconds", (phase.end_ms - phase.begin_ms) / 1e3},
                      {"slices", ordered_json::array()}};
  double total = 0, errors = 0, worst = 0;
  int with_error = 0;
  for (size_t i = 0; i < runs.size(); ++i) {
    ordered_json slice = slice_json(runs, phase, i, shares[i]);
    total += shares[i].achieved;
    if (slice.contains("share_error_points")) {
      errors += std::fabs(slice["share_error_points"].get<double>());
      worst = std::max(worst, slice["share_worst_second_points"].get<double>());
      ++with_error;
    }
    out["slices"].push_back(std::move(slice));
  }
  out["total_achieved"] = total;
  if (with_error > 0) {
    out["share_error_mean_points"] = std::round(errors / with_error * 100) / 100;
    out["share_worst_second_points"] = worst;
  }
  return out;
}

std::string phases_text(const ordered_json& result) {
  std::string text =
      fmt::format("{:<6}{:<7}{:<13}{:>7}{:>7}{:>10}{:>9}{:>10}{:>8}{:>14}{:>9}{:>9}\n", "PHASE",
                  "SLICE", "LOAD", "SHARE%", "MAX%", "ACHIEVED%", "GPU%", "OF-TOTAL%", "ERROR",
                  "WORST-SECOND", "P50-MS", "P99-MS");
  int number = 0;
  for (const ordered_json& phase : result["phases"]) {
    int which = 0;
    for (const ordered_json& slice : phase["slices"]) {
      const bool max = slice.contains("max_error_points");
      const ordered_json latency = slice.value("latency", ordered_json::object());
      text += fmt::format(
          "{:<6}{:<7}{:<13}{:>7}{:>7}{:>10}{:>9}{:>10}{:>8}{:>14}{:>9}{:>9}\n", number, which++,
          slice["load"].get<std::string>(), cell(slice, "share", "{:.1f}"),
          cell(slice, "max", "{:.1f}"), percent_cell(slice, "achieved"),
          percent_cell(slice, "gpu_time"), percent_cell(slice, "share_of_total"),
          cell(slice, max ? "max_error_points" : "share_error_points", "{:+.2f}"),
          cell(slice, max ? "max_worst_second_points" : "share_worst_second_points", "{:.2f}"),
          cell(latency, "p50", "{:.3f}"), cell(latency, "p99", "{:.3f}"));
    }
    text += fmt::format("{:<6}all{:<50}{:>.1f} % of alone in sum\n", number++, "",
                        phase["total_achieved"].get<double>() * 100);
  }
  return text;
}

}  // namespace allot::bench
