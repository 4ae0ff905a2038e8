// Who is in a slice, for those who end it.
//
// What must not happen here: a signal to a process that got the number of one that has ended
// meanwhile; so each is held by a pidfd and looked at again before it is signalled.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>

#include "shm/slice_file.h"

namespace allot::cli {

using Pids = std::set<uint32_t>;

// A slice as something to end. Without this command, and without a launcher that only waits.
struct Ending {
  std::function<Pids()> members;   // whom we see
  std::function<bool()> used;      // whether anybody is left, seen or not, this command aside
  std::function<Pids()> launcher;  // `allot run`, where it is ours to signal
  std::function<bool()> after_us;  // the launcher waits for this command, and removes the slice
};

// Of a slice of GPUs; `slice` outlives it. Closes this command's own hold of the slice, if it runs
// inside.
Ending ending_of(const shm::Slice& slice);

// Of the slices of CPUs alone that are called `name`; `used` is empty when there is none. May wait
// some seconds for a run that places its CPUs.
Ending ending_of_cpus(const std::string& name);

// Sends a signal to one of `who()`, if it is still one of them. Returns 0 or the errno.
int signal_one(const std::function<Pids()>& who, uint32_t pid, int number);

// Why members of the slice cannot be seen from here, in a few words; empty when they can.
std::string hidden_why(const shm::Slice& slice);

}  // namespace allot::cli
