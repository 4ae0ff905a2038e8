// See guest_thread.h.
#include "shim/process/guest_thread.h"

#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>

#include "sys/glibc_floor.h"
#include "sys/keep_errno.h"

namespace allot::shim {
namespace {

constexpr size_t kStackBytes = 256 * 1024;
constexpr size_t kTlsReserve = 64 * 1024;  // libc's own, and what libraries get that come later

// glibc takes the thread-local variables of all libraries out of a thread's stack, some programs'
// by the megabyte.
int add_tls(dl_phdr_info* info, size_t, void* sum) {
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    if (segment.p_type == PT_TLS) *static_cast<size_t*>(sum) += segment.p_memsz + segment.p_align;
  }
  return 0;
}

size_t stack_bytes() {
  size_t tls = 0;
  dl_iterate_phdr(add_tls, &tls);
  constexpr size_t kPageBytes = 4096;
  return kStackBytes + kTlsReserve + (tls + kPageBytes - 1) / kPageBytes * kPageBytes;
}

constexpr unsigned long kSlackNs = 1000;

}  // namespace

bool start_guest_thread(void* (*body)(void*)) {
  const sys::KeepErrno keep;
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, stack_bytes());
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
