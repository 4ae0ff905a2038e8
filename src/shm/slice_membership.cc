// Inside a slice: which processes are alive, which GPUs there are, and which slice a stray process
// belongs to.
#include <string_view>

#include "base/atomic16.h"
#include "base/text.h"
#include "core/shared.h"
#include "shm/living.h"
#include "shm/slice_file.h"
#include "sys/process.h"

namespace allot::shm {
namespace {

// Bound on the chain of ancestors: 8 KiB of stack. A loop of parents is impossible.
constexpr uint32_t kAncestors = 512;

// A walk from a process to its ancestors.
struct Ancestor {
  uint64_t start_time;
  uint32_t pid;
};
struct Chain {
  Ancestor processes[kAncestors];
  uint32_t count;
};

void read_chain(uint32_t pid, Chain& chain) {
  chain.count = 0;
  while (pid != 0 && chain.count < kAncestors) {
    auto process = sys::read_process(sys::Root{}, pid);
    if (!process) return;
    chain.processes[chain.count++] = {process->start_time, process->pid};
    pid = process->parent;
  }
}

// How many steps up the chain the slice is; kAncestors = not in the chain.
uint32_t distance(const AllotSliceFile& file, const Chain& chain) {
  uint32_t best = kAncestors;
  const AllotHeader& header = file.header;
  for (uint32_t i = 0; i < chain.count; ++i) {
    const Ancestor& process = chain.processes[i];
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

struct NearestSlice {
  const Chain* chain;
  uint64_t home;
  char* out;
  uint32_t best;
};

void consider_nearest(void* context, const char* path) {
  NearestSlice& nearest = *static_cast<NearestSlice*>(context);
  auto slice = open_slice(path, false);
  if (!slice) return;
  // Only the user's own slices: a header is whatever its owner wrote, and must not draw in the
  // processes of other users.
  if (slice->owner_uid == sys::user_id() && slice->file->header.pid_namespace == nearest.home) {
    const uint32_t d = distance(*slice->file, *nearest.chain);
    if (d < nearest.best) {
      nearest.best = d;
      TextBuf(nearest.out, kPathBytes).text(path);
    }
  }
  unmap(*slice);
}

struct DefaultSlice {
  char* out;
  bool found;
};

void consider_default(void* context, const char* path) {
  DefaultSlice& wanted = *static_cast<DefaultSlice*>(context);
  if (wanted.found) return;
  auto slice = open_slice(path, false);
  if (!slice) return;
  if ((slice->file->header.flags & ALLOT_SLICE_DEFAULT) != 0 &&
      slice->owner_uid == sys::user_id() && slice_in_use(*slice)) {
    wanted.found = true;
    TextBuf(wanted.out, kPathBytes).text(path);
  }
  unmap(*slice);
}

}  // namespace

uint32_t reclaim_dead(Slice& slice) {
  Living living(slice);
  return core::Ledger(slice.file).reclaim(Living::alive, &living);
}

bool slice_in_use(const Slice& slice, uint32_t except_pid) {
  const AllotSliceFile& file = *slice.file;
  const Living living(slice);
  if (living.has_members()) return true;
  const int32_t launcher = file.header.launcher_pid;
  const bool excepted = launcher > 0 && static_cast<uint32_t>(launcher) == except_pid;
  if (!excepted && living.launcher()) return true;
  const uint32_t high = core::slots_of(file);
  for (uint32_t i = 0; i < high; ++i) {
    const uint64_t word = core::load(file.slot_words[i]);
    const uint32_t pid = ALLOT_SLOT_PID(word);
    if (ALLOT_SLOT_STATE(word) == ALLOT_SLOT_FREE || (pid != 0 && pid == except_pid)) continue;
    if (living.slot(i)) return true;
  }
  if (launcher <= 0) return false;  // a slice without a launcher is its processes'
  return !visit_members(
      slice, [](void* except, uint32_t pid) { return pid == *static_cast<uint32_t*>(except); },
      &except_pid);
}

void set_execing(Slice& slice, core::SlotId slot, bool execing) {
  if (!core::Ledger(slice.file).live(slot)) return;
  // A child of vfork shares our memory and calls exec for itself, not for us.
  const uint64_t word = core::load(slice.file->slot_words[slot.index]);
  if (ALLOT_SLOT_PID(word) != sys::current_pid()) return;
  core::store(slice.file->slots[slot.index].execing, execing ? 1u : 0u);
}

Result<uint32_t> find_or_add_gpu(Slice& slice, const uint8_t uuid[16], uint64_t limit_bytes,
                                 uint64_t physical_bytes) {
  Pair16 wanted;
  __builtin_memcpy(&wanted, uuid, sizeof(wanted));
  if ((wanted.low | wanted.high) == 0 || limit_bytes == 0 || physical_bytes == 0) {
    return fail(Errc::kBadValue);
  }
  AllotSliceFile& file = *slice.file;
  for (uint32_t i = 0; i < ALLOT_MAX_GPUS; ++i) {
    // Every caller goes through the entries in the same order and claims the first empty one by its
    // UUID, so two callers with the same UUID meet at the same entry. Any process may finish what
    // follows the claim.
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

Result<void> find_slice_of_ancestors(const char* folder, uint32_t pid, char* out) {
  auto home = sys::pid_namespace(sys::Root{}, 0);
  if (!home) return tl::unexpected<Error>(home.error());
  Chain chain;
  read_chain(pid, chain);
  NearestSlice nearest{&chain, *home, out, kAncestors};
  list_slices(folder, consider_nearest, &nearest);
  if (nearest.best == kAncestors) return fail(Errc::kNotFound);
  return {};
}

Result<void> find_default_slice(const char* folder, char* out) {
  DefaultSlice wanted{out, false};
  list_slices(folder, consider_default, &wanted);
  if (!wanted.found) return fail(Errc::kNotFound);
  return {};
}

}  // namespace allot::shm
