// Who claims how much of a GPU's time: weighted max-min shares (time_plan.h).
//
// What must not happen here: a result that depends on the order of the slices, or a slice with work
// that gets nothing.
#include "core/time_plan.h"

namespace allot::core {
namespace {

constexpr uint64_t kLeast = 10 * kUnit;          // so that nobody with work starves
constexpr uint64_t kMinimumWeightDivisor = 128;  // the same where shares are far too many: 1/128
// How far the measured footprint may pass the part before a slice stops going first all the time:
// the agent's own measure moves by some points from second to second.
constexpr uint64_t kFirstSlack = 30 * kUnit;

uint64_t share_of(const SliceDemand& slice) {
  return std::min(slice.share_permille, kWhole) * kUnit;
}

uint64_t max_of(const SliceDemand& slice) {
  const bool none = slice.max_permille == 0 || slice.max_permille >= kWhole;
  return none ? kFull : slice.max_permille * kUnit;
}

// Keeps the claimants ordered by id; of too many the last ones fall out.
void insert(Plan& plan, const Claimant& claimant) {
  uint32_t at = plan.count;
  while (at > 0 && plan.claimants[at - 1].id > claimant.id) --at;
  if (at == kMaxSlicesOnGpu) return;
  if (plan.count < kMaxSlicesOnGpu) ++plan.count;
  for (uint32_t i = plan.count - 1; i > at; --i) plan.claimants[i] = plan.claimants[i - 1];
  plan.claimants[at] = claimant;
}

void collect_high(std::span<const SliceDemand> slices, Plan& plan) {
  for (const SliceDemand& slice : slices) {
    if (slice.frozen || slice.priority != ALLOT_PRIORITY_HIGH) continue;
    plan.high_awake |= slice.active || slice.awake;
    if (!slice.active) continue;
    plan.high = plan.first = true;
    plan.high_share = std::min(kFull, plan.high_share + share_of(slice));
  }
}

// Whether it takes part in the division: who goes first all the time has what it needs.
bool takes(const Claimant& claimant, Counts counts) {
  return claimant.*counts && claimant.kind != Kind::kFirst;
}

// A low slice beside normal ones has its share (or the least) and is lent nothing; the others
// divide all the rest in proportion to their shares, those without a share an equal part of what is
// left.
void divide(Plan& plan, Counts counts) {
  bool normals = false;
  for (const Claimant& claimant : plan.all()) normals |= takes(claimant, counts) && !claimant.low;
  uint64_t asked = plan.high_share;
  uint64_t without = 0;
  for (Claimant& claimant : plan.all()) {
    if (claimant.kind == Kind::kFirst) continue;  // keeps what it was given
    claimant.part = 0;
    if (!takes(claimant, counts)) continue;
    claimant.spare = claimant.low && normals;
    claimant.weight = claimant.share > 0 || claimant.spare ? std::max(claimant.share, kLeast) : 0;
    asked += claimant.weight;
    if (claimant.weight == 0) ++without;
  }
  const uint64_t left = asked < kFull ? kFull - asked : 0;
  uint64_t sum = 0;
  uint64_t spared = 0;
  for (Claimant& claimant : plan.all()) {
    if (!takes(claimant, counts)) continue;
    if (claimant.weight == 0) claimant.weight = std::max(left / without, kLeast);
    sum += claimant.weight;
    if (claimant.spare) spared += std::min(claimant.weight, claimant.max);
  }
  if (sum >= kFull) {  // overcommitted: everybody gives in proportion
    for (Claimant& claimant : plan.all())
      claimant.weight = std::max(claimant.weight, sum / kMinimumWeightDivisor);
    allocate_max_min(plan.all(), kFull, &Claimant::weight, &Claimant::part,
                     [=](const Claimant& claimant) { return takes(claimant, counts); });
    return;
  }
  const uint64_t rest = allocate_max_min(
      plan.all(), kFull - spared, &Claimant::weight, &Claimant::part,
      [=](const Claimant& claimant) { return takes(claimant, counts) && !claimant.spare; });
  allocate_max_min(
      plan.all(), spared + rest, &Claimant::weight, &Claimant::part,
      [=](const Claimant& claimant) { return takes(claimant, counts) && claimant.spare; });
}

// A slice whose whole footprint fits into its part can go first all the time: the others keep
// theirs.
void find_first(Plan& plan, Counts counts) {
  uint64_t footprints = 0;
  for (Claimant& claimant : plan.all()) {
    const bool fits = claimant.footprint <= claimant.part + kFirstSlack;
    if (!(claimant.*counts) || !claimant.credit || !fits || claimant.gpus > 1) continue;
    claimant.kind = Kind::kFirst;
    footprints += claimant.footprint;
    plan.high_share = std::min(kFull, plan.high_share + claimant.share);
    plan.first = true;
  }
  plan.high_footprint = std::min(footprints, kFull * 9 / 10);
}

}  // namespace

void collect(std::span<const SliceDemand> slices, Plan& plan) {
  collect_high(slices, plan);
  for (uint32_t i = 0; i < slices.size(); ++i) {
    const SliceDemand& slice = slices[i];
    if (slice.frozen || slice.priority == ALLOT_PRIORITY_HIGH) continue;
    Claimant claimant = {};
    claimant.id = slice.id;
    claimant.index = i;
    claimant.gpus = slice.gpus;
    claimant.share = share_of(slice);
    claimant.max = max_of(slice);
    claimant.footprint = std::clamp(slice.footprint_permille, 1u, kWhole) * kUnit;
    claimant.latency_ns =
        slice.latency_us == 0 ? kDefaultLatencyNs : slice.latency_us * uint64_t{1000};
    claimant.low = slice.priority == ALLOT_PRIORITY_LOW;
    // Kernels on several GPUs wait for each other: what runs beside others here and alone there
    // wastes both.
    claimant.saturates = slice.saturates || slice.gpus > 1;
    claimant.credit = slice.credit;
    claimant.waits = slice.waits || slice.latency_us != 0;
    claimant.active = slice.active && !slice.repays;
    claimant.awake = slice.awake || slice.active;
    insert(plan, claimant);
  }
}

void set_parts(Plan& plan, Counts counts) {
  const uint64_t high_share = plan.high_share;
  plan.first = plan.high;
  for (Claimant& claimant : plan.all()) claimant.kind = Kind::kIdle;
  divide(plan, counts);
  find_first(plan, counts);
  // What those who go first leave of their parts is for the others, who divide all the rest of the
  // GPU.
  if (plan.high_footprint > 0) divide(plan, counts);
  plan.high_share = high_share;
}

}  // namespace allot::core
