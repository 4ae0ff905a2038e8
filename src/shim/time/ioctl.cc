// ioctl: the driver's own calls to the kernel come through here, and the program's too.
//
// libcuda calls ioctl through the PLT, so a preloaded library that exports it sees every RM call.
// Requests of another type than 'F' go straight to the kernel: one comparison more than libc's own
// wrapper, which is no cancellation point either. The software GPU has no kernel behind it: it
// exports allot_sim_ioctl, and RM calls on its descriptors are answered there.
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdarg>

#include "driver/rm_abi.h"
#include "shim/process/real_library.h"
#include "shim/time/rm_tracker.h"

namespace allot::shim {
namespace {

using SimIoctl = int (*)(int fd, unsigned long request, void* argument);

// The software GPU's entry, or null. Other devices use type 'F' too (frame buffers): a process that
// has not opened the driver must not do so because of them.
SimIoctl sim_ioctl() {
  static constinit std::atomic<SimIoctl> known{nullptr};
  static constinit std::atomic<bool> asked{false};
  if (!asked.load(std::memory_order_acquire)) {
    if (!real_cuda.open_now()) return nullptr;
    known.store(reinterpret_cast<SimIoctl>(real_cuda.find("allot_sim_ioctl")),
                std::memory_order_relaxed);
    asked.store(true, std::memory_order_release);
  }
  return known.load(std::memory_order_relaxed);
}

int kernel_ioctl(int fd, unsigned long request, void* argument) {
  return static_cast<int>(syscall(SYS_ioctl, fd, request, argument));
}

int rm_ioctl(int fd, unsigned long request, void* argument) {
  const int result = rm_call(fd, request, argument);
  watch_rm_call(fd, request, argument, result);
  return result;
}

}  // namespace

int rm_call(int fd, unsigned long request, void* argument) {
  const SimIoctl sim = sim_ioctl();
  return sim != nullptr ? sim(fd, request, argument) : kernel_ioctl(fd, request, argument);
}

extern "C" __attribute__((visibility("default"))) int ioctl(int fd, unsigned long request, ...) {
  va_list arguments;
  va_start(arguments, request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  if (ALLOT_RM_REQUEST_TYPE(request) != NV_IOCTL_MAGIC) return kernel_ioctl(fd, request, argument);
  return rm_ioctl(fd, request, argument);
}

}  // namespace allot::shim
