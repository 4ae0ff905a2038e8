// Reserve first, then allocate: the one way by which hooks charge the slice.
#pragma once

#include <cstdint>

#include "abi/region.h"
#include "shim/process/process.h"

namespace allot::shim {

// Charges `bytes` if they fit below the limit. When they do not, first takes back what nobody holds any
// more (slots of dead processes, unused memory of this process's pools and graphs) and tries again;
// false only after that.
// Any thread; the slow path reads /proc and calls the driver; holds no lock.
bool reserve(const Device& device, AllotKind kind, uint64_t bytes);

// Gives back what reserve() or a settled charge took.
inline void release(const Device& device, AllotKind kind, uint64_t bytes) {
  if (bytes > 0) release_now(static_cast<uint32_t>(device.gpu), kind, bytes);
}

// True while the account stands above its limit (a limit that was lowered, or a charge the driver made
// without being asked).
bool over_limit(const Device& device);

// Bytes below the limit that nobody in the slice has charged.
uint64_t room_left(const Device& device);

// Ends the slots of processes that have died. Cheap when all live: one signal-0 per other slot.
void reclaim_dead(bool thorough);

// Bytes this process holds on `gpu` that NVML's per-process figure contains, without ALLOT_KIND_DRIVER.
uint64_t tracked_bytes(uint32_t gpu);

// Returns the charge of an entry that has left the table.
void release_entry(const Entry& entry);

}  // namespace allot::shim
