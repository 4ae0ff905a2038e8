// Which of the administrator's rules apply to whom, and where they stand.
#include <unistd.h>

#include <filesystem>

#include "cli/doctor/doctor_checks.h"
#include "cli/failure.h"
#include "cli/launch/bounds.h"
#include "cli/output.h"
#include "cli/region/region_view.h"

namespace allot::cli {
namespace {

void add_rules(Findings* findings, Verdict verdict, std::string found, std::string advice = "") {
  findings->push_back({verdict, "rules", std::move(found), std::move(advice)});
}

void add_line(void* context, const shm::RuleLine& line) {
  add_rules(static_cast<Findings*>(context), Verdict::kNote,
            fmt::format("[{}] {} = {} ({})", harmless(line.section), line.key, harmless(line.value),
                        line.source));
}

}  // namespace

void check_rules(Findings* findings) {
  try {
    const Bounds bounds;
    const std::string me = owner_text(geteuid());
    if (!bounds.rules().any) {
      add_rules(findings, Verdict::kGood,
                fmt::format("no rule of /etc/allot/allot.conf or limits.d applies to {}", me));
    }
    for (uint32_t key = 0; key < shm::kRuleKeys; ++key) {
      const shm::Rule& rule = bounds.rules().of[key];
      if (!rule.set) continue;
      add_rules(findings, Verdict::kNote,
                fmt::format("{}: {} {}, by {}", me, shm::rule_name(key), rule_text(key, rule.value),
                            rule.source));
    }
    char problem[256] = {};
    if (geteuid() == 0) (void)shm::visit_rules(add_line, findings, problem);
  } catch (const Failure& failure) {
    add_rules(findings, Verdict::kProblem, failure.line(),
              "no slice can be made until that is corrected; allot.conf(5) says what it may be");
  }
}

}  // namespace allot::cli
