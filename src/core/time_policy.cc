// What each slice is granted at a moment (time_policy.h has the picture, time_plan.h the steps).
#include "core/time_policy.h"

#include "core/time_plan.h"

#include "core/time_ceiling.h"

namespace allot::core {
namespace {

constexpr uint64_t kForever = UINT64_MAX;

// Timeslices. 5 ms each is best for two slices that leave gaps; below 1 ms the switches cost too
// much; beside one that goes first 20 us make it wait least, with 10 us no less (bench/results has
// the figures).
constexpr uint64_t kRoundUs = 10'000;  // of all that run at the same time, together
constexpr uint64_t kLeastTimesliceUs = 1'000;
constexpr uint64_t kMostTimesliceUs = 50'000;
constexpr uint32_t kFirstTimesliceUs = 10'000;
constexpr uint32_t kBesideFirstTimesliceUs = 20;
constexpr uint64_t kMostBesideFirst = 8;  // times that, for a part so much larger

uint64_t saturating_sum(uint64_t a, uint64_t b) {
  return b > kForever - a ? kForever : a + b;
}

// The length of a round in microseconds that gives the smallest timeslice its least, if that can be
// had.
uint64_t round_us(Plan& plan) {
  uint64_t smallest = kFull;
  for (const Claimant& claimant : plan.all()) {
    if (claimant.kind == Kind::kBeside) smallest = std::min(smallest, claimant.part);
  }
  const uint64_t wanted = kLeastTimesliceUs * kFull / std::max<uint64_t>(smallest, 1);
  return std::clamp(wanted, kRoundUs, kMostTimesliceUs);
}

uint32_t timeslice_us(uint64_t part, uint64_t round) {
  return static_cast<uint32_t>(
      std::clamp(round * part / kFull, kLeastTimesliceUs, kMostTimesliceUs));
}

uint64_t smallest_part(Plan& plan) {
  uint64_t smallest = kFull;
  for (const Claimant& claimant : plan.all()) {
    const bool shares_gaps = claimant.kind == Kind::kAlone || claimant.kind == Kind::kBeside;
    if (shares_gaps && claimant.part > 0) smallest = std::min(smallest, claimant.part);
  }
  return smallest;
}

// Whether somebody goes first, now or in a window of this period.
bool somebody_first(Plan& plan) {
  bool lends = plan.first;
  for (const Claimant& claimant : plan.all()) lends |= claimant.kind == Kind::kLends;
  return lends;
}

// Whether the piece at `phase` of the period is one that `mine` names (between segments: no), and
// in `edge` where that piece ends.
template <class Mine>
bool look_at(const Plan& plan, uint64_t phase, Mine mine, uint64_t& edge) {
  for (const Segment& piece : plan.cut()) {
    edge = phase < piece.begin_ns ? piece.begin_ns : piece.end_ns;
    if (phase < piece.begin_ns) return false;
    if (phase < piece.end_ns) return mine(*piece.holder);
  }
  edge = plan.period_ns;
  return false;
}

// The same, with the time when it changes: segments that follow each other make one, over the
// period's end too. kForever if it never does.
template <class Mine>
bool look_ahead(const Plan& plan, uint64_t now_ns, Mine mine, uint64_t& change_ns) {
  const uint64_t phase = now_ns % plan.period_ns;
  uint64_t edge;
  const bool first = look_at(plan, phase, mine, edge);
  change_ns = kForever;
  uint64_t base = 0;  // of the period that `edge` is in, from the start of this one
  while (base + edge < phase + plan.period_ns) {
    const uint64_t at = base + edge;
    if (edge == plan.period_ns) base = at;
    if (look_at(plan, at - base, mine, edge) != first) {
      change_ns = saturating_sum(now_ns, at - phase);
      break;
    }
  }
  return first;
}

// A slice runs in its own windows, and one of them in the windows of those who lend their gaps.
bool runs_in(const Claimant& claimant, const Claimant& holder) {
  if (&holder == &claimant) return true;
  return holder.kind == Kind::kLends && claimant.uses_gaps;
}

void grant_windows(const Plan& plan, const Claimant& claimant, uint64_t now_ns, TimeGrant& grant) {
  uint64_t open_ns = 0;
  for (const Segment& segment : plan.cut()) {
    if (runs_in(claimant, *segment.holder)) open_ns += segment.end_ns - segment.begin_ns;
  }
  grant.window_permille =
      static_cast<uint32_t>((open_ns * kWhole + plan.period_ns / 2) / plan.period_ns);
  if (claimant.window == kFull) return;
  const auto mine = [&](const Claimant& holder) { return runs_in(claimant, holder); };
  grant.open = look_ahead(plan, now_ns, mine, grant.until_ns);
}

// Everything but the windows: who is frozen, has no work, is high, or fell out of the plan.
TimeGrant plain_grant(const SliceDemand& slice, bool first_beside) {
  TimeGrant grant = {!slice.frozen, kForever, static_cast<uint32_t>(kLeastTimesliceUs), kWhole,
                     kWhole};
  if (slice.frozen) grant.window_permille = 0;
  if (slice.priority == ALLOT_PRIORITY_HIGH) {
    grant.timeslice_us = kFirstTimesliceUs;
  } else if (first_beside) {
    grant.timeslice_us = kBesideFirstTimesliceUs;
  } else {
    const uint64_t share = std::min(slice.share_permille, kWhole) * kUnit;  // none: as if for two
    grant.timeslice_us = timeslice_us(share > 0 ? share : kFull / 2, kRoundUs);
  }
  return grant;
}

// In windows only who uses the gaps of others has a neighbour; the others' short slices would
// multiply the changes at their edges.
uint32_t timeslice_of(const Plan& plan, const Claimant& claimant, bool first, uint64_t smallest,
                      uint64_t round) {
  if (claimant.kind == Kind::kFirst || claimant.kind == Kind::kLends) return kFirstTimesliceUs;
  const bool by_itself = claimant.kind == Kind::kAlone && !plan.first && !claimant.uses_gaps;
  if (!first || by_itself)
    return timeslice_us(claimant.kind == Kind::kAlone ? kFull : claimant.part, round);
  if (plan.high || !plan.first) return kBesideFirstTimesliceUs;
  const uint64_t times =
      std::clamp<uint64_t>(claimant.part / std::max<uint64_t>(smallest, 1), 1, kMostBesideFirst);
  return static_cast<uint32_t>(kBesideFirstTimesliceUs * times);
}

}  // namespace

uint64_t cycle_ns(uint32_t windows) {
  return windows <= 2 ? 100'000'000 : windows <= 4 ? 200'000'000 : 250'000'000;
}

void plan_gpu(std::span<const SliceDemand> slices, uint64_t now_ns, std::span<TimeGrant> grants) {
  Plan plan;
  collect(slices, plan);
  set_parts(plan, &Claimant::awake);
  set_windows(plan, &Claimant::awake);
  for (Claimant& claimant : plan.all()) {
    claimant.place = claimant.window;
    claimant.awake_part = claimant.part;
  }
  set_period(plan);
  pay_edges(plan, &Claimant::place);
  set_parts(plan, &Claimant::active);
  set_windows(plan, &Claimant::active);
  pay_edges(plan, &Claimant::window);
  place_windows(plan);
  const bool first = somebody_first(plan);
  for (uint32_t i = 0; i < slices.size(); ++i) grants[i] = plain_grant(slices[i], first);
  const uint64_t round = round_us(plan);
  const uint64_t smallest = smallest_part(plan);
  uint32_t others = 0;  // that run, itself included
  for (const SliceDemand& slice : slices) others += slice.active && !slice.frozen && !slice.repays;
  for (const Claimant& claimant : plan.all()) {
    TimeGrant& grant = grants[claimant.index];
    if (claimant.kind == Kind::kIdle) {
      grant.part_permille = static_cast<uint32_t>(claimant.awake_part / kUnit);
      continue;
    }
    grant.timeslice_us = timeslice_of(plan, claimant, first, smallest, round);
    grant.first = claimant.kind == Kind::kFirst;
    const uint64_t left = grant.first ? kFull : kFull - plan.high_footprint;
    grant.part_permille = static_cast<uint32_t>(claimant.part / kUnit * (left / kUnit) / kWhole);
    const bool own_only = claimant.kind == Kind::kAlone && !claimant.uses_gaps;
    grant.undisturbed = own_only ? !plan.first : others == 1;
    if (claimant.windowed()) grant_windows(plan, claimant, now_ns, grant);
  }
}

bool share_fits(std::span<const uint32_t> shares_permille, uint32_t share_permille) {
  if (share_permille == 0) return true;
  uint64_t sum = share_permille;
  for (uint32_t share : shares_permille) sum += std::min(share, kWhole);
  return sum <= kWhole;
}

}  // namespace allot::core
