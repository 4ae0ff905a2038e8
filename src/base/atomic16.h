// Compare-and-swap of 16 bytes, lock-free and valid between processes.
//
// The compiler's own 16-byte atomics may call libatomic, which takes a lock inside the process:
// such a lock protects nothing in memory shared with other processes. (ThreadSanitizer makes them
// do the same.) So the instruction is written out. Nothing here may ever fall back to a lock.
#pragma once

#include <cstdint>

namespace allot {

struct alignas(16) Pair16 {
  uint64_t low;
  uint64_t high;
};

// Replaces `*at` (16 bytes, aligned to 16) by `desired` if it equals `expected`; otherwise writes
// the value it found, read as a whole, to `expected`. A full fence in both cases. It writes the
// cache line even when it fails, so never use it on read-only memory. Any thread, signal-safe,
// lock-free.
inline bool cas16(void* at, Pair16& expected, Pair16 desired) {
#if defined(__x86_64__)
  bool done;
  __asm__ __volatile__("lock cmpxchg16b %[word]"
                       : "=@ccz"(done), [word] "+m"(*static_cast<Pair16*>(at)), "+a"(expected.low),
                         "+d"(expected.high)
                       : "b"(desired.low), "c"(desired.high)
                       : "memory");
  return done;
#elif defined(__aarch64__)
  uint64_t low, high;
  uint32_t lost;
  do {
    __asm__ __volatile__("ldaxp %0, %1, %2"
                         : "=&r"(low), "=&r"(high)
                         : "Q"(*static_cast<Pair16*>(at)));
    bool same = low == expected.low && high == expected.high;
    // The pair is read whole only if the store succeeds, so a mismatch stores back what it found.
    uint64_t put_low = same ? desired.low : low, put_high = same ? desired.high : high;
    __asm__ __volatile__("stlxp %w0, %2, %3, %1"
                         : "=&r"(lost), "=Q"(*static_cast<Pair16*>(at))
                         : "r"(put_low), "r"(put_high)
                         : "memory");
    if (lost == 0 && same) return true;
  } while (lost != 0);
  expected.low = low;
  expected.high = high;
  return false;
#else
#error "no 16-byte compare-and-swap known for this processor"
#endif
}

// Reads both halves, `high` first. Each half is whole; the two may be from different moments. Good
// as the first guess for cas16, which corrects it.
inline Pair16 peek16(const void* at) {
  const uint64_t* half = static_cast<const uint64_t*>(at);
  Pair16 pair;
  pair.high = __atomic_load_n(half + 1, __ATOMIC_ACQUIRE);
  pair.low = __atomic_load_n(half, __ATOMIC_ACQUIRE);
  return pair;
}

// Tells the processor that this is a spin loop.
inline void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

}  // namespace allot
