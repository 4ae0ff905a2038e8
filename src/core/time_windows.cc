// Windows: who goes first, who runs alone and when, as stretches of a period (time_plan.h).
//
// What must not happen here: a window that depends on the order of the slices; places that move
// when somebody comes or goes; a slice with work that never gets a window.
#include "core/time_plan.h"

namespace allot::core {
namespace {

constexpr uint64_t kMinimumWindowNs = 200'000;  // not worth a switch
// A change of windows costs each side up to half a millisecond of the GPU (H100, H200: the two
// calls). A window of 4 ms loses no more than an eighth to it, and four windows of a period of 40
// ms a point each.
constexpr uint64_t kEdgeNs = 1'000'000;
constexpr uint64_t kLeastPlaceNs = 4'000'000;
constexpr uint64_t kLeastAskedPlaceNs = 1'500'000;  // who asks for short stops pays a third
// Two windows: 20 ms, so that a share of 30 % stops for 14 ms. More than two: two changes of 0.3 ms
// would be 6 % of 10 ms, and are 4 % of 15.
constexpr uint64_t kPeriodPerWindowNs = 10'000'000;
constexpr uint64_t kPeriodPerManyNs = 15'000'000;  // each, for more than two
// Who comes next is let in a little before the edge, so that the GPU is never without work, and
// runs in the first gap that a program leaves which waits for its work; a full one leaves none. So
// of the two edges between them the waiting one loses both: 0.5-0.6 ms of a period (H200), and a
// launch-bound one 0.4. This much of it the full one gives back.
constexpr uint64_t kEdgesOfWaitingNs = 250'000;
// Each a whole number of times in a second.
constexpr uint64_t kPeriodsUs[] = {5'000,   6'250,   8'000,   10'000, 12'500, 15'625,
                                   20'000,  25'000,  31'250,  40'000, 50'000, 62'500,
                                   100'000, 125'000, 200'000, 250'000};

// Side by side those who leave gaps have some 1.15 / footprints of what they do alone (two that
// wait for 200 us kernels 82 %, three 57), and 1.0 if they are of very different kinds: a larger
// share takes windows.
bool too_many_beside(Plan& plan, Counts counts) {
  uint64_t footprints = 0, largest = 0;
  for (const Claimant& claimant : plan.all()) {
    if (!(claimant.*counts) || claimant.footprint == kFull) continue;
    footprints += claimant.footprint / kUnit;
    if (claimant.kind != Kind::kFirst) largest = std::max(largest, claimant.share / kUnit);
  }
  return largest * footprints > uint64_t{kWhole} * kWhole;
}

// Who leaves gaps beside somebody who needs the GPU for itself takes windows, too. In its window it
// goes first, and where that pays (footprint below the whole) the others have its gaps meanwhile;
// its window is so much longer. What switches cost, it pays.
void set_kinds(Plan& plan, Counts counts) {
  bool alone = plan.high_awake || too_many_beside(plan, counts);
  for (const Claimant& claimant : plan.all()) {
    if (!(claimant.*counts) || claimant.kind == Kind::kFirst) continue;
    // Side by side by the timeslices that are good for one that goes first, two would do little but
    // switch.
    alone |= claimant.saturates || (plan.first && claimant.footprint == kFull);
  }
  for (Claimant& claimant : plan.all()) {
    if (!(claimant.*counts) || claimant.kind == Kind::kFirst) continue;
    const bool gaps = !claimant.saturates;
    claimant.kind = !alone                               ? Kind::kBeside
                    : gaps && claimant.footprint < kFull ? Kind::kLends
                                                         : Kind::kAlone;
  }
}

uint64_t first_window(const Claimant& claimant) {
  return claimant.part >= claimant.footprint
             ? kFull
             : claimant.part * kWhole / (claimant.footprint / kUnit);
}

bool divides_rest(const Claimant& claimant) {
  return claimant.kind == Kind::kAlone && !claimant.own_windows_only();
}

// Who uses the gaps of those who go first: one, for two there would do little but switch between
// each other. The one with the largest part, whose own window is so much shorter.
Claimant* user_of_gaps(Plan& plan) {
  Claimant* user = nullptr;
  for (Claimant& claimant : plan.all()) {
    if (divides_rest(claimant) && (user == nullptr || claimant.part > user->part)) user = &claimant;
  }
  return user;
}

// Windows in which somebody goes first may not overlap, or the others would have no gaps of them;
// and outside them there must be room for all but the user of the gaps. Of too many the longest
// ones give up going first: alone, a window as long as the part is enough.
uint64_t fit_first_windows(Plan& plan) {
  for (;;) {
    const Claimant* user = user_of_gaps(plan);
    uint64_t sum = 0;
    uint64_t alone = 0;
    Claimant* longest = nullptr;
    for (Claimant& claimant : plan.all()) {
      if (claimant.kind == Kind::kAlone && &claimant != user) alone += claimant.part;
      if (claimant.kind != Kind::kLends) continue;
      claimant.window = first_window(claimant);
      sum += claimant.window;
      if (longest == nullptr || claimant.window - claimant.part > longest->window - longest->part) {
        longest = &claimant;
      }
    }
    if (longest == nullptr || sum + std::min(alone, kFull) <= kFull) return sum;
    longest->kind = Kind::kAlone;
    longest->window = 0;
  }
}

// What those who go first in windows leave in them.
uint64_t gaps_of_first(Plan& plan) {
  uint64_t gaps = 0;
  for (const Claimant& claimant : plan.all()) {
    if (claimant.kind != Kind::kLends) continue;
    gaps += claimant.window / kWhole * (kWhole - claimant.footprint / kUnit);
  }
  return std::min(gaps, kFull);
}

// The windows of those who can use what others leave: `rest` of the period and the gaps of those
// who go first.
void divide_rest(Plan& plan, uint64_t rest) {
  Claimant* user = user_of_gaps(plan);
  if (user == nullptr) return;
  const uint64_t gaps = std::min(gaps_of_first(plan), kFull - rest);
  user->uses_gaps = gaps > 0;
  allocate_max_min(plan.all(), rest + gaps, &Claimant::part, &Claimant::window, divides_rest);
  const uint64_t others = rest + gaps - std::min(rest + gaps, user->window);
  user->window -= std::min(gaps, user->window);
  if (others <= rest) return;
  // The gaps alone are more than its part: the others' windows are to fit into what is left.
  for (Claimant& claimant : plan.all()) {
    if (&claimant == user || !divides_rest(claimant)) continue;
    claimant.window = claimant.window / kWhole * (rest / (others / kWhole));
  }
}

// Slices of several GPUs first, so that their windows begin together on all of them; then those who
// go first, and who uses their gaps behind them, so that it need not be stopped between; then by
// id.
bool comes_before(const Claimant& a, const Claimant& b) {
  if (a.gpus != b.gpus) return a.gpus > b.gpus;
  const bool a_first = a.kind == Kind::kLends, b_first = b.kind == Kind::kLends;
  if (a_first != b_first) return a_first;
  return a.uses_gaps && !b.uses_gaps;
}

void order_places(Plan& plan) {
  for (uint32_t i = 1; i < plan.count; ++i) {
    const Claimant claimant = plan.claimants[i];
    uint32_t at = i;
    for (; at > 0 && comes_before(claimant, plan.claimants[at - 1]); --at) {
      plan.claimants[at] = plan.claimants[at - 1];
    }
    plan.claimants[at] = claimant;
  }
}

void add_segment(Plan& plan, uint64_t begin_ns, uint64_t end_ns, const Claimant& holder) {
  if (end_ns <= begin_ns) return;
  if (end_ns - begin_ns < kMinimumWindowNs && plan.segment_count > 0) {
    Segment& before = plan.segments[plan.segment_count - 1];
    if (before.end_ns == begin_ns && before.holder->max == kFull) {
      before.end_ns = end_ns;
      return;
    }
  }
  plan.segments[plan.segment_count++] = {begin_ns, end_ns, &holder};
}

// What [begin, end) of the period gives to the claimant's window, which still lacks left_ns.
uint64_t take(Claimant& claimant, uint64_t begin_ns, uint64_t end_ns) {
  const uint64_t length = std::min(claimant.left_ns, end_ns - begin_ns);
  claimant.left_ns -= length;
  return length;
}

// Lends [begin, end) of the period: the beginning to the claimant before it and the end to the one
// behind it, whose windows then continue, what is left to the others in turn.
void redistribute(Plan& plan, uint64_t begin_ns, uint64_t end_ns, uint32_t before,
                  uint32_t behind) {
  if (begin_ns >= end_ns) return;
  Claimant& first = plan.claimants[before];
  const uint64_t head_ns = take(first, begin_ns, end_ns);
  add_segment(plan, begin_ns, begin_ns + head_ns, first);
  begin_ns += head_ns;
  Claimant& last = plan.claimants[behind];
  const uint64_t tail_ns = take(last, begin_ns, end_ns);
  end_ns -= tail_ns;
  for (uint32_t k = 1; k < plan.count && begin_ns < end_ns; ++k) {
    Claimant& claimant = plan.claimants[(before + k) % plan.count];
    const uint64_t length = take(claimant, begin_ns, end_ns);
    add_segment(plan, begin_ns, begin_ns + length, claimant);
    begin_ns += length;
  }
  add_segment(plan, end_ns, end_ns + tail_ns, last);
}

// The next claimant with a place of its own that it uses, from `at` on, around the period.
uint32_t next_holder(const Plan& plan, uint32_t at) {
  for (uint32_t k = 0; k < plan.count; ++k) {
    const uint32_t i = (at + k) % plan.count;
    if (plan.claimants[i].own_ns > 0) return i;
  }
  return at % plan.count;
}

}  // namespace

void set_windows(Plan& plan, Counts counts) {
  set_kinds(plan, counts);
  for (Claimant& claimant : plan.all()) {
    claimant.window = 0;
    claimant.uses_gaps = false;
  }
  uint64_t rest = kFull - std::min(kFull, fit_first_windows(plan));
  for (Claimant& claimant : plan.all()) {
    if (!claimant.own_windows_only()) continue;
    claimant.window = std::min(claimant.part, rest);
    rest -= claimant.window;
  }
  divide_rest(plan, rest);
}

void set_period(Plan& plan) {
  uint32_t places = 0;
  bool several = false;
  bool capped = false;
  bool asked = false;
  uint64_t bound_ns = UINT64_MAX;
  uint64_t smallest = kFull;
  for (const Claimant& claimant : plan.all()) {
    several |= claimant.awake && claimant.gpus > 1;
    capped |= claimant.awake && claimant.max < kFull;
    if (!claimant.awake || !claimant.windowed()) continue;
    ++places;
    smallest = std::min(smallest, std::max(claimant.place, kUnit));
    const bool waits = claimant.waits || claimant.kind == Kind::kLends;
    if (!waits || claimant.place >= kFull) continue;
    asked |= claimant.latency_ns != kDefaultLatencyNs;
    const uint64_t stop_ns = claimant.latency_ns - std::min(claimant.latency_ns / 2, kEdgeNs);
    bound_ns = std::min(bound_ns,
                        stop_ns * kWhole / std::max<uint64_t>((kFull - claimant.place) / kUnit, 1));
  }
  plan.period_ns =
      capped || several ? kCeilingSpanNs : cycle_ns(plan.high_awake ? kMaxSlicesOnGpu : places);
  if (several || plan.high_awake || bound_ns == UINT64_MAX) return;
  const uint64_t place_ns = asked ? kLeastAskedPlaceNs : kLeastPlaceNs;
  const uint64_t least_ns = place_ns * kWhole / (smallest / kUnit);
  // More windows mean more changes: there the shares come first, unless somebody asked for short
  // stops.
  if (!asked) {
    bound_ns = places > 2 ? kPeriodPerManyNs * places
                          : std::min(bound_ns, kPeriodPerWindowNs * std::max(places, 2u));
  }
  bound_ns = std::max(bound_ns, least_ns);
  uint64_t best_us = kPeriodsUs[0];
  for (const uint64_t us : kPeriodsUs) {
    if (us * 1000 <= bound_ns) best_us = us;
  }
  plan.period_ns = std::min(plan.period_ns, best_us * 1000);
}

void pay_edges(Plan& plan, uint64_t Claimant::*window) {
  uint64_t full = 0, waiting = 0;
  const auto waits = [&](const Claimant& one) {
    return one.kind == Kind::kAlone && one.waits && one.*window > 0;
  };
  const auto fills = [&](const Claimant& one) {
    return one.kind == Kind::kAlone && !one.waits && one.*window > 0 && one.max == kFull;
  };
  for (const Claimant& claimant : plan.all()) {
    if (fills(claimant)) full += claimant.*window;
    if (waits(claimant)) ++waiting;
  }
  if (full == 0 || waiting == 0) return;
  const uint64_t each = std::min(kEdgesOfWaitingNs * kFull / plan.period_ns, full / 10 / waiting);
  for (Claimant& claimant : plan.all()) {
    if (waits(claimant)) claimant.*window += each;
    if (fills(claimant)) {
      claimant.*window -= claimant.*window / kWhole * (waiting * each / (full / kWhole + 1));
    }
  }
}

// Who takes windows has a place in the period, whether there is work or not: however the others
// come and go, it does not move, so they cannot (by chance or by design) talk a slice out of its
// time. The places of those without work, and what maxima leave, make up the rest of the windows.
void place_windows(Plan& plan) {
  if (plan.count == 0) return;
  order_places(plan);
  for (Claimant& claimant : plan.all()) {
    const uint64_t window_ns = claimant.windowed() ? plan.period_ns * claimant.window / kFull : 0;
    claimant.place_ns = plan.period_ns * claimant.place / kFull;
    claimant.own_ns = std::min(claimant.place_ns, window_ns);
    claimant.left_ns = window_ns - claimant.own_ns;
  }
  uint64_t at = 0;
  uint64_t gap = 0;  // lent together: up to the next place that is used
  uint32_t before = 0;
  for (uint32_t i = 0; i < plan.count; ++i) {
    if (plan.claimants[i].own_ns > 0) before = i;  // the last one stands before the first
  }
  for (uint32_t i = 0; i < plan.count; ++i) {
    const Claimant& claimant = plan.claimants[i];
    if (claimant.own_ns > 0) {
      if (gap < at) redistribute(plan, gap, at, before, i);
      before = i;
      add_segment(plan, at, at + claimant.own_ns, claimant);
      gap = at + claimant.own_ns;
    }
    at += claimant.place_ns;
  }
  redistribute(plan, gap, plan.period_ns, before, next_holder(plan, 0));
}

}  // namespace allot::core
