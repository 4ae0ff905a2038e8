// A signal that a call of ours may raise on this thread (SIGXFSZ, SIGPIPE) must not reach the host:
// it is held back while one of these lives, and taken away if it came meanwhile. sigprocmask() is
// per thread on Linux, and pthread_sigmask() newer than the oldest glibc that guests meet.
#pragma once

#include <signal.h>

#include <ctime>

#include "sys/keep_errno.h"

namespace allot::sys {

class HoldSignal {
 public:
  explicit HoldSignal(int number) {
    const KeepErrno keep;
    sigemptyset(&set_);
    sigaddset(&set_, number);
    sigset_t pending;
    was_pending_ = sigpending(&pending) == 0 && sigismember(&pending, number) == 1;
    held_ = sigprocmask(SIG_BLOCK, &set_, &before_) == 0;
  }
  ~HoldSignal() {
    const KeepErrno keep;
    if (!held_) return;
    constexpr timespec kAtOnce = {0, 0};
    if (!was_pending_) sigtimedwait(&set_, nullptr, &kAtOnce);
    sigprocmask(SIG_SETMASK, &before_, nullptr);
  }
  HoldSignal(const HoldSignal&) = delete;
  HoldSignal& operator=(const HoldSignal&) = delete;

 private:
  sigset_t set_;
  sigset_t before_;
  bool was_pending_ = false;
  bool held_ = false;
};

}  // namespace allot::sys
