// Reserve first, then allocate: the only way in which hooks charge the slice.
#pragma once

#include <cstdint>

#include "abi/region.h"
#include "shim/process/process.h"

namespace allot::shim {

// Charges `bytes` if they fit below the limit. When they do not, it first takes back what nobody
// uses any more (slots of dead processes, unused memory of this process's pools and graphs) and
// tries again; only then it returns false. Any thread; the slow path reads /proc and calls the
// driver; holds no lock.
bool reserve(const Device& device, AllotKind kind, uint64_t bytes);

// Gives back what reserve() or a settled charge has taken.
inline void release(const Device& device, AllotKind kind, uint64_t bytes) {
  if (bytes > 0) release_now(static_cast<uint32_t>(device.gpu), kind, bytes);
}

// True while the account is above its limit (because the limit was lowered, or because the driver
// took memory unasked).
bool over_limit(const Device& device);

// Bytes below the limit that nobody in the slice has charged.
uint64_t room_left(const Device& device);

// Ends the slots of dead processes. Cheap when all live: one signal 0 for each other slot.
void reclaim_dead(bool thorough);

// Bytes that this process holds on `gpu` and that NVML's figure for the process includes, without
// ALLOT_KIND_DRIVER.
uint64_t tracked_bytes(uint32_t gpu);

// Memory of another process is not held here any more: returns its charge, whoever it came from.
void import_gone(const Entry& entry);

// Returns the charge of an entry that has left the table.
void release_entry(const Entry& entry);

}  // namespace allot::shim
