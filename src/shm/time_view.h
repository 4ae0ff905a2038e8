// What the agents of a machine read of each other, and how they wake each other.
//
// A slice's file is read, never mapped, by anybody but its own processes: a file that its owner truncates
// gives a short read, not SIGBUS. To wake another slice's agents its page is mapped for a moment, only as
// a futex's address: the kernel resolves it, we never read it.
#pragma once

#include <cstdint>

#include "abi/region.h"
#include "base/result.h"
#include "shm/slice_file.h"

namespace allot::shm {

// The front of a slice's file: header, GPUs and clients.
struct TimeView {
  AllotHeader header;
  AllotGpu gpus[ALLOT_MAX_GPUS];
  AllotGpuClient clients[ALLOT_MAX_CLIENTS];
};
static_assert(sizeof(TimeView) == offsetof(AllotSliceFile, slot_words));

// Reads it and checks magic, version and sizes; everything else in it is as hostile as before.
// Errors: kNotFound, kNoPermission, kDamaged, kWrongVersion, kSystem. Some 5 us. Any thread.
Result<void> read_time_view(const char* path, TimeView* out);

// Takes a client for (slot, gpu) and returns its index: the one this process has already, a free one, or one
// whose process is gone. Errors: kFull. One thread a process.
Result<uint32_t> take_client(Slice& slice, core::SlotId slot, uint32_t gpu);

// Tells the agents of this slice that something changed: raises header.wake_seq and wakes who sleeps on it.
// Any thread, signal-safe.
void notify(Slice& slice);

// Wakes the agents of another slice (they may be about to fall asleep just then: news is rung twice).
// Errors are of no consequence and not told. Any thread.
void notify_other(const char* path);

// Sleeps on the slice's wake_seq while it reads `seen`, at most `timeout_ns`. Returns early on a signal.
void wait_for_wake(const Slice& slice, uint32_t seen, uint64_t timeout_ns);

}  // namespace allot::shm
