// What a GPU's agent knows and says: the plan, the ceiling, how the slice uses the GPU, and the
// client that neighbours and `ps` read. See agent_gpu.h.
#include "core/shared.h"
#include "shim/process/burst_counter.h"
#include "shim/process/process.h"
#include "shim/time/agent_gpu.h"
#include "shim/time/gpu_clients.h"
#include "shim/time/launch_gate.h"
#include "shim/time/submit.h"
#include "sys/clock.h"

namespace allot::shim {

using core::GpuState;
using core::load;
using core::store;

namespace {

constexpr uint64_t kPresentNs = 500'000'000;  // a high-priority slice between two requests
constexpr uint32_t kNoGapsPermille = 900;

}  // namespace

// What runs beside us, and how much of the GPU we get of it while we have work: the card gives it
// by timeslices to those that have work, so a neighbour counts as far as it is busy and allowed to
// run.
//     1 / part = 1 + sum over neighbours (1 / p - 1),  p = 1 - busy + busy x ours / (ours + theirs)
void GpuAgent::look_beside(uint32_t count, core::GpuScene* scene) {
  constexpr uint64_t kOne = 1'000'000;
  const auto slice = [](const core::TimeGrant& grant) {
    return uint64_t{grant.timeslice_us != 0 ? grant.timeslice_us : ALLOT_RM_LIBCUDA_TIMESLICE_US};
  };
  const bool windowed = room_->grants[0].window_permille < core::kWhole;
  const uint64_t ours = slice(room_->grants[0]);
  uint64_t inverse = kOne;
  for (uint32_t i = 1; i < count; ++i) {
    if (!room_->slices[i].active || room_->slices[i].repays) continue;
    const uint64_t window = room_->grants[i].window_permille;
    if (windowed && window < core::kWhole) continue;  // one after the other
    scene->undisturbed = false;
    const uint64_t busy = uint64_t{room_->neighbours[i].busy_permille} * window;  // of kOne
    const uint64_t p = kOne - busy + busy * ours / (ours + slice(room_->grants[i]));
    inverse += kOne * kOne / (p > 0 ? p : 1) - kOne;
  }
  scene->part = static_cast<uint32_t>(kOne * core::kWhole / inverse);
}

// At level launch: what it owes decides, too.
void GpuAgent::take_turn(uint64_t at_ns, uint32_t count) {
  debt_.plan(std::span(room_->slices, count), at_ns, std::span(room_->grants, count));
  // Work that may wait for a launch which the gate holds: let it come, whatever is owed.
  if (debt_.repays() && debt_.in_window() && gate_stuck(at_ns)) room_->grants[0].open = true;
}

core::TimeGrant GpuAgent::plan(uint64_t at_ns, core::GpuScene* scene) {
  const AllotSliceFile& file = *process.slice.file;
  const uint32_t count = look_at_neighbours(file, process.devices[ordinal_].uuid, at_ns,
                                            std::span<Neighbour>(room_->neighbours));
  *scene = {};
  scene->processes = room_->neighbours[0].processes > 0 ? room_->neighbours[0].processes : 1;
  for (uint32_t i = 0; i < count; ++i) {
    room_->slices[i] = room_->neighbours[i].slice;
    if (room_->slices[i].active) ++scene->active;
  }
  const bool launch = core::at_gate(machine_.state());
  if (launch) {
    take_turn(at_ns, count);
  } else {
    room_->slices[0].repays = false;
    core::plan_gpu(std::span(room_->slices, count), at_ns, std::span(room_->grants, count));
  }
  look_beside(count, scene);
  const core::TimeGrant& grant = room_->grants[0];
  if (!grant.undisturbed && grant.window_permille < core::kWhole) {
    scene->undisturbed = false;
    const uint32_t part = grant.part_permille * core::kWhole;
    const uint32_t open = grant.window_permille > 0 ? grant.window_permille : 1;
    scene->part = part / open < core::kWhole ? part / open : core::kWhole;
  }
  if (launch && debt_.part_permille() < core::kWhole) {
    scene->part = debt_.part_permille();
    scene->undisturbed = false;
  }
  const core::SliceDemand& mine = room_->slices[0];
  scene->mine_active = mine.active;
  scene->limited = mine.max_permille > 0 && mine.max_permille < core::kWhole;
  scene->frozen = mine.frozen;
  scene->crowded = mine.awake && !room_->neighbours[0].fits;  // by 64 older ones: nobody weighs us
  say_crowded_out(ordinal_, scene->crowded);
  scene->granted =
      mine.share_permille > 0 || scene->limited || mine.priority != ALLOT_PRIORITY_NORMAL;
  const bool cut = grant.window_permille < core::kWhole;
  using Kind = core::WindowCeiling::Kind;
  ceiling_.set(launch ? mine.max_permille : max_of_open_time(mine.max_permille),
               !cut                ? Kind::kExact
               : launch            ? Kind::kNone
               : scene->active > 1 ? Kind::kNetBeside
                                   : Kind::kNet,
               at_ns);
  return grant;
}

uint64_t GpuAgent::hold_ceiling(uint64_t now_ns, uint64_t at_ns, bool open,
                                core::TimeGrant* grant) {
  if (open) ceiling_.run(now_ns, active());
  return ceiling_.hold(at_ns, open, grant);
}

// Small changes are the measure's noise.
uint32_t GpuAgent::max_of_open_time(uint32_t max_permille) {
  const uint32_t known = activity_of(ordinal_).use_permille.load(std::memory_order_relaxed);
  const uint32_t max = core::max_of_open_time(max_permille, saturates(), known, use_);
  const uint32_t by = max > max_in_force_ ? max - max_in_force_ : max_in_force_ - max;
  if (by > 5 || max == 0 || max_in_force_ == 0) max_in_force_ = max;
  return max_in_force_;
}

void GpuAgent::look_at_use(uint64_t now_ns, const core::TimeGrant& grant,
                           const core::GpuScene& scene) {
  Activity& activity = activity_of(ordinal_);
  const bool counted = scene.granted || scene.active > 1;
  activity.use_wanted.store(scene.granted && scene.active <= 1, std::memory_order_relaxed);
  if (counted) {
    submit_watch.fetch_or(kBursts, std::memory_order_acq_rel);
  } else {
    submit_watch.fetch_and(~kBursts, std::memory_order_acq_rel);
  }
  const BurstCounts counts = burst_counts(now_ns);
  use_.look(now_ns, {counts.open_ns, counts.bursts, counts.busy_ns, counts.waits},
            {scene.undisturbed, grant.window_permille < core::kWhole,
             grant.part_permille / scene.processes, grant.first});
  const bool gaps = counted && footprint_permille() < core::kWhole;
  activity.burst_gpu_ns.store(gaps ? use_.burst_ns() : 0, std::memory_order_relaxed);
}

bool GpuAgent::saturates() const {
  const Activity& activity = activity_of(ordinal_);
  const bool known = activity.busy_known.load(std::memory_order_relaxed);
  return core::saturates(activity.saturates.load(std::memory_order_relaxed),
                         known ? activity.busy_permille.load(std::memory_order_relaxed) : 0,
                         activity.use_permille.load(std::memory_order_relaxed), use_);
}

uint32_t GpuAgent::footprint_permille() const {
  const Activity& activity = activity_of(ordinal_);
  const uint32_t seen = activity.busy_at_random_permille.load(std::memory_order_relaxed);
  return saturates() || seen > kNoGapsPermille ? core::kWhole : use_.footprint_permille();
}

// What it says of itself in this round.
uint32_t GpuAgent::client_flags(uint64_t now_ns, const core::GpuScene& scene, bool credit) {
  bool present = active();
  if (present) {
    present_until_ns_ = now_ns + kPresentNs;
    awake_until_ns_ = now_ns + core::kAwakeNs;
    store(process.slice.file->slots[process.slot.index].last_work_ns, now_ns);
  }
  const bool high = load(process.slice.file->header.priority) == ALLOT_PRIORITY_HIGH;
  if ((high || credit) && now_ns < present_until_ns_) present = true;
  const GpuState state = machine_.state();
  uint32_t flags = present ? ALLOT_CLIENT_ACTIVE : 0u;
  if (saturates()) flags |= ALLOT_CLIENT_SATURATES;
  if (open()) flags |= ALLOT_CLIENT_OPEN;
  if (!open() && scene.frozen && state != GpuState::kDrains) flags |= ALLOT_CLIENT_FROZEN;
  if (present || now_ns < awake_until_ns_) flags |= ALLOT_CLIENT_AWAKE;
  if (gate_.drains_long(now_ns)) flags |= ALLOT_CLIENT_DRAINS;
  if (debt_.repays()) flags |= ALLOT_CLIENT_REPAYS;
  if (credit) flags |= ALLOT_CLIENT_CREDIT;
  if (use_.waits()) flags |= ALLOT_CLIENT_WAITS;
  return flags;
}

bool GpuAgent::publish(const core::TimeGrant& grant, const core::GpuScene& scene) {
  const uint64_t now_ns = sys::monotonic_ns();
  look_at_use(now_ns, grant, scene);
  Activity& activity = activity_of(ordinal_);
  activity.part_permille.store(scene.part / scene.processes, std::memory_order_relaxed);
  activity.undisturbed.store(scene.undisturbed, std::memory_order_release);
  const uint32_t footprint = footprint_permille();
  const uint32_t flags = client_flags(now_ns, scene, use_.credit() && footprint < core::kWhole);
  const uint32_t before = load(client_->flags);
  store(client_->heartbeat_ns, now_ns);
  store(client_->flags, flags);
  store(client_->level, static_cast<uint32_t>(core::level_of(machine_.state())));
  store(client_->reason,
        static_cast<uint32_t>(scene.crowded ? ALLOT_REASON_CROWDED : machine_.reason()));
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

}  // namespace allot::shim
