// What this process's agent knows of the slices that share its GPUs: read from their files, summed
// up over their processes, ready for the policy.
//
// The folder may hold anything: slices of other GPUs, slices that are idle, files of earlier boots,
// junk. Only a slice with a live client that is awake on one of our GPUs has a place here, and only
// its file is read in each round. All others are looked at by a scan of the folder: ten times a
// second, when a neighbour wakes us and none of those with a place has changed, and when our own
// slice has changed; but a scan takes at most 1 % of the time, and at most a millisecond at once.
// Of the slices awake on one GPU the oldest core::kMaxSlicesOnGpu are weighed, the same ones by all
// agents.
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
  bool fits;  // of our own: is one of the oldest kMaxSlicesOnGpu; if not, nobody weighs it
};

// Sets the folder whose slices are read, and the own file's path in it. Forgets all neighbours.
void neighbours_in(const char* own_path);

// Something of our own slice has changed: looks for new neighbours on the next look.
void neighbours_changed();

// A neighbour woke us: if none of those that we know has changed, looks for new ones on the next
// look.
void neighbours_rang();

// Fills `out` with the slices that are awake on the GPU with this uuid: out[0] is our own (from
// `own`, which may be a live mapping), the others as their files say, by age. Returns how many; at
// least 1. Called for several GPUs one after the other, it reads each file once. A GPU that is not
// asked about for a second is forgotten.
uint32_t look_at_neighbours(const AllotSliceFile& own, const uint8_t uuid[16], uint64_t now_ns,
                            std::span<Neighbour> out);

// Wakes the agents of the slices that are awake on our GPUs. Others look when they wake up.
void notify_neighbours();

}  // namespace allot::shim
