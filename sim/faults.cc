// Scripted faults and delays: ALLOT_SIM_FAULTS, described in sim/README.md.
//
//   cuMemAlloc_v2:nth=3:result=2;cuLaunchKernel:delay_us=100;rm:SET_TIMESLICE:status=0x56
//
// Rules are read once, at cuInit. A rule names an entry (or `rm:` and a control call) and says for
// which calls it holds (nth=N only the N-th, from=N from the N-th on, every=N; all by default), how
// long to wait (delay_us) and what to answer (result, or status for RM; without it the call
// proceeds).
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "abi/env.h"
#include "runtime.h"

namespace allot::sim {
namespace {

struct Rule {
  std::string name;
  uint64_t nth = 0, from = 0, every = 0;
  int64_t delay_us = 0;
  bool answers = false;
  int result = 0;
  std::atomic<uint64_t> calls{0};

  bool holds(uint64_t call) const {
    if (nth != 0 && call != nth) return false;
    if (from != 0 && call < from) return false;
    return every == 0 || call % every == 0;
  }
};

std::vector<std::unique_ptr<Rule>>& rules() {
  static auto& list = *new std::vector<std::unique_ptr<Rule>>;
  return list;
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  for (size_t from = 0; from <= text.size();) {
    const size_t end = std::min(text.find(at, from), text.size());
    if (end > from) parts.push_back(text.substr(from, end - from));
    from = end + 1;
  }
  return parts;
}

std::unique_ptr<Rule> parse(const std::string& text) {
  auto rule = std::make_unique<Rule>();
  std::vector<std::string> parts = split(text, ':');
  if (parts.empty()) return nullptr;
  rule->name = parts[0];
  size_t next = 1;
  if ((rule->name == "rm" || rule->name == "checkpoint") && parts.size() > 1)
    rule->name += ":" + parts[next++];
  for (; next < parts.size(); next++) {
    const size_t equals = parts[next].find('=');
    if (equals == std::string::npos) return nullptr;
    const std::string key = parts[next].substr(0, equals);
    const uint64_t value = strtoull(parts[next].c_str() + equals + 1, nullptr, 0);
    if (key == "nth") {
      rule->nth = value;
    } else if (key == "from") {
      rule->from = value;
    } else if (key == "every") {
      rule->every = value;
    } else if (key == "delay_us") {
      rule->delay_us = static_cast<int64_t>(value);
    } else if (key == "result" || key == "status") {
      rule->answers = true;
      rule->result = static_cast<int>(value);
    } else {
      return nullptr;
    }
  }
  return rule;
}

}  // namespace

void load_faults() {
  const char* text = getenv(ALLOT_ENV_SIM_FAULTS);
  if (text == nullptr) return;
  for (const std::string& part : split(text, ';')) {
    if (auto rule = parse(part)) rules().push_back(std::move(rule));
  }
  g_faults.store(!rules().empty());
}

bool take_fault(const char* name, int* result) {
  for (const auto& rule : rules()) {
    if (rule->name != name) continue;
    if (!rule->holds(++rule->calls)) continue;
    if (rule->delay_us > 0) {
      timespec t{rule->delay_us / 1'000'000, rule->delay_us % 1'000'000 * 1000};
      nanosleep(&t, nullptr);
    }
    if (rule->answers) {
      *result = rule->result;
      return true;
    }
  }
  return false;
}

}  // namespace allot::sim
