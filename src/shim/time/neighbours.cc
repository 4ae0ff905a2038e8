// See neighbours.h.
#include "shim/time/neighbours.h"

#include <string_view>

#include "base/text.h"
#include "core/shared.h"
#include "shm/region_folder.h"
#include "sys/process.h"

namespace allot::shim {
namespace {

using core::load;

constexpr uint32_t kNames = core::kMaxSlicesOnGpu;
constexpr uint64_t kNamesAgeNs = 100'000'000;
// A neighbour that has not shown itself for so long is asked whether it still exists.
constexpr uint64_t kDoubtNs = 25'000'000;

struct Names {
  char folder[shm::kPathBytes];
  char own[shm::kPathBytes];
  char paths[kNames][shm::kPathBytes];
  uint32_t count;
  uint64_t read_ns;
};

constinit Names names = {};
constinit shm::TimeView view = {};

void note_name(void*, const char* path) {
  if (names.count == kNames || std::string_view(path) == names.own) return;
  TextBuf(names.paths[names.count++], shm::kPathBytes).text(path);
}

void read_names(uint64_t now_ns) {
  if (names.read_ns != 0 && now_ns - names.read_ns < kNamesAgeNs) return;
  names.count = 0;
  names.read_ns = now_ns;
  if (names.folder[0] != '\0') shm::list_slices(names.folder, note_name, nullptr);
}

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

// Sums up one slice on one GPU. `header`, `gpus`, `clients` may change under us.
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

}  // namespace

void neighbours_in(const char* own_path) {
  names.count = 0;
  names.read_ns = 0;
  names.folder[0] = '\0';
  TextBuf(names.own, sizeof(names.own)).text(own_path);
  shm::SplitPath parts;
  if (!shm::split_path(own_path, &parts)) return;
  TextBuf(names.folder, sizeof(names.folder)).text(parts.folder);
}

void neighbours_changed() {
  names.read_ns = 0;
}

uint32_t look_at_neighbours(const AllotSliceFile& own, const uint8_t uuid[16], uint64_t now_ns,
                            std::span<Neighbour> out) {
  const uint64_t home = own.header.pid_namespace;
  if (!summarise(own.header, own.gpus, own.clients, uuid, now_ns, home, &out[0])) out[0] = {};
  read_names(now_ns);
  uint32_t count = 1;
  for (uint32_t i = 0; i < names.count && count < out.size(); ++i) {
    if (!shm::read_time_view(names.paths[i], &view)) continue;
    if (summarise(view.header, view.gpus, view.clients, uuid, now_ns, home, &out[count])) ++count;
  }
  return count;
}

void notify_neighbours() {
  for (uint32_t i = 0; i < names.count; ++i) shm::notify_other(names.paths[i]);
}

}  // namespace allot::shim
