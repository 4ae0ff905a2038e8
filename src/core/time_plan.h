// The plan of one GPU at one moment, as its steps see it (time_policy.h has the picture). Private
// to src/core/time_*.cc; what agents use is plan_gpu().
//
//   slices --> claimants --> parts --> kinds --> windows --> segments --> grants
//             collect()   set_parts() set_kinds() set_windows() place_     time_policy.cc
//                                                 pay_edges()   windows()
//
// Fixed point: parts are parts of kFull. Slices' bytes are hostile: each number is clamped when it
// is copied, at most kMaxSlicesOnGpu are looked at closely, and no sum can overflow.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "core/time_ceiling.h"
#include "core/time_policy.h"

namespace allot::core {

inline constexpr uint64_t kUnit = 1u << 20;  // a permille in fixed point
inline constexpr uint64_t kFull =
    kWhole * kUnit;  // all of a GPU's time; its square fits into 64 bits

// How a claimant runs. Decided anew in each plan.
enum class Kind : uint8_t {
  kIdle,    // no work, or it repays: takes nothing
  kFirst,   // never closed; the others run by the shortest timeslices
  kLends,   // goes first in windows of its own, and lends its gaps to the others meanwhile
  kAlone,   // nobody runs beside it in its windows
  kBeside,  // side by side with the others, weighted by timeslices
};

// A slice that is neither frozen nor of high priority. "Twice": once for all who are awake, which
// gives the places, and once for those with work, which gives the windows.
struct Claimant {
  uint64_t id;
  uint32_t index;  // in the caller's order
  uint32_t gpus;
  uint64_t share;      // 0 = none asked for
  uint64_t max;        // kFull = none
  uint64_t footprint;  // of the GPU, while it goes first
  uint64_t latency_ns;
  bool low;
  bool saturates;
  bool credit;  // used less than its part lately
  bool waits;
  bool active;
  bool awake;
  bool uses_gaps;  // runs in the windows of those who lend theirs
  bool spare;      // low beside normal ones: gets its share, but no lent time
  Kind kind;
  uint64_t weight;
  uint64_t part;        // of the GPU's time it should get
  uint64_t awake_part;  // the same if all who are awake had work
  uint64_t window;      // part of the period in which it goes first or is alone
  uint64_t place;       // its window if all who are awake had work
  uint64_t place_ns;
  uint64_t own_ns;   // what it holds of its place
  uint64_t left_ns;  // of its window, not placed yet

  bool windowed() const { return kind == Kind::kLends || kind == Kind::kAlone; }
  // Alone in its windows, and never in those of others: with a max, which counts all the time in
  // which it might run, or since it cannot make use of what another one's bursts leave.
  bool own_windows_only() const { return kind == Kind::kAlone && (max < kFull || !saturates); }
};

// Whether it counts: with work (for the windows), or awake (for the places).
using Counts = bool Claimant::*;

// A stretch of the period and whose it is.
struct Segment {
  uint64_t begin_ns;
  uint64_t end_ns;
  const Claimant* holder;
};

struct Plan {
  Claimant claimants[kMaxSlicesOnGpu];
  uint32_t count = 0;
  bool high = false;        // a high-priority slice has work
  bool high_awake = false;  // or had not long ago
  bool first = false;       // somebody goes first all the time: high, or within its part
  uint64_t high_share = 0;  // of those who go first, together
  uint64_t high_footprint = 0;
  uint64_t period_ns = 0;
  Segment
      segments[3 * kMaxSlicesOnGpu + 1];  // in order; places, the gaps between, who divides them
  uint32_t segment_count = 0;

  std::span<Claimant> all() { return {claimants, count}; }
  std::span<const Segment> cut() const { return {segments, segment_count}; }
};

// Fills in the claimants, ordered by id; of too many the last ones fall out.
void collect(std::span<const SliceDemand> slices, Plan& plan);

// The part of each that counts, and who goes first all the time.
void set_parts(Plan& plan, Counts counts);

// How each that counts runs, and its window.
void set_windows(Plan& plan, Counts counts);

// The length of the period; depends on who is awake only, or the places would move.
void set_period(Plan& plan);

// Makes up, out of the windows of those who seldom wait, for what the edges cost those who wait.
void pay_edges(Plan& plan, uint64_t Claimant::*window);

// Lays the windows out in the period.
void place_windows(Plan& plan);

// Deals `total` out in proportion to `weight`, to each at most its max; what a capped one leaves
// goes to the others. The result goes to `*(claimant.*out)`. Only claimants that `wanted` names
// take part. Returns what nobody may have.
template <class Wanted>
uint64_t allocate_max_min(std::span<Claimant> claimants, uint64_t total, uint64_t Claimant::*weight,
                          uint64_t Claimant::*out, Wanted wanted) {
  bool capped[kMaxSlicesOnGpu] = {};
  for (bool again = true; again;) {
    again = false;
    uint64_t weights = 0;
    for (uint32_t i = 0; i < claimants.size(); ++i) {
      if (wanted(claimants[i]) && !capped[i]) weights += claimants[i].*weight;
    }
    if (weights == 0) return total;
    uint64_t taken = 0;
    for (uint32_t i = 0; i < claimants.size(); ++i) {
      Claimant& claimant = claimants[i];
      if (!wanted(claimant) || capped[i]) continue;
      claimant.*out = claimant.*weight * total / weights;
      if (claimant.*out < claimant.max) continue;
      claimant.*out = claimant.max;
      capped[i] = true;
      taken += claimant.max;
    }
    again = taken > 0;
    total -= std::min(total, taken);
  }
  return 0;
}

}  // namespace allot::core
