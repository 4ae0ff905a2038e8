// See guest_thread.h.
#include "shim/process/guest_thread.h"

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>

#include "sys/glibc_floor.h"
#include "sys/keep_errno.h"

namespace allot::shim {
namespace {

constexpr size_t kStackBytes = 256 * 1024;
constexpr unsigned long kSlackNs = 1000;

}  // namespace

bool start_guest_thread(void* (*body)(void*)) {
  const sys::KeepErrno keep;
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  // A thread inherits its creator's signal mask. So all signals are blocked for that moment, and no
  // handler of the host ever runs on the thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const int result = pthread_create(&thread, &attributes, body, nullptr);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  return result == 0;
}

void name_guest_thread(const char* name) {
  const sys::KeepErrno keep;
  prctl(PR_SET_NAME, name, 0, 0, 0);
  prctl(PR_SET_TIMERSLACK, kSlackNs, 0, 0, 0);
}

}  // namespace allot::shim
