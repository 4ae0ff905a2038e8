// What the agents of a machine read of each other's files, and how they wake each other.
//
// Only a slice's own processes map its file; all others read it: a file that its owner truncates
// then gives a short read, not SIGBUS. To wake the agents of another slice we map one page of its
// file for a moment, only as the address of a futex: the kernel resolves it, and we never read it.
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

// Reads the front and checks magic, version and sizes; everything else in it stays hostile.
// Errors: kNotFound, kNoPermission, kDamaged, kWrongVersion, kSystem. Takes some 5 us. Any thread.
Result<void> read_time_view(const char* path, TimeView* out);
// The same for a file in an open folder.
Result<void> read_time_view_at(int folder, const char* file_name, TimeView* out);

// Registers a client for (slot, gpu) and returns its index: the one this process has already, a
// free one, or one whose process is gone.
// Errors: kFull. One thread per process.
Result<uint32_t> take_client(Slice& slice, core::SlotId slot, uint32_t gpu);

// Tells the agents of this slice that something changed: raises header.wake_seq and wakes the
// threads that sleep on it. Any thread, signal-safe.
void notify(Slice& slice);

// Wakes the agents of another slice. An agent may be about to fall asleep at that moment, so
// callers wake it twice. Errors have no consequence and are not reported. Any thread.
void notify_other(const char* path);

// Sleeps while the slice's wake_seq is `seen`, at most `timeout_ns`. Returns early on a signal.
// True: somebody woke it; if wake_seq is still `seen` then, it was an agent of another slice.
bool wait_for_wake(const Slice& slice, uint32_t seen, uint64_t timeout_ns);

}  // namespace allot::shm
