// See window_ceiling.h.
#include "core/window_ceiling.h"

namespace allot::core {
namespace {

struct Net {
  uint32_t span_permille, second_permille;  // above the max
};
// The windows hold the ceiling; the net catches what they let through. 3 ms in 100, 3 in 1,000.
constexpr Net kNet = {30, 3};
// Beside others each window of 20 ms loses some 0.6 ms at its edges, in which its work is let run
// and does not.
constexpr Net kNetBeside = {60, 45};

}  // namespace

void WindowCeiling::set(uint32_t max_permille, Kind kind, uint64_t now_ns) {
  if (max_permille != max_permille_) {
    second_.forget(now_ns);
    next_start_ns_ = 0;
    max_permille_ = max_permille;
  }
  holds_ = max_permille != 0 && kind != Kind::kNone;
  const bool net = kind == Kind::kNet || kind == Kind::kNetBeside;
  const Net above = kind == Kind::kNetBeside ? kNetBeside : net ? kNet : Net{};
  ceiling_.set_max(!holds_ ? 0 : max_permille + above.span_permille);
  second_.set_max(holds_ && net ? max_permille + above.second_permille : 0);
}

uint64_t WindowCeiling::hold(uint64_t at_ns, bool open, TimeGrant* grant) {
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

void WindowCeiling::run(uint64_t now_ns, bool busy) {
  for (Ceiling* ceiling : {&ceiling_, &second_}) {
    if (busy) {
      ceiling->start(now_ns);
    } else {
      ceiling->stop(now_ns);
    }
  }
}

}  // namespace allot::core
