// What the agents of a machine read of each other, and how they wake each other.
//
// A tenant's file is read, never mapped, by anybody but its own processes: a file that its owner truncates
// gives a short read, not SIGBUS. To wake another tenant's agents its page is mapped for a moment, only as
// a futex's address: the kernel resolves it, we never read it.
#pragma once

#include <cstdint>

#include "abi/region.h"
#include "base/result.h"
#include "shm/tenant_file.h"

namespace allot::shm {

// The front of a tenant's file: header, GPUs and seats.
struct TimeView {
  AllotHeader header;
  AllotGpu gpus[ALLOT_MAX_GPUS];
  AllotTimeSeat seats[ALLOT_MAX_SEATS];
};
static_assert(sizeof(TimeView) == offsetof(AllotTenantFile, slot_words));

// Reads it and checks magic, version and sizes; everything else in it is as hostile as before.
// Errors: kNotFound, kNoPermission, kDamaged, kWrongVersion, kSystem. Some 5 us. Any thread.
Result<void> read_time_view(const char* path, TimeView* out);

// Takes a seat for (slot, gpu) and returns its index: the one this process has already, a free one, or one
// whose process is gone. Errors: kFull. One thread a process.
Result<uint32_t> take_seat(Tenant& tenant, core::SlotId slot, uint32_t gpu);

// Tells the agents of this tenant that something changed: raises header.bell and wakes who sleeps on it.
// Any thread, signal-safe.
void ring(Tenant& tenant);

// Wakes the agents of another tenant (they may be about to fall asleep just then: news is rung twice).
// Errors are of no consequence and not told. Any thread.
void ring_other(const char* path);

// Sleeps on the tenant's bell while it reads `seen`, at most `timeout_ns`. Returns early on a signal.
void wait_for_bell(const Tenant& tenant, uint32_t seen, uint64_t timeout_ns);

}  // namespace allot::shm
