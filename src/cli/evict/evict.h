// Moves the GPU memory of a slice to the host and back: by the driver's checkpoint calls, or fast.
//
//   evict      check                nothing has been touched so far
//              flag EVICTED         agents detach: channels run, no driver descriptor is kept
//              lock    p1 p2 p3     calls of the programs wait from now on; submitted work ends
//              move    p1 p2 p3     memory to the host; the GPU's is free
//   restore    move    p1 p2 p3     back, to the same addresses
//              flag off             agents enforce the limits again
//              unlock  p1 p2 p3
//
// All processes are locked before the first one moves, so that one which cannot stop costs the
// others only a pause. A failure after the flag undoes the steps in the opposite order: the slice
// runs on, or stays wholly evicted. The fast way (`run --swap fast`, docs/adr/0008) has the same
// order; there each process does for its own memory what the driver does here, and memory that
// cannot move stays on the GPU. What must not happen here: a process stays locked, or half of a
// slice moves, and nobody is told. A command that is killed in between leaves such a slice;
// `restore` repairs it from any state.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cli/evict/checkpoint.h"
#include "cli/region/open_slice.h"

namespace allot::cli {

struct MovedProcess {
  uint32_t pid = 0;
  std::string command;
  uint64_t bytes = 0;  // moved
  // On the GPU, the fast way. The driver's way leaves some MiB there that are not charged.
  uint64_t stays_bytes = 0;
  double lock_seconds = 0;  // until its work had ended (evict) or its calls resumed (restore)
  double move_seconds = 0;
};

struct Moved {
  std::vector<MovedProcess> processes;
  uint64_t bytes = 0;
  double seconds = 0;    // of all
  bool nothing = false;  // nothing to do
  const char* way = "driver";
};

enum class Way { kAsStarted, kDriver, kFast };

struct MoveOptions {
  // How long evict waits for submitted work to end, and restore for agents.
  double timeout_seconds = 30;
  bool returns = false;  // evict: its launcher restores it when it has work again
  Way way = Way::kAsStarted;
  std::function<void(const std::string&)> say = [](const std::string&) {};
};

// Both throw a Failure (exit 125) that says what was wrong and which state the slice is in now.
// They block as long as the memory takes to move (some 2 GB/s to the host, 5 GB/s back), and hold
// the file's lock meanwhile.
Moved evict(OpenSlice& slice, const std::string& name, const MoveOptions& options);
Moved restore(OpenSlice& slice, const std::string& name, const MoveOptions& options);

std::string within_text(double seconds);  // "in 0.52 s"; "at once" for what is too short to show

// Bytes of host memory that a process may still take: the least that the machine and its cgroups
// have left.
uint64_t host_room(uint32_t pid);

}  // namespace allot::cli
