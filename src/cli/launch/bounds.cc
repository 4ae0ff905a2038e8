// See bounds.h. Names of users and groups are asked of the name service here, which guests cannot.
#include "cli/launch/bounds.h"

#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>

#include "cli/failure.h"
#include "cli/launch/admission.h"
#include "cli/output.h"

namespace allot::cli {
namespace {

Result<uint32_t> find_by_name_service(const shm::RulesFor&, bool group, const char* name) {
  if (group) {
    const struct group* entry = getgrnam(name);
    return entry != nullptr ? Result<uint32_t>(entry->gr_gid) : fail(Errc::kNotFound);
  }
  const struct passwd* entry = getpwnam(name);
  return entry != nullptr ? Result<uint32_t>(entry->pw_uid) : fail(Errc::kNotFound);
}

[[noreturn]] void above(std::string_view flag, const std::string& asked, const shm::Rules& rules,
                        shm::RuleKey key) {
  const shm::Rule& rule = rules.of[key];
  refuse("{}: {} is more than the {} that {} allows you; ask for less, or ask the administrator",
         flag, asked, rule_text(key, rule.value), rule.source);
}

}  // namespace

Bounds::Bounds() {
  std::vector<uint32_t> gids(1 + static_cast<size_t>(std::max(getgroups(0, nullptr), 0)));
  gids.resize(sys::group_ids(gids.data(), static_cast<uint32_t>(gids.size())));
  bool in_namespace = false;
  const uint32_t uid = sys::machine_user_id(&in_namespace);
  const shm::RulesFor who{uid, gids.data(), static_cast<uint32_t>(gids.size()),
                          uid == 0 && !in_namespace, find_by_name_service};
  if (const Result<void> read = shm::read_rules_for(who, &rules_); !read)
    refuse("{}; root can correct it", harmless(rules_.problem));
}

void Bounds::complete(SliceSpec* spec, bool priority_given) const {
  if (spec->max_permille == 0) {
    const uint64_t most = rules_.value(shm::kRuleMostGpuMax, 0);
    const uint64_t usual = rules_.value(shm::kRuleGpuMax, most);
    spec->max_permille = static_cast<uint32_t>(std::max<uint64_t>(usual, spec->share_permille));
    if (usual == 0) spec->max_permille = 0;
  }
  if (spec->share_permille == 0) {
    const uint64_t usual = rules_.value(shm::kRuleGpuShare, 0);
    spec->share_permille = static_cast<uint32_t>(
        spec->max_permille == 0 ? usual : std::min<uint64_t>(usual, spec->max_permille));
  }
  if (!priority_given) {
    uint64_t priority = rules_.value(shm::kRulePriority, ALLOT_PRIORITY_NORMAL);
    const uint64_t most = rules_.value(shm::kRuleMostPriority, priority);
    if (shm::priority_rank(most) < shm::priority_rank(priority)) priority = most;
    spec->priority = static_cast<AllotPriority>(priority);
  }
  check_share("--gpu-share", spec->share_permille);
  check_max("--gpu-max", spec->max_permille);
  check_priority("--priority", spec->priority);
}

void Bounds::complete(std::vector<ChosenGpu>* gpus, bool memory_given) const {
  const uint64_t most = rules_.value(shm::kRuleMostGpuMem, ALLOT_UNLIMITED);
  const uint64_t usual = std::min(rules_.value(shm::kRuleGpuMem, most), most);
  for (ChosenGpu& entry : *gpus) {
    // Of several GPUs some may have been given a limit, and the others none.
    const bool left_open = entry.limit_bytes == ALLOT_UNLIMITED && !memory_given;
    if (left_open && usual < entry.gpu->total_bytes) entry.limit_bytes = usual;
    if (most >= entry.gpu->total_bytes) continue;
    if (entry.limit_bytes == ALLOT_UNLIMITED || entry.limit_bytes > most)
      check_memory("--gpu-mem", entry.limit_bytes);
  }
}

void Bounds::check_count(const std::string& folder, const std::string& except_path) const {
  const shm::Rule& rule = rules_.of[shm::kRuleMostSlices];
  if (!rule.set || rule.value == ALLOT_UNLIMITED) return;
  const uint32_t have = shm::slices_of(folder.c_str(), geteuid(), except_path.c_str());
  if (have < rule.value) return;
  throw NotNow(fmt::format("run: you have {} slice{}, and {} allows {}; end one of them", have,
                           have == 1 ? "" : "s", rule.source, rule.value));
}

void Bounds::check_share(std::string_view flag, uint32_t permille) const {
  const uint64_t most = rules_.value(shm::kRuleMostGpuShare, 0);
  if (most != 0 && permille > most)
    above(flag, percent_text(permille), rules_, shm::kRuleMostGpuShare);
}

void Bounds::check_max(std::string_view flag, uint32_t permille) const {
  const uint64_t most = rules_.value(shm::kRuleMostGpuMax, 0);
  if (most != 0 && (permille == 0 || permille > most))
    above(flag, percent_text(permille), rules_, shm::kRuleMostGpuMax);
}

void Bounds::check_memory(std::string_view flag, uint64_t bytes) const {
  if (bytes > rules_.value(shm::kRuleMostGpuMem, ALLOT_UNLIMITED))
    above(flag, size_text(bytes), rules_, shm::kRuleMostGpuMem);
}

void Bounds::check_priority(std::string_view flag, uint32_t priority) const {
  const uint64_t most = rules_.value(shm::kRuleMostPriority, ALLOT_PRIORITY_HIGH);
  if (shm::priority_rank(priority) > shm::priority_rank(most))
    above(flag, priority_text(priority), rules_, shm::kRuleMostPriority);
}

std::string rule_text(uint32_t key, uint64_t value) {
  switch (key) {
    case shm::kRuleGpuMem:
    case shm::kRuleMostGpuMem:
      return size_text(value);
    case shm::kRulePriority:
    case shm::kRuleMostPriority:
      return priority_text(static_cast<uint32_t>(value));
    case shm::kRuleMostSlices:
      return value == ALLOT_UNLIMITED ? "none" : std::to_string(value);
    default:
      return percent_text(static_cast<uint32_t>(value));
  }
}

}  // namespace allot::cli
