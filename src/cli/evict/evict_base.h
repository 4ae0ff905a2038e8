// What both ways of moving a slice's memory share: the list of processes, the lock for one command
// at a time, the flag, the waits.
//
// The ways: by_driver.cc (the driver's checkpoint calls), by_processes.cc (the processes
// themselves, `--swap fast`). What must not happen here: a signal ends the command between two
// steps (it counts as a failure, and the steps are undone); a number of the slice's file is used
// without a bound.
#pragma once

#include <array>
#include <csignal>
#include <string>
#include <vector>

#include "cli/evict/evict.h"
#include "cli/failure.h"
#include "sys/file.h"

namespace allot::cli {

// Holds back a signal that would end the command until nothing is half done; then it counts as a
// failure.
class HoldSignals {
 public:
  HoldSignals();
  ~HoldSignals();
  HoldSignals(const HoldSignals&) = delete;
  HoldSignals& operator=(const HoldSignals&) = delete;
  void check() const;  // throws a Failure when one has come

 private:
  sigset_t set_, before_;
};

enum class Phase { kRuns, kLocked, kMoved, kLost };

using PerGpu = std::array<uint64_t, ALLOT_MAX_GPUS>;  // bytes, by the slice's GPU

// One process of the slice.
struct Target {
  uint32_t slot = 0;
  uint64_t word = 0;
  MovedProcess process;
  PerGpu on_gpu{};   // charged
  PerGpu movable{};  // the part that can move the fast way
  std::array<uint64_t, ALLOT_KINDS> by_kind{};
  Phase phase = Phase::kRuns;
};

std::string who(const Target& target);  // "python (process 4711)"
double move_limit(const Target& target);
// within_text with the rate, where there was enough to measure one: "in 0.52 s, 9.80 GB/s".
std::string speed_text(uint64_t bytes, double seconds);

class MoveBase {
 protected:
  // Takes the lock of the slice's file, or refuses.
  MoveBase(const char* command, OpenSlice& slice, const std::string& name,
           const MoveOptions& options, bool fast);

  uint32_t flags() const;
  bool software() const { return (flags() & ALLOT_SLICE_SOFTWARE) != 0; }
  bool flagged() const { return (flags() & ALLOT_SLICE_EVICTED) != 0; }

  // The live processes, from the file. Refuses if one lives in another pid namespace.
  void find_targets();
  bool still_there(const Target& target) const;

  // `need`: host memory for the move, without the margin.
  void refuse_without_host_memory(uint64_t need) const;
  // "..., 3 GiB are free" for the first GPU that has less than `need` free, as the driver says;
  // empty when all fit.
  std::string missing_room(const PerGpu& need) const;

  // Marks the slice as evicted in this way, or as not evicted.
  void flag(bool on);
  // Waits until all agents are detached, or attached again. Does not wait for processes that have
  // no agent or that end.
  bool wait_for_agents(bool detached);

  // The end of every restore. Agents first: limits are in force before the programs resume.
  template <class Unlock>
  void go_on(Unlock unlock) {
    flag(false);
    const bool held = wait_for_agents(false);
    unlock();
    if (!held) options_.say(name_ + ": one of its processes is not responding yet");
  }

  bool all_in(Phase phase) const;
  bool any_in(Phase phase) const;
  uint64_t bytes_to_move() const;  // out: of the processes that are not out yet
  Moved report(uint64_t begin_ns) const;
  Moved count_and_report(uint64_t begin_ns, bool out);  // of a move that was made
  Moved nothing_to_do() const;                          // the slice is in that state already

  const char* command_;
  OpenSlice& slice_;
  AllotSliceFile& file_;
  std::string name_;
  const MoveOptions& options_;
  bool fast_;
  sys::Fd lock_;
  HoldSignals signals_;
  std::vector<Target> targets_;
};

// The two ways, with the contract of evict() and restore(). The fast one is for slices started with
// `--swap fast`.
Moved evict_by_driver(OpenSlice& slice, const std::string& name, const MoveOptions& options);
Moved restore_by_driver(OpenSlice& slice, const std::string& name, const MoveOptions& options);
Moved evict_fast(OpenSlice& slice, const std::string& name, const MoveOptions& options);
Moved restore_fast(OpenSlice& slice, const std::string& name, const MoveOptions& options);

}  // namespace allot::cli
