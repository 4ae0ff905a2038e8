// Rules of the machine's administrator: defaults and bounds of slices, by user and group.
//
//   /etc/allot/allot.conf, then /etc/allot/limits.d/*.conf in the order of their names:
//
//     [all]                     # every user but root
//     most-gpu-mem = 40G        # bound of each slice on each GPU
//     [group students]          # by name or number
//     gpu-share = 10            # default, where nothing is asked for
//     most-slices = 2
//     [user ann]
//     most-gpu-mem = none       # no bound
//
// Of the sections that name a user, [user] counts before [group], and that before [all]; among
// equals the last one read counts. Each key is looked up by itself.
//
// The command and the shim read them by the same code, so that both mean the same: no libstdc++, no
// name service. Names are looked up in /etc/passwd and /etc/group, or by whom the caller gives.
//
// What must not happen here: a file that cannot be read or understood counts as no rule. Each error
// is one line that names the file and the line.
#pragma once

#include <cstdint>

#include "abi/region.h"
#include "base/result.h"
#include "sys/file.h"

namespace allot::shm {

enum RuleKey : uint32_t {
  kRuleGpuMem,      // bytes; ALLOT_UNLIMITED = none
  kRuleGpuShare,    // permille; 0 = none
  kRuleGpuMax,      // permille; 0 = none
  kRulePriority,    // AllotPriority
  kRuleMostGpuMem,  // as the four above
  kRuleMostGpuShare,
  kRuleMostGpuMax,
  kRuleMostPriority,
  kRuleMostSlices,  // 0 = none may be made; ALLOT_UNLIMITED = no bound
  kRuleKeys
};

struct Rule {
  bool set = false;
  uint32_t rank = 0;  // 1 [all], 2 [group], 3 [user]
  uint64_t value = 0;
  char source[160] = {};  // "/etc/allot/allot.conf:3"
};

struct Rules {
  bool any = false;        // some rule applies
  char problem[256] = {};  // after an error
  Rule of[kRuleKeys];

  // The value, or `without` where no rule applies.
  uint64_t value(RuleKey key, uint64_t without) const {
    return of[key].set ? of[key].value : without;
  }
  // Whether a slice gets limits though nothing is asked for.
  bool limits() const;
};

// For whom. `find` gives the number of a user (or group) by name: kNotFound where nobody has it.
struct RulesFor {
  uint32_t uid;
  const uint32_t* gids;
  uint32_t gid_count;
  bool root;  // of the machine: only [user] sections count
  Result<uint32_t> (*find)(const RulesFor& who, bool group, const char* name);
};

// The name that a key has in the files; "?" for another number.
const char* rule_name(uint32_t key);

// 0 for low, 1 for normal, 2 for high: priorities in order.
uint32_t priority_rank(uint64_t priority);

// Reads the rules for `who`. No file is no rule. Errors: kBadValue (text not understood, a name
// that cannot be looked up), kNoPermission (not root's, or others may write it), as sys::open_file;
// `out->problem` says it. Any thread; maps some memory for the moment.
Result<void> read_rules_for(const RulesFor& who, Rules* out);

// The same for the calling process, with names from /etc/passwd and /etc/group.
Result<void> read_rules(Rules* out);

// Calls `visit` for each line of the files that sets something: section, key and value as written.
// Errors as read_rules_for; `problem` (256 bytes) says it.
struct RuleLine {
  const char* source;
  const char* section;
  const char* key;
  const char* value;
};
Result<void> visit_rules(void (*visit)(void* context, const RuleLine& line), void* context,
                         char* problem);

// How many slices in `folder` are `uid`'s and in use, except that at `except_path` (may be null).
uint32_t slices_of(const char* folder, uint32_t uid, const char* except_path);

}  // namespace allot::shm
