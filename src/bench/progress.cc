// Sums over bins of a millisecond.
#include "bench/progress.h"

#include <algorithm>
#include <cmath>

namespace allot::bench {

void Progress::add(double from_ms, double to_ms, double work) {
  const double end = static_cast<double>(bins_.size());
  if (!(to_ms >= 0) || !(work > 0)) return;
  if (!(to_ms > from_ms)) {
    if (to_ms < end) bins_[static_cast<size_t>(to_ms)] += work;
    return;
  }
  const double rate = work / (to_ms - from_ms);
  for (double at = std::max(from_ms, 0.0); at < std::min(to_ms, end);) {
    const double next = std::min({std::floor(at) + 1, to_ms, end});
    bins_[static_cast<size_t>(at)] += rate * (next - at);
    at = next;
  }
}

double work_between(const std::vector<double>& bins, double from_ms, double to_ms) {
  const double end = std::min(to_ms, static_cast<double>(bins.size()));
  double sum = 0;
  for (double at = std::max(from_ms, 0.0); at < end;) {
    const double next = std::min(std::floor(at) + 1, end);
    sum += bins[static_cast<size_t>(at)] * (next - at);
    at = next;
  }
  return sum;
}

namespace {

bool holds(const std::vector<double>& mine, const std::vector<std::vector<double>>& all,
           const Reached& what, double from) {
  const double to = from + what.span_ms;
  double whole = all.empty() ? what.span_ms : 0;
  for (const std::vector<double>& bins : all) whole += work_between(bins, from, to);
  if (!(whole > 0)) return false;
  const double share = work_between(mine, from, to) / whole;
  const bool high_enough = share >= what.target - what.tolerance;
  return high_enough && (what.at_least || share <= what.target + what.tolerance);
}

}  // namespace

double reached_ms(const std::vector<double>& mine, const std::vector<std::vector<double>>& all,
                  const Reached& what) {
  for (double t = 0; t <= what.limit_ms; ++t) {
    bool held = true;
    for (int i = 0; i < what.spans && held; ++i)
      held = holds(mine, all, what, what.at_ms + t + i * what.span_ms);
    if (held) return t;
  }
  return -1;
}

}  // namespace allot::bench
