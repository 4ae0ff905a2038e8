// System calls straight to the kernel.
//
// Guest code avoids libc's wrappers where it can: the program (or we) may interpose them, they are
// cancellation points at which a file descriptor would leak, they set the host's errno, and some
// (stat, fstat) have a symbol version newer than the glibc we support. Only src/sys includes this
// file.
#pragma once

#include <sys/syscall.h>

#include <cstdint>

namespace allot::sys {

// Returns the kernel's answer: -4095..-1 is a negated errno. errno itself does not change. Any
// thread, signal-safe; blocks as the call does.
inline long raw_call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0,
                     long f = 0) {
#if defined(__x86_64__)
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  long result;
  __asm__ __volatile__("syscall"
                       : "=a"(result)
                       : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                       : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x5 __asm__("x5") = f;
  __asm__ __volatile__("svc 0"
                       : "+r"(x0)
                       : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                       : "memory");
  return x0;
#else
#error "no system call known for this processor"
#endif
}

inline bool raw_failed(long result) {
  return result < 0 && result >= -4095;
}
inline long raw_pointer(const void* p) {
  return reinterpret_cast<long>(p);
}

}  // namespace allot::sys
