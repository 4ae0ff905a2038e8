// What the agents of a slice publish about themselves: their clients, copied and checked.
//
// Works on a mapped file and on a copy alike. The slice writes every byte: indexes are bounded,
// numbers are only shown.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "abi/region.h"
#include "shm/slice_file.h"

namespace allot::cli {

struct ClientView {
  uint32_t pid = 0;
  uint32_t slot = 0;
  uint32_t gpu = 0;  // position in the slice's gpus[]
  uint32_t flags = 0;
  uint32_t level = 0;   // AllotLevel in force; auto = not known yet
  uint32_t reason = 0;  // AllotLevelReason
  uint32_t timeslice_us = 0;
  uint32_t busy_permille = 0;
  uint32_t window_permille = 0;
  uint64_t used_ns = 0;
  uint64_t throttled_ns = 0;
  bool answers = false;  // its agent has a recent heartbeat

  bool active() const { return (flags & ALLOT_CLIENT_ACTIVE) != 0; }
  bool open() const { return (flags & ALLOT_CLIENT_OPEN) != 0; }
  bool saturates() const { return (flags & ALLOT_CLIENT_SATURATES) != 0; }
  bool detached() const { return (flags & ALLOT_CLIENT_DETACHED) != 0; }
  bool frozen() const { return (flags & ALLOT_CLIENT_FROZEN) != 0; }
  // Nothing of this process has run on the GPU yet, so there is nothing to limit.
  bool untouched() const { return level == ALLOT_LEVEL_AUTO && !active(); }
};

// The clients whose process still has its slot. Any thread; allocates.
std::vector<ClientView> read_clients(const AllotSliceFile& file);

// True when the process of a client has ended since, even if nobody has reaped it or cleared its
// slot yet: a command that waits for the agents must not wait for this one. Reads /proc; any
// thread; does not block.
bool has_ended(const shm::Slice& slice, const ClientView& client);

// "active", "idle", "throttled" (has work, may not run now) or "frozen". Of several clients, the
// state of the busiest.
const char* state_text(const ClientView& client);
std::string state_text(const std::vector<ClientView>& clients, uint32_t gpu, bool frozen);

// Why a level is in force, in a few words; empty where there is no special reason.
const char* reason_text(uint32_t reason);
// A short name for the same, for --json; "none" where there is no special reason.
const char* reason_name(uint32_t reason);

// Of ALLOT_TABLE_*, those that a process has had more for than they hold: their names for --json,
// and what follows from it, in words ("more than 1024 streams: it counts as busy"). Empty where all
// has fitted.
std::vector<std::string> table_names(uint32_t full_tables);
std::string tables_text(uint32_t full_tables);

}  // namespace allot::cli
