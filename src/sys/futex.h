// Futexes: sleep while a word has a value; wake the threads that sleep on it.
//
// kShared: the word is in memory that several processes map; the kernel finds it by file and
// offset, so a read-only mapping is enough for both calls. Any thread; signal-safe; errno does not
// change.
#pragma once

#include <linux/futex.h>

#include <climits>
#include <cstdint>
#include <ctime>

#include "sys/raw.h"

namespace allot::sys {

enum class FutexScope { kPrivate, kShared };

inline int futex_operation(int operation, FutexScope scope) {
  return scope == FutexScope::kPrivate ? operation | FUTEX_PRIVATE_FLAG : operation;
}

// Returns when woken, when the word is not `value` (any more), after `timeout_ns`, on a signal, or
// when the address is invalid: the caller must look at the word again in every case. True: a
// futex_wake woke it (also one that changed nothing).
inline bool futex_wait(const void* word, uint32_t value, uint64_t timeout_ns, FutexScope scope) {
  timespec timeout = {static_cast<time_t>(timeout_ns / 1000000000u),
                      static_cast<long>(timeout_ns % 1000000000u)};
  return raw_call(SYS_futex, raw_pointer(word), futex_operation(FUTEX_WAIT, scope), value,
                  raw_pointer(&timeout)) == 0;
}

// Wakes all threads that sleep on the word.
inline void futex_wake(const void* word, FutexScope scope) {
  raw_call(SYS_futex, raw_pointer(word), futex_operation(FUTEX_WAKE, scope), INT_MAX);
}

}  // namespace allot::sys
