// The node region as listings show it: copied from the files, checked, with names.
//
// Slices write their files, so every number is copied once and bounded before it is used, and every
// text is made harmless. Reading also cleans up, as far as this user may: it ends the slots of dead
// processes and removes files of slices with no live process.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "abi/region.h"
#include "cli/gpus/gpu_inventory.h"
#include "cli/region/agent_view.h"

namespace allot::cli {

using ByKind = std::array<uint64_t, ALLOT_KINDS>;  // bytes

struct ProcessView {
  uint32_t pid = 0;
  uint32_t level = 0;               // AllotLevel in force
  uint32_t reason = 0;              // AllotLevelReason
  std::vector<ClientView> clients;  // one per GPU it works on
  std::string command;          // "python train.py", or the short name where that cannot be read
  std::vector<ByKind> charges;  // one per entry of SliceView::gpus
  uint32_t evicted = 0;         // AllotEvicted
  uint64_t host_bytes = 0;      // the part of its charges that is on the host
  uint64_t idle_ns = 0;         // since it last had work for a GPU, or joined
  uint32_t unheld_gpus = 0;     // a bit per entry of SliceView::gpus: no GPU client was left there
  uint32_t gpus_beyond = 0;     // GPUs that it sees and the slice's file has no room for
  uint32_t full_tables = 0;     // ALLOT_TABLE_*
  bool foreign = false;         // its pid is a number of another pid namespace
  std::optional<AllotCounters> counters;  // none: its library does not count
};

struct SliceGpuView {
  Uuid uuid{};
  int index = -1;            // as `allot gpus` counts; -1 = not known (environment-only way)
  uint64_t limit_bytes = 0;  // ALLOT_UNLIMITED = none
  uint64_t used_bytes = 0;   // charged; host_bytes of it are not on the GPU
  uint64_t host_bytes = 0;
  uint64_t peak_bytes = 0;
  uint64_t physical_bytes = 0;
  uint64_t refused = 0;
  uint32_t share_permille = 0;
  uint32_t max_permille = 0;
  uint64_t time_used_ns = 0;
  uint64_t time_throttled_ns = 0;
  ByKind by_kind{};
};

struct SliceView {
  std::string path;
  std::string name;
  std::string user;
  uint32_t uid = 0;
  uint32_t flags = 0;
  uint32_t priority = 0;
  uint32_t level = 0;  // asked for
  int32_t launcher_pid = 0;
  bool launcher_alive = false;
  bool counts = false;  // its file keeps the next three
  uint64_t frozen_ns = 0;
  uint32_t evictions = 0;
  uint32_t restores = 0;
  bool launcher_foreign = false;  // its pid is a number of another pid namespace
  uint64_t created_unix_ns = 0;
  uint32_t unknown_symbols = 0;
  bool head_only = false;  // another user's: what its processes hold is not for us to see
  std::vector<SliceGpuView> gpus;
  std::vector<ProcessView> processes;
  std::vector<ClientView> clients;  // of all of them

  bool frozen() const { return (flags & ALLOT_SLICE_FROZEN) != 0; }
  bool evicted() const { return (flags & ALLOT_SLICE_EVICTED) != 0; }
  // "evicted"; "evicting" while some of it is still on the GPU; otherwise empty.
  const char* eviction_text() const;
  bool swaps_fast() const { return (flags & ALLOT_SLICE_SWAP_FAST) != 0; }
  // The way in which it was evicted, or would be: "driver" or "fast".
  const char* eviction_way() const;
  bool software() const { return (flags & ALLOT_SLICE_SOFTWARE) != 0; }
  bool fail_closed() const { return (flags & ALLOT_SLICE_FAIL_CLOSED) != 0; }
  // Whether work that nobody can hold is refused: a slice that fails closed and limits GPU time.
  bool refuses_unheld() const;
};

struct UnreadableSlice {
  std::string path;
  std::string reason;
  bool may_run = false;  // it may be in use: its share counts, and nobody can tell how much it is
};

struct RegionView {
  std::string folder;             // empty: no folder, hence no slices
  std::vector<SliceView> slices;  // by name
  std::vector<UnreadableSlice> unreadable;
  std::vector<std::string> cleared;  // names of stale slices that were removed
  std::vector<std::string> stale;    // stale too, but only another user may remove them
};

// Why `folder` cannot be the folder of several users or of this one, and the command that mends it;
// empty where it can.
std::string folder_fault(const std::string& folder);

// The user that a file belongs to, by name where there is one.
std::string owner_text(uint32_t uid);

// The region folder; with `create` it is made when it is missing. Throws a Failure (exit 125) with
// the folder and what to do. Without `create`, returns an empty string when there is no folder.
std::string region_folder(bool create);

// "<folder>/<name>.slice". Throws a Failure when that is not a valid path.
std::string slice_path(const std::string& folder, const std::string& name);

// Reads every slice of the folder and clears stale ones. Throws only when the folder itself is
// unusable. Blocks on the file system.
RegionView read_region();

// The names of the slices' files; none without a folder.
std::vector<std::string> slice_names();

// Removes this user's stale slices in `folder`; returns the names. `run` calls it first.
std::vector<std::string> clear_stale(const std::string& folder);

const char* kind_text(unsigned kind);

// What of the process does not fit the slice's tables, and what follows: "not held: more than 256
// GPU clients in this slice"; empty when all fits.
std::string unheld_text(const SliceView& slice, const ProcessView& process);

}  // namespace allot::cli
