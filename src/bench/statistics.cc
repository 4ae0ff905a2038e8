// Arithmetic of statistics.h. Pure: nothing here reads a clock.
#include "bench/statistics.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace allot::bench {

double percentile(std::vector<double> samples, unsigned permille) {
  if (samples.empty()) return 0;
  const size_t count = samples.size();
  // Nearest rank: the smallest sample that at least permille/1000 of all samples do not exceed.
  const size_t rank = (count * std::min(permille, 1000u) + 999) / 1000;
  const auto nth = samples.begin() + static_cast<ptrdiff_t>(rank == 0 ? 0 : rank - 1);
  std::nth_element(samples.begin(), nth, samples.end());
  return *nth;
}

double median_difference(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> differences;
  const size_t pairs = std::min(a.size(), b.size());
  differences.reserve(pairs);
  for (size_t i = 0; i < pairs; ++i) differences.push_back(b[i] - a[i]);
  return percentile(std::move(differences), 500);
}

void PerSecond::put(uint64_t second, double work) {
  if (seconds_.size() <= second) seconds_.resize(second + 1, 0.0);
  seconds_[second] += work;
}

void PerSecond::add(double from_s, double to_s, double work) {
  if (!(to_s >= 0)) return;
  if (!(from_s >= 0) || from_s >= to_s) {
    put(static_cast<uint64_t>(to_s), work);
    return;
  }
  const double rate = work / (to_s - from_s);
  for (double at = from_s; at < to_s;) {
    const double end = std::min(std::floor(at) + 1, to_s);
    put(static_cast<uint64_t>(at), rate * (end - at));
    at = end;
  }
}

std::vector<double> PerSecond::full_seconds(double wall_s) const {
  const size_t full = wall_s > 0 ? static_cast<size_t>(wall_s) : 0;
  std::vector<double> result(
      seconds_.begin(), seconds_.begin() + static_cast<ptrdiff_t>(std::min(full, seconds_.size())));
  result.resize(full, 0.0);
  return result;
}

}  // namespace allot::bench
