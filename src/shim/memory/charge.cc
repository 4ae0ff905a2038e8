// Charging, and what it tries before it refuses a request.
#include "shim/memory/charge.h"

#include <signal.h>

#include <cerrno>

#include "core/ledger.h"
#include "shim/memory/exported.h"
#include "shim/memory/graph.h"
#include "shim/memory/pool.h"
#include "shim/memory/vmm.h"
#include "shim/process/hook_guard.h"
#include "shim/process/log.h"
#include "shm/slice_file.h"
#include "sys/keep_errno.h"

namespace allot::shim {
namespace {

core::Ledger ledger() {
  return core::Ledger(process.slice.file);
}

// Signal 0 to every other process of the slice: shows in 0.2 us each whether it has gone.
bool somebody_gone() {
  const sys::KeepErrno keep;
  AllotSliceFile* file = process.slice.file;
  uint32_t high = __atomic_load_n(&file->header.slots_high, __ATOMIC_ACQUIRE);
  if (high > ALLOT_MAX_SLOTS) high = ALLOT_MAX_SLOTS;
  const uint64_t home = file->slots[process.slot.index].pid_namespace;
  for (uint32_t i = 0; i < high; ++i) {
    const uint64_t word = __atomic_load_n(&file->slot_words[i], __ATOMIC_ACQUIRE);
    if (ALLOT_SLOT_STATE(word) != ALLOT_SLOT_LIVE || i == process.slot.index) continue;
    if (file->slots[i].pid_namespace != home) continue;
    if (kill(static_cast<pid_t>(ALLOT_SLOT_PID(word)), 0) != 0 && errno == ESRCH) return true;
  }
  return false;
}

}  // namespace

void charge_now(uint32_t gpu, AllotKind kind, uint64_t bytes) {
  ledger().charge(process.slot, gpu, kind, bytes);
}

void release_now(uint32_t gpu, AllotKind kind, uint64_t bytes) {
  ledger().release(process.slot, gpu, kind, bytes);
}

void reclaim_dead(bool thorough) {
  if (thorough || somebody_gone()) shm::reclaim_dead(process.slice);
}

bool over_limit(const Device& device) {
  const uint32_t gpu = static_cast<uint32_t>(device.gpu);
  return ledger().used(gpu) > ledger().limit(gpu);
}

uint64_t room_left(const Device& device) {
  const uint32_t gpu = static_cast<uint32_t>(device.gpu);
  const uint64_t limit = ledger().limit(gpu);
  const uint64_t used = ledger().used(gpu);
  return used < limit ? limit - used : 0;
}

bool reserve(const Device& device, AllotKind kind, uint64_t bytes) {
  const uint32_t gpu = static_cast<uint32_t>(device.gpu);
  if (swap_on()) swap_wait_open();  // an evicted process takes no new GPU memory
  take_over_ended_loans();
  core::Ledger accounts = ledger();
  if (accounts.reserve(process.slot, gpu, kind, bytes)) return true;
  const uint64_t limit = accounts.limit(gpu);
  if (bytes <= limit) {
    reclaim_dead(true);
    take_over_ended_loans();
    if (accounts.reserve(process.slot, gpu, kind, bytes)) return true;
    settle_exported_allocations();
    trim_pools(device);
    trim_graphs(device);
    accounts.recount(gpu);
    if (accounts.reserve(process.slot, gpu, kind, bytes)) return true;
  }
  accounts.count_refusal(process.slot, gpu);
  log_refusal(gpu, kind, bytes, accounts.used(gpu), limit);
  return false;
}

uint64_t tracked_bytes(uint32_t gpu) {
  const core::Ledger accounts = ledger();
  uint64_t sum = 0;
  for (AllotKind kind :
       {ALLOT_KIND_LINEAR, ALLOT_KIND_ARRAY, ALLOT_KIND_POOL, ALLOT_KIND_VMM, ALLOT_KIND_GRAPH}) {
    sum += accounts.charged(process.slot, gpu, kind);
  }
  return sum;
}

void import_gone(const Entry& entry) {
  borrowed_closed(entry.key);
  release_entry(entry);
}

void release_entry(const Entry& entry) {
  if (entry.bytes > 0) release_now(entry.gpu(), entry.kind(), entry.bytes);
}

}  // namespace allot::shim
