// The header explains the order; each step is one function of shm.
#include "shim/process/slice_search.h"

#include <atomic>
#include <string_view>

#include "abi/env.h"
#include "abi/region.h"
#include "base/text.h"
#include "base/units.h"
#include "shim/process/spin.h"
#include "shim/process/start_environment.h"
#include "shm/cgroup_claim.h"
#include "shm/slice_file.h"
#include "sys/process.h"

namespace allot::shim {
namespace {

bool same(const char* a, const char* b) {
  while (*a != '\0' && *a == *b) {
    ++a;
    ++b;
  }
  return *a == *b;
}

// A limit for any device is enough to make a slice.
bool names_limit() {
  for (uint32_t i = 0; i < ALLOT_MAX_GPUS; ++i) {
    for (const char* name : {ALLOT_ENV_GPU_MEM, ALLOT_ALIAS_GPU_MEM, ALLOT_ENV_GPU_SHARE,
                             ALLOT_ENV_GPU_MAX, ALLOT_ALIAS_GPU_SHARE}) {
      if (start_variable_for(name, i)) return true;
    }
  }
  return false;
}

// A percentage in permille; 0 when there is none or it cannot be read.
uint32_t percent_of(const char* name, uint32_t visible_index) {
  const char* text = start_variable_for(name, visible_index);
  if (text == nullptr) return 0;
  const Result<uint32_t> permille = parse_percent(text);
  return permille ? *permille : 0;
}

// As HAMi reads it. HAMi's default limits only while a daemon sees other work; allot always limits,
// as users expect of a limit.
bool alias_limits() {
  const char* policy = start_variable(ALLOT_ALIAS_POLICY);
  return policy == nullptr || !(same(policy, "disable") || same(policy, "DISABLE"));
}

// ALLOT_NAME; else a name made from the path that HAMi's processes share; else "default". In a
// folder of several users the last two have the user's number behind them.
void slice_name(const char* folder, char* out, uint32_t size) {
  TextBuf text(out, size);
  if (const char* name = start_variable(ALLOT_ENV_NAME)) {
    text.text(name);
    if (text.cut()) out[0] = '\0';  // too long: not a name
  } else if (const char* shared = start_variable(ALLOT_ALIAS_REGION)) {
    uint32_t length = 0;
    while (shared[length] != '\0') ++length;
    text.text("shared-").hex(hash64(shared, length), 16);
  } else {
    text.text("default");
  }
  if (start_variable(ALLOT_ENV_NAME) == nullptr && shm::is_shared(folder))
    text.put('-').u64(sys::user_id());
}

// Read once, before the first slice is looked for; later changes are for later processes.
constinit shm::Rules rules = {};
constinit std::atomic<bool> rules_read{false};
constinit SpinLock reading_rules;

void read_rules_once() {
  if (rules_read.load(std::memory_order_acquire)) return;
  reading_rules.lock();
  if (!rules_read.load(std::memory_order_relaxed)) {
    if (!shm::read_rules(&rules) && rules.problem[0] == '\0')
      TextBuf(rules.problem, sizeof(rules.problem)).text("the rules in /etc/allot cannot be read");
    rules_read.store(true, std::memory_order_release);
  }
  reading_rules.unlock();
}

uint32_t rule(shm::RuleKey key) {
  return static_cast<uint32_t>(rules.value(key, 0));
}

}  // namespace

Result<void> choose_slice(SliceChoice* out) {
  *out = {};
  if (start_environment().disabled) return {};
  if (const char* slice = start_variable(ALLOT_ENV_SLICE)) {
    TextBuf path(out->path, sizeof(out->path));
    path.text(slice);
    if (path.cut()) return fail(Errc::kBadValue);
    out->kind = SliceChoice::Kind::kFile;
    return {};
  }
  read_rules_once();
  const bool by_limits = names_limit() || rules.limits() || rules.problem[0] != '\0';
  const Result<void> folder =
      shm::region_folder(start_variable(ALLOT_ENV_DIR), by_limits, out->folder);
  if (!folder) {
    if (by_limits) return folder;
    return {};  // no folder and no limit named: not in a slice
  }
  const Result<void> self = shm::find_slice_of_self(out->folder, out->path);
  if (!self && self.error().code != Errc::kNotFound) return self;
  if (self || shm::find_slice_of_ancestors(out->folder, sys::current_pid(), out->path) ||
      shm::find_slice_of_cgroup(out->folder, out->path) ||
      shm::find_default_slice(out->folder, out->path)) {
    out->kind = SliceChoice::Kind::kFile;
    return {};
  }
  if (!by_limits) return {};
  slice_name(out->folder, out->name, sizeof(out->name));
  if (!shm::valid_name(out->name)) return fail(Errc::kBadValue);
  out->kind = SliceChoice::Kind::kByLimits;
  return {};
}

const shm::Rules& house_rules() {
  return rules;
}

const char* rules_problem() {
  return rules.problem[0] != '\0' ? rules.problem : nullptr;
}

uint64_t limit_of(uint32_t visible_index) {
  const uint64_t most = rules.value(shm::kRuleMostGpuMem, ALLOT_UNLIMITED);
  const uint64_t usual = rules.value(shm::kRuleGpuMem, most);
  for (const char* name : {ALLOT_ENV_GPU_MEM, ALLOT_ALIAS_GPU_MEM}) {
    const char* text = start_variable_for(name, visible_index);
    if (text == nullptr) continue;
    if (same(text, "none")) return most;
    const Result<uint64_t> bytes = parse_size(text);
    if (bytes && *bytes > 0) return *bytes < most ? *bytes : most;
  }
  return usual < most ? usual : most;
}

WantedTime wanted_time(uint32_t visible_index) {
  WantedTime time = {percent_of(ALLOT_ENV_GPU_SHARE, visible_index),
                     percent_of(ALLOT_ENV_GPU_MAX, visible_index), false};
  if (time.share_permille == 0 && time.max_permille == 0 && alias_limits()) {
    const uint32_t limit = percent_of(ALLOT_ALIAS_GPU_SHARE, visible_index);
    constexpr uint32_t kNone = 1000;  // 100 % is HAMi's word for no limit
    if (limit != 0 && limit < kNone) time = {limit, limit, true};
  }
  if (time.share_permille == 0 && time.max_permille == 0)
    time.share_permille = rule(shm::kRuleGpuShare);
  if (time.max_permille == 0) time.max_permille = rule(shm::kRuleGpuMax);
  const uint32_t most_share = rule(shm::kRuleMostGpuShare);
  const uint32_t most = rule(shm::kRuleMostGpuMax);
  if (most_share != 0 && time.share_permille > most_share) time.share_permille = most_share;
  if (time.max_permille != 0 && time.max_permille < time.share_permille) {
    time.max_permille = time.share_permille;
  }
  if (most != 0 && (time.max_permille == 0 || time.max_permille > most)) time.max_permille = most;
  if (most != 0 && time.share_permille > most) time.share_permille = most;
  return time;
}

bool wants_overcommit() {
  const char* text = start_variable(ALLOT_ENV_OVERCOMMIT);
  return text != nullptr && same(text, "1");
}

AllotPriority asked_priority() {
  if (const char* text = start_variable(ALLOT_ENV_PRIORITY)) {
    if (same(text, "high")) return ALLOT_PRIORITY_HIGH;
    if (same(text, "low")) return ALLOT_PRIORITY_LOW;
    return ALLOT_PRIORITY_NORMAL;
  }
  if (const char* text = start_variable(ALLOT_ALIAS_PRIORITY)) {
    if (same(text, "0")) return ALLOT_PRIORITY_HIGH;
    if (same(text, "1")) return ALLOT_PRIORITY_LOW;
  }
  return static_cast<AllotPriority>(rules.value(shm::kRulePriority, ALLOT_PRIORITY_NORMAL));
}

AllotPriority wanted_priority() {
  const AllotPriority asked = asked_priority();
  const uint64_t most = rules.value(shm::kRuleMostPriority, ALLOT_PRIORITY_HIGH);
  return shm::priority_rank(asked) > shm::priority_rank(most) ? static_cast<AllotPriority>(most)
                                                              : asked;
}

AllotLevel wanted_level() {
  const char* text = start_variable(ALLOT_ENV_LEVEL);
  if (text == nullptr) return ALLOT_LEVEL_AUTO;
  if (same(text, "channel")) return ALLOT_LEVEL_CHANNEL;
  if (same(text, "launch")) return ALLOT_LEVEL_LAUNCH;
  if (same(text, "observe")) return ALLOT_LEVEL_OBSERVE;
  return ALLOT_LEVEL_AUTO;
}

bool wants_fast_swap() {
  const char* text = start_variable(ALLOT_ENV_SWAP);
  return text != nullptr && same(text, "fast");
}

bool fails_closed() {
  const StartEnvironment& start = start_environment();
  for (uint32_t i = 0; i < start.count; ++i) {
    // Whatever is not understood is closed: the other way a slip of the pen would open everything.
    const std::string_view entry = start.variables[i];
    if (entry.starts_with(ALLOT_ENV_FAIL "=")) return entry != ALLOT_ENV_FAIL "=open";
  }
  return false;
}

}  // namespace allot::shim
