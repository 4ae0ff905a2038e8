// See agent_gpu.h and agent.h.
//
// Edges. A window begins when the channels have been enabled and ends when they have been disabled;
// both calls take about half a millisecond. So the next one's channels are enabled before the edge,
// early by what that call cost last time, and only at the edge the last one's are disabled: there
// is no moment in which the card has no work. (Measured on an H200 with periods of 20 ms: 96.8 % of
// one alone in sum; closing early by half the cost of the call 96.0, by all of it 95.1, opening at
// the edge 95.0.)
#include "shim/time/agent_gpu.h"

#include "core/shared.h"
#include "shim/process/burst_counter.h"
#include "shim/process/process.h"
#include "shim/time/gpu_clients.h"
#include "shim/time/launch_gate.h"
#include "shim/time/submit.h"
#include "shm/time_view.h"
#include "sys/clock.h"

namespace allot::shim {

using core::load;
using core::store;

namespace {

constexpr uint64_t kPresentNs = 500'000'000;  // a high-priority slice between two requests
constexpr uint64_t kDrainLookNs = 2'000'000;  // the prober wakes us when it has ended
constexpr uint32_t kNoGapsPermille = 900;
constexpr uint32_t kNeighbours = core::kMaxSlicesOnGpu;

constinit Neighbour neighbours[kNeighbours] = {};
constinit core::SliceDemand slices[kNeighbours] = {};
constinit core::TimeGrant grants[kNeighbours] = {};

uint64_t smooth(uint64_t before, uint64_t now) {
  const uint64_t bounded = now < 3'000'000 ? now : 3'000'000;
  return (before * 7 + bounded) / 8;
}

}  // namespace

struct Worker::Situation {
  uint32_t active = 0;           // slices on the GPU with work
  uint32_t processes = 1;        // of ours, with work
  uint32_t part = core::kWhole;  // of the GPU while ours runs, beside the others
  bool undisturbed = true;       // no other slice runs beside ours
  bool mine_active = false;
  bool limited = false;  // a ceiling is on us
  bool granted = false;  // a share, a ceiling or a priority
};

void Worker::assign(uint32_t ordinal) {
  *this = Worker{};
  ordinal_ = ordinal;
  gate_.assign(ordinal);
}

// Where the process has, or makes, a context it has a place (gpu_clients.h); elsewhere nothing is
// to be held.
bool Worker::register_client(bool channels) {
  AllotGpuClient* client = client_on(ordinal_, channels);
  if (client == nullptr && client_ != nullptr) {
    set_open(true);
    gate_.closes_at(UINT64_MAX);
    if (level_ == ALLOT_LEVEL_LAUNCH) gate_.guard(false);
    assign(ordinal_);
  }
  client_ = client;
  return client_ != nullptr;
}

// Everything runs again, and the next level down is tried.
AllotLevelReason Worker::fall_back(AllotLevelReason reason) {
  channels_.set_open(true);
  channels_.set_timeslice(0);
  open_ = true;
  debt_.forget();
  note_open(activity_of(ordinal_), true, sys::monotonic_ns());
  level_ = ALLOT_LEVEL_LAUNCH;
  return reason;
}

void Worker::choose_level(bool have_channels) {
  const AllotLevel asked = static_cast<AllotLevel>(load(process.slice.file->header.level) & 3u);
  const bool waits = level_ == ALLOT_LEVEL_LAUNCH && !have_channels;  // for channels, at the gate
  const bool more = have_channels && channels_.more();
  if (asked == asked_ && more == more_channels_ && (level_known_ || waits)) return;
  if (more && level_ == ALLOT_LEVEL_CHANNEL) channels_.let_all_run(static_cast<int>(ordinal_));
  more_channels_ = more;
  set_open(true);
  gate_.closes_at(UINT64_MAX);
  if (level_ == ALLOT_LEVEL_LAUNCH) gate_.guard(false);
  debt_.forget();
  asked_ = asked;
  if (asked == ALLOT_LEVEL_OBSERVE || asked == ALLOT_LEVEL_LAUNCH) {
    level_ = asked;
    reason_ = ALLOT_REASON_ASKED;
    level_known_ = true;
    return;
  }
  if (!have_channels) {
    // No context yet: nothing to hold so far. With work on the GPU all the same, its channels are
    // another process's (an MPS server's) or came by a way that we do not know.
    if (!activity_of(ordinal_).unfinished.load(std::memory_order_acquire)) return;
    level_ = ALLOT_LEVEL_LAUNCH;
    reason_ = ALLOT_REASON_NO_CHANNELS;
    return;
  }
  const AllotLevelReason refused = more ? ALLOT_REASON_TABLES : channels_.probe();
  level_ = ALLOT_LEVEL_CHANNEL;
  reason_ = refused == ALLOT_REASON_NONE ? ALLOT_REASON_NONE : fall_back(refused);
  level_known_ = true;
}

void Worker::detach() {
  if (!register_client(false)) return;
  set_open(true);
  if (level_ == ALLOT_LEVEL_LAUNCH) gate_.set_open(true, sys::monotonic_ns());
  submit_watch.fetch_and(~kGate, std::memory_order_acq_rel);
  ceiling_.run(sys::monotonic_ns(), false);
  debt_.forget();
  channels_ = Channels{};
}

void Worker::show_detached(uint64_t now_ns) {
  AllotSlot& slot = process.slice.file->slots[process.slot.index];
  const bool active = activity_of(ordinal_).active.load(std::memory_order_acquire);
  if (active || watched_calls_under_way() != 0) store(slot.wants, 1u);
  if (!register_client(false)) return;
  const uint32_t slice = load(process.slice.file->header.flags);
  uint32_t flags = ALLOT_CLIENT_OPEN | ALLOT_CLIENT_DETACHED | (active ? ALLOT_CLIENT_ACTIVE : 0u);
  // What is not on the card stands still; frozen again when it comes back.
  if ((slice & ALLOT_SLICE_FROZEN) != 0 && load(slot.evicted) != 0) flags |= ALLOT_CLIENT_FROZEN;
  store(client_->heartbeat_ns, now_ns);
  store(client_->flags, flags);
}

// Its channels may be others now, and may be held in another way.
void Worker::reattach() {
  channels_ = Channels{};
  level_known_ = false;
  open_ = true;
}

// What runs beside us, and how much of the GPU we get of it while we have work: the card gives it
// by timeslices to those that have work, so a neighbour counts as far as it is busy and allowed to
// run.
//     1 / part = 1 + sum over neighbours (1 / p - 1),  p = 1 - busy + busy x ours / (ours + theirs)
void Worker::look_beside(uint32_t count, Situation* situation) {
  constexpr uint64_t kOne = 1'000'000;
  const auto slice = [](const core::TimeGrant& grant) {
    return uint64_t{grant.timeslice_us != 0 ? grant.timeslice_us : ALLOT_RM_LIBCUDA_TIMESLICE_US};
  };
  const bool windowed = grants[0].window_permille < core::kWhole;
  const uint64_t ours = slice(grants[0]);
  uint64_t inverse = kOne;
  for (uint32_t i = 1; i < count; ++i) {
    if (!slices[i].active || slices[i].repays) continue;
    const uint64_t window = grants[i].window_permille;
    if (windowed && window < core::kWhole) continue;  // one after the other
    situation->undisturbed = false;
    const uint64_t busy = uint64_t{neighbours[i].busy_permille} * window;  // of kOne
    const uint64_t p = kOne - busy + busy * ours / (ours + slice(grants[i]));
    inverse += kOne * kOne / (p > 0 ? p : 1) - kOne;
  }
  situation->part = static_cast<uint32_t>(kOne * core::kWhole / inverse);
}

core::TimeGrant Worker::plan(uint64_t at_ns, Situation* situation) {
  const AllotSliceFile& file = *process.slice.file;
  const uint32_t count = look_at_neighbours(file, process.devices[ordinal_].uuid, at_ns,
                                            std::span<Neighbour>(neighbours));
  *situation = {};
  situation->processes = neighbours[0].processes > 0 ? neighbours[0].processes : 1;
  for (uint32_t i = 0; i < count; ++i) {
    slices[i] = neighbours[i].slice;
    if (slices[i].active) ++situation->active;
  }
  const bool launch = level_ == ALLOT_LEVEL_LAUNCH;
  if (launch) {
    take_turn(at_ns, count);
  } else {
    slices[0].repays = false;
    core::plan_gpu(std::span(slices, count), at_ns, std::span(grants, count));
  }
  look_beside(count, situation);
  if (!grants[0].undisturbed && grants[0].window_permille < core::kWhole) {
    situation->undisturbed = false;
    const uint32_t part = grants[0].part_permille * core::kWhole;
    const uint32_t open = grants[0].window_permille > 0 ? grants[0].window_permille : 1;
    situation->part = part / open < core::kWhole ? part / open : core::kWhole;
  }
  if (launch && debt_.part_permille() < core::kWhole) {
    situation->part = debt_.part_permille();
    situation->undisturbed = false;
  }
  const core::SliceDemand& mine = slices[0];
  situation->mine_active = mine.active;
  situation->limited = mine.max_permille > 0 && mine.max_permille < core::kWhole;
  situation->granted =
      mine.share_permille > 0 || situation->limited || mine.priority != ALLOT_PRIORITY_NORMAL;
  const bool cut = grants[0].window_permille < core::kWhole;
  using Kind = core::WindowCeiling::Kind;
  ceiling_.set(launch ? mine.max_permille : max_of_open_time(mine.max_permille),
               !cut                    ? Kind::kExact
               : launch                ? Kind::kNone
               : situation->active > 1 ? Kind::kNetBeside
                                       : Kind::kNet,
               at_ns);
  return grants[0];
}

// Small changes are the measure's noise.
uint32_t Worker::max_of_open_time(uint32_t max_permille) {
  const uint32_t known = activity_of(ordinal_).use_permille.load(std::memory_order_relaxed);
  const uint32_t max = core::max_of_open_time(max_permille, saturates(), known, use_);
  const uint32_t by = max > max_in_force_ ? max - max_in_force_ : max_in_force_ - max;
  if (by > 5 || max == 0 || max_in_force_ == 0) max_in_force_ = max;
  return max_in_force_;
}

void Worker::look_at_use(uint64_t now_ns, const core::TimeGrant& grant,
                         const Situation& situation) {
  Activity& activity = activity_of(ordinal_);
  const bool counted = situation.granted || situation.active > 1;
  activity.use_wanted.store(situation.granted && situation.active <= 1, std::memory_order_relaxed);
  if (counted) {
    submit_watch.fetch_or(kBursts, std::memory_order_acq_rel);
  } else {
    submit_watch.fetch_and(~kBursts, std::memory_order_acq_rel);
  }
  const BurstCounts counts = burst_counts(now_ns);
  use_.look(now_ns, {counts.open_ns, counts.bursts, counts.busy_ns, counts.waits},
            {situation.undisturbed, grant.window_permille < core::kWhole,
             grant.part_permille / situation.processes, grant.first});
  const bool gaps = counted && footprint_permille() < core::kWhole;
  activity.burst_gpu_ns.store(gaps ? use_.burst_ns() : 0, std::memory_order_relaxed);
}

bool Worker::saturates() const {
  const Activity& activity = activity_of(ordinal_);
  const bool known = activity.busy_known.load(std::memory_order_relaxed);
  return core::saturates(activity.saturates.load(std::memory_order_relaxed),
                         known ? activity.busy_permille.load(std::memory_order_relaxed) : 0,
                         activity.use_permille.load(std::memory_order_relaxed), use_);
}

uint32_t Worker::footprint_permille() const {
  const Activity& activity = activity_of(ordinal_);
  const uint32_t seen = activity.busy_at_random_permille.load(std::memory_order_relaxed);
  return saturates() || seen > kNoGapsPermille ? core::kWhole : use_.footprint_permille();
}

// At level launch: what it owes decides, too.
void Worker::take_turn(uint64_t at_ns, uint32_t count) {
  debt_.plan(std::span(slices, count), at_ns, std::span(grants, count));
  // Work that may wait for a launch which the gate holds: let it come, whatever is owed.
  if (debt_.repays() && debt_.in_window() && gate_stuck(at_ns)) grants[0].open = true;
}

// What ran behind the closed gate counts until it has ended.
void Worker::look_at_drain(uint64_t now_ns) {
  uint64_t ended_ns = now_ns;
  Activity& activity = activity_of(ordinal_);
  const bool draining = gate_.draining();
  const bool ended = draining && gate_.drained(now_ns, &ended_ns);
  debt_.account(now_ns, draining || (open_ && activity.active.load(std::memory_order_acquire)));
  if (!ended) return;
  debt_.refund(now_ns - ended_ns);
  note_open(activity, false, ended_ns);
  ceiling_.run(ended_ns, false);
}

void Worker::set_open(bool open) {
  if (open == open_ && (level_ != ALLOT_LEVEL_CHANNEL || channels_.open() == open)) return;
  const uint64_t begin = sys::monotonic_ns();
  if (level_ == ALLOT_LEVEL_CHANNEL) {
    if (!channels_.set_open(open)) {
      // Channels may have come or gone under the call: once more with what is known now.
      channels_.refresh(static_cast<int>(ordinal_));
      if (!channels_.set_open(open)) {
        reason_ = fall_back(ALLOT_REASON_CONTROL);
        return;
      }
    }
  } else if (level_ == ALLOT_LEVEL_LAUNCH) {
    gate_.set_open(open, begin);
  }
  const uint64_t end = sys::monotonic_ns();
  uint64_t& cost = open ? open_cost_ns_ : close_cost_ns_;
  cost = smooth(cost, end - begin);
  open_ = open;
  const bool busy = activity_of(ordinal_).active.load(std::memory_order_acquire);
  // Seen on an H100: work runs from the end of the call that enables its channels, and up to the
  // middle of the one that disables them (10 % and 25 % ceilings agree with throughput within 0.2
  // ms a window).
  const uint64_t at = open ? end : begin + (end - begin) / 2;
  // Behind a closed gate work runs until it has drained.
  if (gate_.draining()) return;
  note_open(activity_of(ordinal_), open, at);
  ceiling_.run(at, open && busy);
  if (open) wake_prober();
}

void Worker::set_timeslice(const core::TimeGrant& grant, const Situation& situation) {
  if (level_ != ALLOT_LEVEL_CHANNEL || !grant.open || !situation.mine_active) return;
  if (situation.active < 2) return;  // alone: whatever it is does no harm
  uint32_t slice = grant.timeslice_us / situation.processes;
  if (slice == 0) slice = grant.timeslice_us != 0 ? 1 : 0;
  if (!channels_.set_timeslice(slice)) reason_ = fall_back(ALLOT_REASON_CONTROL);
}

bool Worker::publish(uint64_t now_ns, const core::TimeGrant& grant, const Situation& situation) {
  Activity& activity = activity_of(ordinal_);
  activity.part_permille.store(situation.part / situation.processes, std::memory_order_relaxed);
  activity.undisturbed.store(situation.undisturbed, std::memory_order_release);
  bool active = activity.active.load(std::memory_order_acquire);
  if (active) {
    present_until_ns_ = now_ns + kPresentNs;
    awake_until_ns_ = now_ns + core::kAwakeNs;
    store(process.slice.file->slots[process.slot.index].last_work_ns, now_ns);
  }
  const bool high = load(process.slice.file->header.priority) == ALLOT_PRIORITY_HIGH;
  const uint32_t footprint = footprint_permille();
  const bool credit = use_.credit() && footprint < core::kWhole;
  if ((high || credit) && now_ns < present_until_ns_) active = true;
  uint32_t flags = active ? ALLOT_CLIENT_ACTIVE : 0u;
  if (saturates()) flags |= ALLOT_CLIENT_SATURATES;
  if (open_) flags |= ALLOT_CLIENT_OPEN;
  if (!open_ && slices[0].frozen && !gate_.draining()) flags |= ALLOT_CLIENT_FROZEN;
  if (active || now_ns < awake_until_ns_) flags |= ALLOT_CLIENT_AWAKE;
  if (gate_.drains_long(now_ns)) flags |= ALLOT_CLIENT_DRAINS;
  if (debt_.repays()) flags |= ALLOT_CLIENT_REPAYS;
  if (credit) flags |= ALLOT_CLIENT_CREDIT;
  if (use_.waits()) flags |= ALLOT_CLIENT_WAITS;
  const uint32_t before = load(client_->flags);
  store(client_->heartbeat_ns, now_ns);
  store(client_->flags, flags);
  store(client_->level, static_cast<uint32_t>(level_));
  store(client_->reason, static_cast<uint32_t>(crowded_ ? ALLOT_REASON_CROWDED : reason_));
  store(client_->timeslice_us, channels_.timeslice_us());
  store(client_->busy_permille,
        static_cast<uint16_t>(activity.busy_permille.load(std::memory_order_relaxed)));
  // Windows follow from it: small changes are not worth moving them.
  const uint32_t shown = load(client_->footprint_permille);
  const uint32_t by = footprint > shown ? footprint - shown : shown - footprint;
  if (by >= 15 || footprint == core::kWhole) {
    store(client_->footprint_permille, static_cast<uint16_t>(footprint));
  }
  store(client_->window_permille, grant.window_permille);
  const uint64_t config = load(process.slice.file->header.config_sequence);
  const bool changed = config != config_seen_;
  config_seen_ = config;
  constexpr uint32_t kSeen = ALLOT_CLIENT_ACTIVE | ALLOT_CLIENT_SATURATES | ALLOT_CLIENT_REPAYS |
                             ALLOT_CLIENT_DRAINS | ALLOT_CLIENT_AWAKE | ALLOT_CLIENT_CREDIT |
                             ALLOT_CLIENT_WAITS;
  return changed || ((flags ^ before) & kSeen) != 0;
}

// How long before an edge its call has to be made (see the top).
uint64_t Worker::lead_ns() const {
  if (level_ != ALLOT_LEVEL_CHANNEL) return 0;
  return open_ ? 0 : open_cost_ns_;
}

Worker::Outcome Worker::step(uint64_t now_ns) {
  const bool have_channels = channels_.refresh(static_cast<int>(ordinal_));
  if (!register_client(have_channels)) return {UINT64_MAX, Pace::kAlone, false};
  choose_level(have_channels);
  // Channels that came while the window was closed run: close them too.
  if (level_ == ALLOT_LEVEL_CHANNEL && have_channels && channels_.open() != open_) {
    const bool open = open_;
    open_ = channels_.open();
    set_open(open);
  }
  if (level_ == ALLOT_LEVEL_LAUNCH) look_at_drain(now_ns);
  Situation situation;
  const uint64_t at = now_ns + lead_ns();
  core::TimeGrant grant = plan(at, &situation);
  crowded_ = slices[0].awake && !neighbours[0].fits;  // by 64 older ones: nobody weighs us
  say_crowded_out(ordinal_, crowded_);
  if (crowded_ && !slices[0].frozen) grant = {true, UINT64_MAX, 0, core::kWhole};
  Activity& activity = activity_of(ordinal_);
  if (open_) ceiling_.run(now_ns, activity.active.load(std::memory_order_acquire));
  uint64_t until = grant.until_ns;
  const uint64_t ceiling_until = ceiling_.hold(at, open_, &grant);
  if (ceiling_until < until) until = ceiling_until;
  if (level_ == ALLOT_LEVEL_LAUNCH) {
    gate_.guard(situation.limited || situation.active > 1 || slices[0].frozen);
    gate_.closes_at(grant.open ? until : UINT64_MAX);
  }
  if (level_ == ALLOT_LEVEL_CHANNEL || level_ == ALLOT_LEVEL_LAUNCH) {
    set_timeslice(grant, situation);
    set_open(grant.open);
  }
  look_at_use(now_ns, grant, situation);
  const bool news = publish(sys::monotonic_ns(), grant, situation);
  const bool windows = situation.limited || grant.window_permille < core::kWhole;
  const Pace pace = !situation.mine_active || (situation.active < 2 && !situation.limited)
                        ? Pace::kAlone
                    : windows ? Pace::kWindows
                              : Pace::kBeside;
  if (until != UINT64_MAX) {
    const uint64_t lead = lead_ns();
    until = until > lead ? until - lead : 0;
  }
  if (gate_.draining()) {
    const uint64_t look = sys::monotonic_ns() + kDrainLookNs;
    if (look < until) until = look;
  }
  return {until, pace, news};
}

}  // namespace allot::shim
