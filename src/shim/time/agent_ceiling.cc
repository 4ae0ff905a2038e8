// See agent_ceiling.h.
#include "shim/time/agent_ceiling.h"

namespace allot::shim {
namespace {

constexpr uint32_t kNetPermille = 30;
constexpr uint32_t kNetSecondPermille = 3;

}  // namespace

void AgentCeiling::set(uint32_t max_permille, Kind kind, uint64_t now_ns) {
  if (max_permille != max_permille_) {
    second_.forget(now_ns);
    next_start_ns_ = 0;
    max_permille_ = max_permille;
  }
  holds_ = max_permille != 0 && kind != Kind::kNone;
  const bool net = kind == Kind::kNet;
  ceiling_.set_max(!holds_ ? 0 : max_permille + (net ? kNetPermille : 0));
  second_.set_max(holds_ && net ? max_permille + kNetSecondPermille : 0);
}

uint64_t AgentCeiling::hold(uint64_t at_ns, bool open, core::TimeGrant* grant) {
  if (!grant->open || !holds_) return UINT64_MAX;
  if (!open && at_ns < next_start_ns_) {
    grant->open = false;
    return next_start_ns_;
  }
  const uint64_t first = ceiling_.may_run_until(at_ns), second = second_.may_run_until(at_ns);
  const uint64_t until = first < second ? first : second;
  if (until > at_ns) {
    next_start_ns_ = 0;
    return until;
  }
  const uint64_t a = ceiling_.next_start(at_ns), b = second_.next_start(at_ns);
  next_start_ns_ = a > b ? a : b;
  grant->open = false;
  return next_start_ns_;
}

void AgentCeiling::run(uint64_t now_ns, bool busy) {
  for (core::Ceiling* ceiling : {&ceiling_, &second_}) {
    if (busy) {
      ceiling->start(now_ns);
    } else {
      ceiling->stop(now_ns);
    }
  }
}

}  // namespace allot::shim
