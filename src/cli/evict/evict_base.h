// What both ways of moving a slice's memory share: which processes, one command at a time, the flag, the waits.
//
// The ways: by_driver.cc (the driver's checkpoint calls), by_processes.cc (the processes themselves, `--swap fast`).
// What must not happen here: a signal that ends the command between two steps (it counts as a failure, and what
// was done is undone), or a number of the slice's file that is used without a bound.
#pragma once

#include <array>
#include <csignal>
#include <string>
#include <vector>

#include "cli/evict/evict.h"
#include "cli/failure.h"
#include "sys/file.h"

namespace allot::cli {

// A signal that would end the command waits until nothing is half done, and then counts as a failure.
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
  PerGpu movable{};  // of it, by the fast way
  std::array<uint64_t, ALLOT_KINDS> by_kind{};
  Phase phase = Phase::kRuns;
};

std::string who(const Target& target);  // "python (process 4711)"
double move_limit(const Target& target);
std::string speed_text(uint64_t bytes, double seconds);

class MoveBase {
 protected:
  // Takes the lock of the slice's file, or refuses.
  MoveBase(const char* command, OpenSlice& slice, const std::string& name,
           const MoveOptions& options, bool fast);

  uint32_t flags() const;
  bool software() const { return (flags() & ALLOT_SLICE_SOFTWARE) != 0; }
  bool flagged() const { return (flags() & ALLOT_SLICE_EVICTED) != 0; }

  // The live processes, from the file. Refuses where one lives in another pid namespace.
  void find_targets();
  bool still_there(const Target& target) const;

  // `need`: what the move takes of the host, without the margin.
  void refuse_without_host_memory(uint64_t need) const;
  // "..., 3 GiB are free" for the first GPU whose `need` the driver says is not free; empty when all fit.
  std::string missing_room(const PerGpu& need) const;

  // Marks the slice as evicted by this way, or as not.
  void flag(bool on);
  // Until all agents have let go, or hold again. Processes that have none or that end are not waited for.
  bool wait_for_agents(bool detached);

  // The end of every restore. Agents first: what is to be held is held before the programs go on.
  template <class Unlock>
  void go_on(Unlock unlock) {
    flag(false);
    const bool held = wait_for_agents(false);
    unlock();
    if (!held) options_.say(name_ + ": one of its processes is not responding yet");
  }

  bool all_in(Phase phase) const;
  bool any_in(Phase phase) const;
  uint64_t bytes_to_move() const;  // out: of those that are not there yet
  Moved report(uint64_t begin_ns) const;
  Moved nothing_to_do() const;  // it was so already

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

// The ways themselves; as evict() and restore(). The fast one is for slices that were started for it.
Moved evict_by_driver(OpenSlice& slice, const std::string& name, const MoveOptions& options);
Moved restore_by_driver(OpenSlice& slice, const std::string& name, const MoveOptions& options);
Moved evict_fast(OpenSlice& slice, const std::string& name, const MoveOptions& options);
Moved restore_fast(OpenSlice& slice, const std::string& name, const MoveOptions& options);

}  // namespace allot::cli
