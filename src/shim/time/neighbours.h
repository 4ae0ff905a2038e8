// What this process's agent knows of the slices that share its GPUs: read from their files, summed
// up over their processes, ready for the policy.
//
// Every byte read is another user's: numbers are clamped here or by the policy, counts are bounded,
// a file that cannot be read is as if it were not there. A process that no longer exists does not
// count even when its last word was that it has work. Used by the agent's thread only.
#pragma once

#include <cstdint>
#include <span>

#include "core/time_policy.h"
#include "shm/time_view.h"

namespace allot::shim {

// A slice on one GPU, with what the policy does not need.
struct Neighbour {
  core::SliceDemand slice;
  uint32_t processes;      // with work
  uint32_t busy_permille;  // of the busiest of them
};

// Sets the folder whose slices are read, and the own file's path in it.
void neighbours_in(const char* own_path);

// Reads the names in the folder again on the next look (somebody rang).
void neighbours_changed();

// Fills `out` with the slices that have processes on the GPU with this uuid: out[0] is our own
// (from `own`, which may be a live mapping), the others as their files say. Returns how many; at
// least 1. Opens and reads one small file per slice; names are read again every 100 ms at most.
uint32_t look_at_neighbours(const AllotSliceFile& own, const uint8_t uuid[16], uint64_t now_ns,
                            std::span<Neighbour> out);

// Wakes the agents of all other slices in the folder.
void notify_neighbours();

}  // namespace allot::shim
