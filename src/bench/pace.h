// Waiting for a moment: sleeps to shortly before it and spins the rest. A sleep alone wakes 50 us
// late, which would be in every figure.
#pragma once

#include <thread>

#include "bench/gpu.h"

namespace allot::bench {

// `due_s` as now_s() counts; returns at once when it is past. Any thread; blocks.
inline void pace_until(double due_s) {
  constexpr double kSpinSeconds = 0.0002;
  const double sleep_s = due_s - kSpinSeconds - now_s();
  if (sleep_s > 0) std::this_thread::sleep_for(std::chrono::duration<double>(sleep_s));
  while (now_s() < due_s) {
  }
}

}  // namespace allot::bench
