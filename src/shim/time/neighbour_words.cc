// See neighbour_words.h.
#include "shim/time/neighbour_words.h"

#include "core/shared.h"
#include "sys/process.h"

namespace allot::shim {
namespace {

using core::load;

// A neighbour that has not shown itself for so long is asked whether it still exists.
constexpr uint64_t kDoubtNs = 25'000'000;

// The same number in every agent: age first, the name where two are equally old.
uint64_t identity(const AllotHeader& header) {
  uint64_t hash = 1469598103934665603u;
  for (uint32_t i = 0; i < ALLOT_NAME_BYTES && header.name[i] != '\0'; ++i) {
    hash = (hash ^ static_cast<uint8_t>(header.name[i])) * 1099511628211u;
  }
  return header.created_unix_ns + (hash & 0xffff);
}

bool shows_life(const AllotGpuClient& client, uint64_t heartbeat_ns, uint64_t now_ns,
                bool same_pids) {
  if (heartbeat_ns > now_ns) return heartbeat_ns - now_ns < ALLOT_CLIENT_STALE_NS;
  const uint64_t age = now_ns - heartbeat_ns;
  if (age > ALLOT_CLIENT_STALE_NS) return false;
  if (age < kDoubtNs || !same_pids) return true;
  return sys::process_exists(ALLOT_SLOT_PID(load(client.owner)));
}

}  // namespace

bool summarise(const AllotHeader& header, const AllotGpu* gpus, const AllotGpuClient* clients,
               const uint8_t uuid[16], uint64_t now_ns, uint64_t my_namespace, Neighbour* out) {
  const uint32_t known = load(header.gpu_count);
  const uint32_t count = known < ALLOT_MAX_GPUS ? known : ALLOT_MAX_GPUS;
  uint32_t gpu = 0;
  while (gpu < count && __builtin_memcmp(gpus[gpu].uuid, uuid, 16) != 0) ++gpu;
  if (gpu == count) return false;
  core::SliceDemand& t = out->slice;
  *out = {};
  t.id = identity(header);
  t.share_permille = load(gpus[gpu].share_permille);
  t.max_permille = load(gpus[gpu].max_permille);
  const uint32_t priority = load(header.priority);
  t.priority = priority == ALLOT_PRIORITY_HIGH  ? ALLOT_PRIORITY_HIGH
               : priority == ALLOT_PRIORITY_LOW ? ALLOT_PRIORITY_LOW
                                                : ALLOT_PRIORITY_NORMAL;
  t.frozen = (load(header.flags) & ALLOT_SLICE_FROZEN) != 0;
  t.latency_us = load(header.latency_us);
  t.saturates = true;
  t.credit = true;
  t.footprint_permille = 0;
  t.repays = true;
  t.awake = false;
  const bool same_pids = header.pid_namespace == my_namespace;
  uint32_t gpus_in_use = 0;
  for (uint32_t i = 0; i < ALLOT_MAX_CLIENTS; ++i) {
    const AllotGpuClient& client = clients[i];
    if (load(client.owner) == 0) continue;
    const uint32_t flags = load(client.flags);
    if ((flags & (ALLOT_CLIENT_ACTIVE | ALLOT_CLIENT_AWAKE)) == 0) continue;
    if (!shows_life(client, load(client.heartbeat_ns), now_ns, same_pids)) continue;
    const uint32_t at = load(client.gpu);
    if (at < ALLOT_MAX_GPUS) gpus_in_use |= 1u << at;
    if (at != gpu) continue;
    t.awake = true;
    if ((flags & ALLOT_CLIENT_ACTIVE) == 0) continue;
    t.active = true;
    ++out->processes;
    const uint32_t busy = load(client.busy_permille);
    if (busy > out->busy_permille) out->busy_permille = busy < core::kWhole ? busy : core::kWhole;
    if ((flags & ALLOT_CLIENT_SATURATES) == 0) t.saturates = false;
    if ((flags & ALLOT_CLIENT_CREDIT) == 0) t.credit = false;
    if ((flags & ALLOT_CLIENT_WAITS) != 0) t.waits = true;
    const uint32_t footprint = load(client.footprint_permille);
    t.footprint_permille += footprint == 0 || footprint > core::kWhole ? core::kWhole : footprint;
    if ((flags & ALLOT_CLIENT_REPAYS) == 0) t.repays = false;
    if ((flags & ALLOT_CLIENT_DRAINS) != 0) t.drains = true;
  }
  if (!t.active) t.repays = t.credit = false;
  if (!t.active || t.footprint_permille > core::kWhole) t.footprint_permille = core::kWhole;
  t.gpus = static_cast<uint32_t>(__builtin_popcount(gpus_in_use));
  if ((load(header.flags) & ALLOT_SLICE_EVICTED) != 0) t.active = false;  // whatever it has waits
  return true;
}

uint64_t told_by(const core::SliceDemand& slice) {
  const uint64_t flags =
      (slice.active ? 1u : 0u) | (slice.saturates ? 2u : 0u) | (slice.frozen ? 4u : 0u) |
      (slice.repays ? 8u : 0u) | (slice.drains ? 16u : 0u) | (slice.credit ? 32u : 0u) |
      (slice.waits ? 64u : 0u) | slice.priority << 7 | uint64_t{slice.latency_us} << 16;
  const uint64_t numbers = uint64_t{slice.share_permille} << 32 | slice.max_permille;
  return (numbers * 1099511628211u ^ flags) * 1099511628211u;
}

}  // namespace allot::shim
