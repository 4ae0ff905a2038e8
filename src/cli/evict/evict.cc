// Chooses the way in which a slice moves (evict.h).
#include "cli/evict/evict.h"

#include <algorithm>

#include "cli/evict/evict_base.h"
#include "core/shared.h"

namespace allot::cli {
namespace {

using core::load;

// Whether a process is held or moved out the fast way, whatever the slice's flags say.
bool held_fast(const AllotSliceFile& file) {
  const uint32_t high = std::min(load(file.header.slots_high), ALLOT_MAX_SLOTS);
  for (uint32_t i = 0; i < high; ++i) {
    const uint64_t word = load(file.slot_words[i]);
    if (ALLOT_SLOT_STATE(word) != ALLOT_SLOT_LIVE || load(file.swaps[i].owner) != word) continue;
    if (ALLOT_SWAP_STATE(load(file.swaps[i].answer)) != ALLOT_SWAP_RUNS) return true;
  }
  return false;
}

// A slice that is partly moved continues in the same way; else the user's choice counts, or how the
// slice was started.
bool goes_fast(const char* command, OpenSlice& slice, const std::string& name,
               const MoveOptions& options) {
  const AllotSliceFile& file = *slice->file;
  const uint32_t flags = load(file.header.flags);
  if ((flags & ALLOT_SLICE_EVICTED_FAST) != 0 || held_fast(file)) return true;
  if ((flags & ALLOT_SLICE_EVICTED) != 0) return false;
  const bool able = (flags & ALLOT_SLICE_SWAP_FAST) != 0;
  if (options.way == Way::kFast && !able) {
    refuse("{}: '{}' was not started with 'allot run --swap fast'; leave --swap out", command,
           name);
  }
  return options.way == Way::kFast || (options.way == Way::kAsStarted && able);
}

}  // namespace

Moved evict(OpenSlice& slice, const std::string& name, const MoveOptions& options) {
  if (goes_fast("evict", slice, name, options)) return evict_fast(slice, name, options);
  return evict_by_driver(slice, name, options);
}

Moved restore(OpenSlice& slice, const std::string& name, const MoveOptions& options) {
  if (goes_fast("restore", slice, name, options)) return restore_fast(slice, name, options);
  return restore_by_driver(slice, name, options);
}

}  // namespace allot::cli
