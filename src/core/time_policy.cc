// Who may run on a GPU, and when (time_policy.h has the picture).
//
// In four steps. Parts: what part of the GPU's time each active slice should get, of its share, its
// priority and its max. Windows: who takes one (slices that fill it, and slices near their max, who
// would pay with their ceiling for time they share with others), how long, in what order. Slices: so
// that inside each window the holder gets what its part needs and the slices beside it the rest; those
// beside keep the same slices in all windows, for a change costs a call to the driver. Grants: the phase
// of the cycle says who is open.
//
// Slices' bytes are hostile: each number is clamped when it is copied, at most kMaxSlicesOnGpu are
// looked at closely, and no sum can overflow. What must not happen here: a result that depends on the
// order of the slices, or a slice with work that never gets a window.
#include "core/time_policy.h"

#include <algorithm>

#include "core/time_ceiling.h"

namespace allot::core {
namespace {

constexpr uint64_t kUnit = 1u << 20;        // a permille in fixed point
constexpr uint64_t kFull = kWhole * kUnit;  // all of a GPU's time; its square fits into 64 bits
constexpr uint64_t kLeast = 10 * kUnit;     // so that nobody with work starves
constexpr uint64_t kMinimumWeightDivisor = 128;  // the same where shares are far too many: 1/128
constexpr uint64_t kMinimumWindowNs = 200'000;   // not worth a switch
constexpr uint64_t kForever = UINT64_MAX;

// Timeslices. 5 ms each is best for two slices that leave gaps; below 1 ms the switches cost too much;
// with 20 us a request of a high-priority slice waits least, with 10 us no less (bench/results has the figures).
constexpr uint64_t kRoundUs = 10'000;  // of all that run at the same time, together
constexpr uint64_t kLeastTimesliceUs = 1'000;
constexpr uint64_t kMostTimesliceUs = 50'000;
constexpr uint32_t kHighTimesliceUs = 10'000;
constexpr uint32_t kBesideHighTimesliceUs = 20;

// A slice that is neither frozen nor high, as the steps see it. The fixed point fields are parts of kFull.
struct Claimant {
  uint64_t id;
  uint32_t index;  // in the caller's order
  uint32_t gpus;
  uint64_t share;  // 0 = none asked for
  uint64_t max;    // kFull = none
  bool low;
  bool saturates;
  bool active;
  bool awake;
  bool spare;     // low beside normal ones: gets its share, but no lent time
  bool windowed;  // takes windows
  uint64_t weight;
  uint64_t part;    // of the GPU's time it should get
  uint64_t window;  // part of the cycle, if windowed
  uint64_t place;   // its window if all who are awake had work
  uint64_t place_ns;
  uint64_t own_ns;   // what it holds of its place
  uint64_t left_ns;  // of its window, not placed yet
};

// A stretch of the cycle and whose it is.
struct Segment {
  uint64_t begin_ns;
  uint64_t end_ns;
  const Claimant* holder;
};

struct Table {
  Claimant claimants[kMaxSlicesOnGpu];
  uint32_t count = 0;
  bool high = false;        // a high-priority slice has work
  bool high_awake = false;  // or had not long ago
  uint64_t high_share = 0;  // together
  uint64_t cycle_ns = 0;
  Segment
      segments[3 * kMaxSlicesOnGpu + 1];  // in order; places, the gaps between, who divides them
  uint32_t segment_count = 0;

