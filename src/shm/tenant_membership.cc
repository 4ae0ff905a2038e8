// Inside a tenant: who is alive, which GPUs there are, and which tenant a stray process belongs to.
// See region.h.
#include <string_view>

#include "base/atomic16.h"
#include "base/text.h"
#include "core/shared.h"
#include "shm/tenant_file.h"
#include "sys/process.h"

namespace allot::shm {
namespace {

// Bound on the chain of ancestors; a parent loop is impossible, a very deep chain is not ours.
constexpr uint32_t kAncestors = 64;

// Whether a process may still run, judged by pid and start time (0 = any).
bool may_run(uint32_t pid, uint64_t start_time) {
  auto process = sys::read_process(sys::Root{}, pid);
  if (!process) return process.error().code != Errc::kNotFound;  // cannot be asked
  if (process->gone()) return false;
  return start_time == 0 || process->start_time == start_time;
}

bool foreign_namespace(uint64_t inode) {
  auto mine = sys::pid_namespace(sys::Root{}, 0);
  return !mine || *mine != inode;
}

// An image that exec put in the place of ours does not map the file any more.
bool still_mapped(void* file, uint32_t pid) {
  if (file == nullptr) return true;
  auto key = sys::mapped_at(sys::Root{}, file);
  if (!key) return true;
  auto mapped = sys::process_maps(sys::Root{}, pid, *key);
  return !mapped || *mapped;
}

// A walk from a process to its ancestors.
struct Chain {
  sys::Process processes[kAncestors];
  uint32_t count;
};

void read_chain(uint32_t pid, Chain& chain) {
  chain.count = 0;
  while (pid != 0 && chain.count < kAncestors) {
    auto process = sys::read_process(sys::Root{}, pid);
    if (!process) return;
    chain.processes[chain.count++] = *process;
    pid = process->parent;
  }
}

// How near the tenant is to the process at the start of the chain; kAncestors = not at all.
uint32_t distance(const AllotTenantFile& file, const Chain& chain) {
  uint32_t best = kAncestors;
  const AllotHeader& header = file.header;
  for (uint32_t i = 0; i < chain.count; ++i) {
    const sys::Process& process = chain.processes[i];
    if (header.launcher_pid > 0 && static_cast<uint32_t>(header.launcher_pid) == process.pid &&
        header.launcher_start == process.start_time) {
      best = i;
      break;
    }
  }
  const uint32_t high = core::slots_of(file);
  for (uint32_t s = 0; s < high; ++s) {
    const uint64_t word = core::load(file.slot_words[s]);
    if (ALLOT_SLOT_STATE(word) != ALLOT_SLOT_LIVE) continue;
    for (uint32_t i = 0; i < best && i < chain.count; ++i) {
      if (chain.processes[i].pid == ALLOT_SLOT_PID(word) &&
          chain.processes[i].start_time == core::load(file.slots[s].start_time)) {
        best = i;
      }
    }
  }
  return best;
}

struct NearestTenant {
  const Chain* chain;
  uint64_t home;
  char* out;
  uint32_t best;
};

void consider_nearest(void* context, const char* path) {
  NearestTenant& nearest = *static_cast<NearestTenant*>(context);
  auto tenant = open_tenant(path, false);
  if (!tenant) return;
  // Only the user's own: the header is what its owner wrote, and must not draw in other users' processes.
  if (tenant->owner_uid == sys::user_id() && tenant->file->header.pid_namespace == nearest.home) {
    const uint32_t d = distance(*tenant->file, *nearest.chain);
    if (d < nearest.best) {
      nearest.best = d;
      TextBuf(nearest.out, kPathBytes).text(path);
    }
  }
  unmap(*tenant);
}

struct DefaultTenant {
  char* out;
  bool found;
};

void consider_default(void* context, const char* path) {
  DefaultTenant& wanted = *static_cast<DefaultTenant*>(context);
  if (wanted.found) return;
  auto tenant = open_tenant(path, false);
  if (!tenant) return;
  if ((tenant->file->header.flags & ALLOT_TENANT_DEFAULT) != 0 &&
      tenant->owner_uid == sys::user_id() && tenant_in_use(*tenant)) {
    wanted.found = true;
    TextBuf(wanted.out, kPathBytes).text(path);
  }
  unmap(*tenant);
}

}  // namespace

bool process_alive(void* context, uint32_t pid, const AllotSlot& slot) {
  if (foreign_namespace(slot.pid_namespace)) return true;
  if (!may_run(pid, slot.start_time)) return false;
  return slot.execing == 0 || still_mapped(context, pid);
}

uint32_t reclaim_dead(Tenant& tenant) {
  return core::Ledger(tenant.file).reclaim(process_alive, tenant.file);
}

bool tenant_in_use(const Tenant& tenant, uint32_t except_pid) {
  const AllotTenantFile& file = *tenant.file;
  const uint64_t home = file.header.pid_namespace;
  const int32_t launcher = file.header.launcher_pid;
  if (launcher > 0 && static_cast<uint32_t>(launcher) != except_pid &&
      (foreign_namespace(home) ||
       may_run(static_cast<uint32_t>(launcher), file.header.launcher_start))) {
    return true;
  }
  const uint32_t high = core::slots_of(file);
  for (uint32_t i = 0; i < high; ++i) {
    const uint64_t word = core::load(file.slot_words[i]);
    const uint8_t state = ALLOT_SLOT_STATE(word);
    const uint32_t pid = ALLOT_SLOT_PID(word);
    if (state == ALLOT_SLOT_FREE || pid == except_pid) continue;
    AllotSlot copy = {};
    copy.pid_namespace = home;
    if (state != ALLOT_SLOT_TAKING) {
      copy.pid_namespace = core::load(file.slots[i].pid_namespace);
      copy.start_time = core::load(file.slots[i].start_time);
      copy.execing = core::load(file.slots[i].execing);
    }
    if (pid == 0 || process_alive(tenant.writable ? tenant.file : nullptr, pid, copy)) return true;
  }
  return false;
}

void set_execing(Tenant& tenant, core::SlotId slot, bool execing) {
  if (!core::Ledger(tenant.file).live(slot)) return;
  // A child of vfork shares our memory and calls exec for itself, not for us.
  const uint64_t word = core::load(tenant.file->slot_words[slot.index]);
  if (ALLOT_SLOT_PID(word) != sys::current_pid()) return;
  core::store(tenant.file->slots[slot.index].execing, execing ? 1u : 0u);
}

Result<uint32_t> find_or_add_gpu(Tenant& tenant, const uint8_t uuid[16], uint64_t limit_bytes,
                                 uint64_t physical_bytes) {
  Pair16 wanted;
  __builtin_memcpy(&wanted, uuid, sizeof(wanted));
  if ((wanted.low | wanted.high) == 0 || limit_bytes == 0 || physical_bytes == 0) {
    return fail(Errc::kBadValue);
  }
  AllotTenantFile& file = *tenant.file;
  for (uint32_t i = 0; i < ALLOT_MAX_GPUS; ++i) {
    // All who add go through the entries in one order and claim the first empty one by its uuid, so
    // two with the same uuid meet at the same entry. What comes after the claim anybody may finish.
    Pair16 seen = {0, 0};
    if (!cas16(file.gpus[i].uuid, seen, wanted) &&
        (seen.low != wanted.low || seen.high != wanted.high)) {
      continue;
    }
    uint64_t unset = 0;
    core::cas(file.gpus[i].limit_bytes, unset, limit_bytes);
    unset = 0;
    core::cas(file.gpus[i].physical_bytes, unset, physical_bytes);
    core::raise_to(file.header.gpu_count, i + 1);
    return i;
  }
  return fail(Errc::kFull);
}

Result<void> find_tenant_of_ancestors(const char* folder, uint32_t pid, char* out) {
  auto home = sys::pid_namespace(sys::Root{}, 0);
  if (!home) return tl::unexpected<Error>(home.error());
  Chain chain;
  read_chain(pid, chain);
  NearestTenant nearest{&chain, *home, out, kAncestors};
  list_tenants(folder, consider_nearest, &nearest);
  if (nearest.best == kAncestors) return fail(Errc::kNotFound);
  return {};
}

Result<void> find_default_tenant(const char* folder, char* out) {
  DefaultTenant wanted{out, false};
  list_tenants(folder, consider_default, &wanted);
  if (!wanted.found) return fail(Errc::kNotFound);
  return {};
}

}  // namespace allot::shm
