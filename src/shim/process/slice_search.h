// Which slice a process belongs to, and the limits its environment names.
//
// In this order: the file that ALLOT_TENANT names; the slice that the folder's file `self` names
// (in a container); the slice of an ancestor of the process (for a process that lost its
// environment: `env -i`, a daemon's child); the slice that claims its cgroup (ssh, cron and su in a
// job or a unit); a slice for processes without one (ALLOT_SLICE_DEFAULT); limits in the
// environment, ours or HAMi's, or defaults of the administrator's rules, which make or join a
// slice. Ancestors come before limits, so that a process cannot leave its slice by naming another
// limit.
#pragma once

#include <cstdint>

#include "abi/region.h"
#include "base/result.h"
#include "shm/rules.h"

namespace allot::shim {

struct SliceChoice {
  enum class Kind : uint8_t { kNone, kFile, kByLimits };
  Kind kind = Kind::kNone;
  char path[512] = {};    // kFile: the slice's file
  char folder[512] = {};  // kByLimits: where to make or join it
  char name[64] = {};     // kByLimits
};

// Reads /proc and the region's folder; changes nothing.
// Errors: kBadValue (an invalid name or folder), kNoPermission (we may not use the folder). Any
// thread; does not allocate.
Result<void> choose_slice(SliceChoice* out);

// The administrator's rules for this process, as choose_slice has read them; what is wrong with
// them, or null.
const shm::Rules& house_rules();
const char* rules_problem();

// The limit that the environment names for the device of this index, or ALLOT_UNLIMITED. Values
// that cannot be read are found before (limits_read.h).
uint64_t limit_of(uint32_t visible_index);

// The GPU time that the environment names for the device of this index, in permille; 0 = none.
// ALLOT_GPU_SHARE and ALLOT_GPU_MAX; else HAMi's CUDA_DEVICE_SM_LIMIT, which is both share and
// ceiling unless GPU_CORE_UTILIZATION_POLICY turns the limit off. A ceiling below the share becomes
// the share.
struct WantedTime {
  uint32_t share_permille;
  uint32_t max_permille;
  bool only_limit = false;  // HAMi's: nobody asked for a guarantee
};
WantedTime wanted_time(uint32_t visible_index);

// ALLOT_OVERCOMMIT=1.
bool wants_overcommit();

// ALLOT_PRIORITY, else HAMi's CUDA_TASK_PRIORITY (0 high, 1 low); normal without either.
AllotPriority wanted_priority();

// ALLOT_LEVEL; auto without it.
AllotLevel wanted_level();

// ALLOT_SWAP=fast.
bool wants_fast_swap();

// Whether GPU work is refused where a limit cannot be enforced (ALLOT_FAIL=closed, or a value that
// is not understood).
bool fails_closed();

}  // namespace allot::shim
