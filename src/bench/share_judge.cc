// The rules of share_judge.h. Where a rule needs a figure of the card, it stands here with its
// source.
#include "bench/share_judge.h"

#include <algorithm>
#include <cmath>

namespace allot::bench {
namespace {

constexpr double kPeriodMs = 20;  // of windows, unless a slice asks for other stops
constexpr double kShortMs = 5;    // operations above are work in bulk, of which no stop is noticed
constexpr double kSlackMs = 2;    // an operation's own time and the edges of windows
constexpr double kUntouched =
    97;  // percent of alone, of a slice that nobody and nothing should disturb

// A change to another context costs the GPU up to 0.15 ms, and work that comes alone causes two.
constexpr double kSwitchesMs = 0.3;
// A request that is served at once waits for one change of contexts: at the median 0.23 ms more
// than alone, at p99 0.35 (measured with a high priority on an H100 and an H200).
constexpr double kFirstP50Ms = 0.23, kFirstP99Ms = 0.35;

double figure(const nlohmann::json& waits, const char* name) {
  return waits.is_object() ? waits.value(name, 0.0) : 0.0;
}

// Part of the GPU that a load takes which is given all it asks for beside others.
double use_with_switches(const Had& had) {
  const double waited_a_second = had.load.kind == LoadKind::kRequest ? 1e6 / had.load.period_us : 0;
  return had.alone.busy_alone() + waited_a_second * kSwitchesMs / 1e3;
}

double share_of(const Had& had) {
  return had.grant.share_permille / 1000.0;
}

// Part of its progress alone at which it reaches its ceiling; 1 where it does not.
double progress_at_ceiling(const Had& had) {
  const double busy = had.alone.busy_alone();
  if (had.grant.max_permille == 0 || busy <= 0) return 1;
  return std::min(1.0, had.grant.max_permille / 1000.0 / busy);
}

bool alone_on_gpu(const std::vector<Had>& all, size_t which) {
  for (size_t i = 0; i < all.size(); ++i) {
    if (i != which && all[i].load.kind != LoadKind::kIdle) return false;
  }
  return true;
}

// Small requests that fit the slice's share go first.
bool goes_first(const Had& had) {
  return had.load.kind == LoadKind::kRequest && had.priority != "low" &&
         had.grant.share_permille != 0 && progress_at_ceiling(had) >= 1 &&
         use_with_switches(had) <= share_of(had);
}

// The longest an operation may take of a slice that runs for `part` of the time: whatever it needs
// alone, and a stop for each window that it needs.
double longest_wait_ms(const Had& had, double part) {
  const double alone_ms = figure(had.alone.waits, "p50");
  const double stop_ms = had.latency_ms > 0 ? had.latency_ms : kPeriodMs * (1 - part);
  const double window_ms = part < 1 ? stop_ms * part / (1 - part) : 1e9;
  const double windows = std::max(1.0, std::ceil(alone_ms / std::max(window_ms, 0.1)));
  return windows * stop_ms + std::max(kSlackMs, 1.25 * alone_ms);
}

void add_waits(const std::vector<Had>& all, size_t which, double part, std::vector<Promise>* out) {
  const Had& had = all[which];
  if (!had.waits.is_object() || !had.alone.waits.is_object()) return;
  const double p50 = figure(had.waits, "p50"), p99 = figure(had.waits, "p99");
  if (goes_first(had)) {
    double others_ms = 0;  // who goes first as well
    for (size_t i = 0; i < all.size(); ++i) {
      if (i != which && goes_first(all[i]))
        others_ms += figure(all[i].alone.waits, "p50") + kSwitchesMs / 2;
    }
    out->push_back({"wait p50 ms", p50, figure(had.alone.waits, "p50") + kFirstP50Ms, false});
    out->push_back(
        {"wait p99 ms", p99, figure(had.alone.waits, "p99") + kFirstP99Ms + others_ms, false});
  } else if (part < 1) {
    if (figure(had.alone.waits, "p50") <= kShortMs)
      out->push_back({"wait p99 ms", p99, longest_wait_ms(had, part), false});
  } else {
    out->push_back({"wait p99 ms", p99, 1.25 * figure(had.alone.waits, "p99") + 0.15, false});
  }
}

}  // namespace

std::vector<Promise> promises(const std::vector<Had>& all, size_t which, double points) {
  std::vector<Promise> out;
  const Had& had = all[which];
  if (had.load.kind == LoadKind::kIdle || !had.works) return out;
  const bool alone = alone_on_gpu(all, which), ceiling = had.grant.max_permille != 0;
  if (!ceiling && had.grant.share_permille == 0) return out;
  const double at_ceiling = progress_at_ceiling(had), max = had.grant.max_permille / 10.0;
  if (ceiling) out.push_back({"GPU time %", had.gpu_time * 100, max + points, false});
  double granted = 0;
  for (const Had& one : all) granted += share_of(one);
  const double share = share_of(had) / std::max(granted, 1.0);
  double part = alone ? at_ceiling : std::min(share, at_ceiling);
  if (alone && ceiling && at_ceiling < 1) {
    out.push_back({"GPU time at least %", had.gpu_time * 100, max - points, true});
    part = max / 100;
  } else if (alone) {
    out.push_back({"progress %", had.progress * 100, std::min(kUntouched, 100 - points), true});
  } else if (share > 0) {
    out.push_back({"progress %", had.progress * 100, part * 100 - points, true});
  }
  if (part > 0) add_waits(all, which, part, &out);
  return out;
}

nlohmann::ordered_json promises_json(const std::vector<Promise>& promises) {
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  for (const Promise& promise : promises) {
    out.push_back({{"what", promise.what},
                   {"value", promise.value},
                   {"limit", promise.limit},
                   {"kind", promise.at_least ? "at_least" : "at_most"},
                   {"kept", promise.kept()}});
  }
  return out;
}

}  // namespace allot::bench
