// A slice's ceiling on one GPU, as its agent holds it: over a sliding 100 ms, or as a net under
// windows.
//
// Where windows are cut from the cycle they hold the ceiling by themselves: then the sliding spans
// are only a net for windows that move, and not quite exact: an exact one never forgives a single
// window that began late, because each later one must stay as far behind (seen on an H100: PyTorch
// at 50 % lost 1.4 points in this way). Behind a gate there is no net: work ends when it ends, and
// what it overran is paid window by window (core/time_debt.h).
//
// Owned by one agent's thread. No system call.
#pragma once

#include <cstdint>

#include "core/time_ceiling.h"
#include "core/time_policy.h"

namespace allot::core {

class WindowCeiling {
 public:
  enum class Kind { kExact, kNet, kNetBeside, kNone };
  // `max_permille` 0 = none; what it is held by. With another max than before, the second counts
  // from now on: one that falls from 100 % to 10 % would stand still for most of a second
  // otherwise.
  void set(uint32_t max_permille, Kind kind, uint64_t now_ns);

  // Closes the grant where the ceiling is used up; `open` says whether its work is let run now.
  // Returns until when this stays so, UINT64_MAX = as long as the ceiling and the grant stay.
  uint64_t hold(uint64_t at_ns, bool open, TimeGrant* grant);

  // From now on its work runs / does not.
  void run(uint64_t now_ns, bool busy);

 private:
  Ceiling ceiling_;
  Ceiling second_{1'000'000'000};
  uint64_t next_start_ns_ = 0;
  uint32_t max_permille_ = 0;
  bool holds_ = false;
};

}  // namespace allot::core
