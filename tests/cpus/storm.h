// A process that makes threads while it is being moved: many that sleep, and chains in which each
// thread lives for a moment, starts its successor and ends. What escapes a move escapes here.
#pragma once

#include <sys/types.h>

namespace allot::cpus {

struct Storm {
  pid_t pid = 0;
  // Starts it and returns when all threads run; pid stays 0 when that failed.
  // `hop_us` is how long a link of a chain sleeps before it hands on.
  static Storm start(int idle, int chains, int hop_us);
  // Kills it and waits for it.
  void end();
  // Stops it for good, so that counting its threads misses none. False: not stopped within 10 s.
  bool freeze();
};

}  // namespace allot::cpus