  std::span<Claimant> all() { return {claimants, count}; }
  std::span<const Segment> cut() const { return {segments, segment_count}; }
};

uint64_t share_of(const SliceDemand& slice) {
  return std::min(slice.share_permille, kWhole) * kUnit;
}

uint64_t max_of(const SliceDemand& slice) {
  const bool none = slice.max_permille == 0 || slice.max_permille >= kWhole;
  return none ? kFull : slice.max_permille * kUnit;
}

uint64_t saturating_sum(uint64_t a, uint64_t b) {
  return b > kForever - a ? kForever : a + b;
}

// Keeps the table ordered by id; of too many the last ones fall out.
void insert(Table& table, const Claimant& claimant) {
  uint32_t at = table.count;
  while (at > 0 && table.claimants[at - 1].id > claimant.id) --at;
  if (at == kMaxSlicesOnGpu) return;
  if (table.count < kMaxSlicesOnGpu) ++table.count;
  for (uint32_t i = table.count - 1; i > at; --i) table.claimants[i] = table.claimants[i - 1];
  table.claimants[at] = claimant;
}

void collect_high(std::span<const SliceDemand> slices, Table& table) {
  for (const SliceDemand& slice : slices) {
    if (slice.frozen || slice.priority != ALLOT_PRIORITY_HIGH) continue;
    table.high_awake |= slice.active || slice.awake;
    if (!slice.active) continue;
    table.high = true;
    table.high_share = std::min(kFull, table.high_share + share_of(slice));
  }
}

void collect(std::span<const SliceDemand> slices, Table& table) {
  collect_high(slices, table);
  for (uint32_t i = 0; i < slices.size(); ++i) {
    const SliceDemand& slice = slices[i];
    if (slice.frozen || slice.priority == ALLOT_PRIORITY_HIGH) continue;
    Claimant claimant = {};
    claimant.id = slice.id;
    claimant.index = i;
    claimant.gpus = slice.gpus;
    claimant.share = share_of(slice);
    claimant.max = max_of(slice);
    claimant.low = slice.priority == ALLOT_PRIORITY_LOW;
    // Kernels on several GPUs wait for each other: what runs beside others here and alone there wastes both.
    // Beside a high one slices are so short that two side by side would do little but switch.
    claimant.saturates = slice.saturates || slice.gpus > 1 || table.high_awake;
    claimant.active = slice.active && !slice.repays;
    claimant.awake = slice.awake || slice.active;
    insert(table, claimant);
  }
}

// Deals `total` out in proportion to `weight`, to each at most its max; what a capped one leaves goes to
// the others. The result stands in `*(claimant.*out)`. Only claimants that `wanted` names take part. Returns
// what nobody may have.
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

// Whether it counts: with work (for the windows), or awake (for the places).
using Counts = bool Claimant::*;

// Step 1. A low slice beside normal ones has its share (or the least) and is lent nothing; the others
// divide all the rest in proportion to their shares, those without a share an equal part of what is left.
void set_parts(Table& table, Counts counts) {
  bool normals = false;
  for (const Claimant& claimant : table.all()) normals |= claimant.*counts && !claimant.low;
  uint64_t asked = table.high_share;
  uint64_t without = 0;
  for (Claimant& claimant : table.all()) {
    claimant.part = 0;
    if (!(claimant.*counts)) continue;
    claimant.spare = claimant.low && normals;
    claimant.weight = claimant.share > 0 || claimant.spare ? std::max(claimant.share, kLeast) : 0;
    asked += claimant.weight;
    if (claimant.weight == 0) ++without;
  }
  const uint64_t left = asked < kFull ? kFull - asked : 0;
  uint64_t sum = 0;
  uint64_t spared = 0;
  for (Claimant& claimant : table.all()) {
    if (!(claimant.*counts)) continue;
    if (claimant.weight == 0) claimant.weight = std::max(left / without, kLeast);
    sum += claimant.weight;
    if (claimant.spare) spared += std::min(claimant.weight, claimant.max);
  }
  if (sum >= kFull) {  // overcommitted: everybody gives in proportion
    for (Claimant& claimant : table.all())
      claimant.weight = std::max(claimant.weight, sum / kMinimumWeightDivisor);
    allocate_max_min(table.all(), kFull, &Claimant::weight, &Claimant::part,
                     [=](const Claimant& claimant) { return claimant.*counts; });
    return;
  }
  const uint64_t rest = allocate_max_min(
      table.all(), kFull - spared, &Claimant::weight, &Claimant::part,
      [=](const Claimant& claimant) { return claimant.*counts && !claimant.spare; });
  allocate_max_min(table.all(), spared + rest, &Claimant::weight, &Claimant::part,
                   [=](const Claimant& claimant) { return claimant.*counts && claimant.spare; });
}

// Whether nobody may run beside it in its window. A ceiling counts all the time in which its slice might
// run, so one that has a max must not share its window with others.
bool exclusive(const Claimant& claimant) {
  return claimant.windowed && claimant.max < kFull;
}

// Step 2. Who takes windows and how much of the cycle.
void set_windows(Table& table, Counts counts) {
  uint64_t rest = kFull;
  for (Claimant& claimant : table.all()) {
    const bool near_max = claimant.max < kFull && claimant.part * 10 >= claimant.max * 7;
    claimant.windowed = claimant.*counts && (claimant.saturates || near_max);
    claimant.window = 0;
    if (!exclusive(claimant)) continue;
    claimant.window = claimant.part;
    rest -= claimant.part;
  }
  allocate_max_min(
      table.all(), rest, &Claimant::part, &Claimant::window,
      [](const Claimant& claimant) { return claimant.windowed && !exclusive(claimant); });
}

// May not depend on who has work, or the places would move.
void set_cycle(Table& table) {
  uint32_t places = 0;
  bool short_cycle = false;
  for (const Claimant& claimant : table.all()) {
    if (!claimant.awake) continue;
    short_cycle |= claimant.max < kFull || claimant.gpus > 1;
    if (claimant.saturates) ++places;
  }
  if (table.high_awake) places = kMaxSlicesOnGpu;
  table.cycle_ns = short_cycle ? kCeilingSpanNs : cycle_ns(places);
}

// Slices of several GPUs first, so that their windows begin together on all of them; then by id.
void order_places(Table& table) {
  for (uint32_t i = 1; i < table.count; ++i) {
    const Claimant claimant = table.claimants[i];
    uint32_t at = i;
    for (; at > 0 && table.claimants[at - 1].gpus < claimant.gpus; --at) {
      table.claimants[at] = table.claimants[at - 1];
    }
    table.claimants[at] = claimant;
  }
}

void add_segment(Table& table, uint64_t begin_ns, uint64_t end_ns, const Claimant& holder) {
  if (end_ns <= begin_ns) return;
  if (end_ns - begin_ns < kMinimumWindowNs && table.segment_count > 0) {
    Segment& before = table.segments[table.segment_count - 1];
    if (before.end_ns == begin_ns && before.holder->max == kFull) {
      before.end_ns = end_ns;
      return;
    }
  }
  table.segments[table.segment_count++] = {begin_ns, end_ns, &holder};
}

// What [begin, end) of the cycle gives to the claimant's window, which still lacks left_ns.
uint64_t take(Claimant& claimant, uint64_t begin_ns, uint64_t end_ns) {
  const uint64_t length = std::min(claimant.left_ns, end_ns - begin_ns);
  claimant.left_ns -= length;
  return length;
}

// Lends [begin, end) of the cycle: the beginning to the claimant before it and the end to the one behind it, whose
// windows then go on, what is left to the others in turn.
void redistribute(Table& table, uint64_t begin_ns, uint64_t end_ns, uint32_t before,
                  uint32_t behind) {
  if (begin_ns >= end_ns) return;
  Claimant& first = table.claimants[before];
  const uint64_t head_ns = take(first, begin_ns, end_ns);
  add_segment(table, begin_ns, begin_ns + head_ns, first);
  begin_ns += head_ns;
  Claimant& last = table.claimants[behind];
  const uint64_t tail_ns = take(last, begin_ns, end_ns);
  end_ns -= tail_ns;
  for (uint32_t k = 1; k < table.count && begin_ns < end_ns; ++k) {
    Claimant& claimant = table.claimants[(before + k) % table.count];
    const uint64_t length = take(claimant, begin_ns, end_ns);
    add_segment(table, begin_ns, begin_ns + length, claimant);
    begin_ns += length;
  }
  add_segment(table, end_ns, end_ns + tail_ns, last);
}

// The next claimant with a place of its own that it uses, from `at` on, around the cycle.
uint32_t next_holder(const Table& table, uint32_t at) {
  for (uint32_t k = 0; k < table.count; ++k) {
    const uint32_t i = (at + k) % table.count;
    if (table.claimants[i].own_ns > 0) return i;
  }
  return at % table.count;
}

// Who takes windows has a place in the cycle, whether there is work or not: however the others come and go, it
// does not move, so they cannot (by chance or by design) talk a slice out of its time. The places of those
// without work, and what maxima leave, make up the rest of the windows.
void place_windows(Table& table) {
  if (table.count == 0) return;
  for (Claimant& claimant : table.all()) {
    const uint64_t window_ns = claimant.windowed ? table.cycle_ns * claimant.window / kFull : 0;
    claimant.place_ns = table.cycle_ns * claimant.place / kFull;
    claimant.own_ns = std::min(claimant.place_ns, window_ns);
    claimant.left_ns = window_ns - claimant.own_ns;
  }
  uint64_t at = 0;
  uint64_t gap = 0;  // lent together: up to the next place that is used
  uint32_t before = 0;
  for (uint32_t i = 0; i < table.count; ++i) {
    if (table.claimants[i].own_ns > 0) before = i;  // the last one stands before the first
  }
  for (uint32_t i = 0; i < table.count; ++i) {
    const Claimant& claimant = table.claimants[i];
    if (claimant.own_ns > 0) {
      if (gap < at) redistribute(table, gap, at, before, i);
      before = i;
      add_segment(table, at, at + claimant.own_ns, claimant);
      gap = at + claimant.own_ns;
    }
    at += claimant.place_ns;
  }
  redistribute(table, gap, table.cycle_ns, before, next_holder(table, 0));
}

// Step 3. What a claimant's slice is to the sum of those beside, which together are `beside`.
uint64_t timeslice_weight(const Claimant& claimant, uint64_t beside) {
  if (!claimant.windowed) return claimant.part;
  if (beside == 0 || claimant.window <= claimant.part) return kFull;
  return std::min(kFull, beside * claimant.part / (claimant.window - claimant.part));
}

// The length of a round in microseconds that gives the smallest slice its least, if that can be had.
uint64_t round_us(Table& table, uint64_t beside) {
  uint64_t smallest = kFull;
  for (const Claimant& claimant : table.all()) {
    if (!claimant.active) continue;
    smallest = std::min(smallest, timeslice_weight(claimant, beside));
  }
  const uint64_t wanted = kLeastTimesliceUs * kFull / std::max<uint64_t>(smallest, 1);
  return std::clamp(wanted, kRoundUs, kMostTimesliceUs);
}

uint32_t timeslice_us(uint64_t weight, uint64_t round) {
  return static_cast<uint32_t>(
      std::clamp(round * weight / kFull, kLeastTimesliceUs, kMostTimesliceUs));
}

// Step 4. Whether the piece at `phase` of the cycle is one that `mine` names (between segments: no), and in
// `edge` where that piece ends.
template <class Mine>
bool look_at(const Table& table, uint64_t phase, Mine mine, uint64_t& edge) {
  for (const Segment& piece : table.cut()) {
    edge = phase < piece.begin_ns ? piece.begin_ns : piece.end_ns;
    if (phase < piece.begin_ns) return false;
    if (phase < piece.end_ns) return mine(*piece.holder);
  }
  edge = table.cycle_ns;
  return false;
}

// The same, with the time when it changes: segments that follow each other make one, over the cycle's end
// too. kForever if it never does.
template <class Mine>
bool look_ahead(const Table& table, uint64_t now_ns, Mine mine, uint64_t& change_ns) {
  const uint64_t phase = now_ns % table.cycle_ns;
  uint64_t edge;
  const bool first = look_at(table, phase, mine, edge);
  change_ns = kForever;
  uint64_t base = 0;  // of the cycle that `edge` is in, from the start of this one
  while (base + edge < phase + table.cycle_ns) {
    const uint64_t at = base + edge;
    if (edge == table.cycle_ns) base = at;
    if (look_at(table, at - base, mine, edge) != first) {
      change_ns = saturating_sum(now_ns, at - phase);
      break;
    }
  }
  return first;
}

void grant_window(const Table& table, const Claimant& claimant, uint64_t now_ns, TimeGrant& grant) {
  grant.window_permille = static_cast<uint32_t>((claimant.window + kUnit / 2) / kUnit);
  if (claimant.window == kFull) return;
  const auto own = [&](const Claimant& holder) { return &holder == &claimant; };
  grant.open = look_ahead(table, now_ns, own, grant.until_ns);
}

void grant_beside(const Table& table, uint64_t now_ns, TimeGrant& grant) {
  uint64_t shut_ns = 0;
  for (const Segment& piece : table.cut()) {
    if (exclusive(*piece.holder)) shut_ns += piece.end_ns - piece.begin_ns;
  }
  if (shut_ns == 0) return;
  grant.open = !look_ahead(table, now_ns, exclusive, grant.until_ns);
  grant.window_permille = kWhole - static_cast<uint32_t>(shut_ns * kWhole / table.cycle_ns);
}

// Everything but the windows: who is frozen, has no work, is high, or fell out of the table.
TimeGrant plain_grant(const SliceDemand& slice, bool high_beside) {
  TimeGrant grant = {!slice.frozen, kForever, static_cast<uint32_t>(kLeastTimesliceUs), kWhole};
  if (slice.frozen) grant.window_permille = 0;
  if (slice.priority == ALLOT_PRIORITY_HIGH) {
    grant.timeslice_us = kHighTimesliceUs;
  } else if (high_beside) {
    grant.timeslice_us = kBesideHighTimesliceUs;
  } else {
    const uint64_t share = share_of(slice);  // none: as if for two
    grant.timeslice_us = timeslice_us(share > 0 ? share : kFull / 2, kRoundUs);
  }
  return grant;
}

}  // namespace

uint64_t cycle_ns(uint32_t windows) {
  return windows <= 2 ? 100'000'000 : windows <= 4 ? 200'000'000 : 250'000'000;
}

void plan_gpu(std::span<const SliceDemand> slices, uint64_t now_ns, std::span<TimeGrant> grants) {
  Table table;
  collect(slices, table);
  for (uint32_t i = 0; i < slices.size(); ++i) grants[i] = plain_grant(slices[i], table.high);
  set_cycle(table);
  set_parts(table, &Claimant::awake);
  set_windows(table, &Claimant::awake);
  for (Claimant& claimant : table.all()) claimant.place = claimant.window;
  set_parts(table, &Claimant::active);
  set_windows(table, &Claimant::active);
  order_places(table);
  place_windows(table);
  uint64_t beside = 0;
  for (const Claimant& claimant : table.all()) beside += claimant.windowed ? 0 : claimant.part;
  const uint64_t round = round_us(table, beside);
  for (const Claimant& claimant : table.all()) {
    if (!claimant.active) continue;
    TimeGrant& grant = grants[claimant.index];
    if (!table.high) grant.timeslice_us = timeslice_us(timeslice_weight(claimant, beside), round);
    if (claimant.windowed) {
      grant_window(table, claimant, now_ns, grant);
    } else {
      grant_beside(table, now_ns, grant);
    }
  }
}

bool share_fits(std::span<const uint32_t> shares_permille, uint32_t share_permille) {
  if (share_permille == 0) return true;
  uint64_t sum = share_permille;
  for (uint32_t share : shares_permille) sum += std::min(share, kWhole);
  return sum <= kWhole;
}

}  // namespace allot::core
