// How core reads and writes words of the shared file, and where a test may stop a thread.
//
// Every access to the file goes through these functions, except to a slot that is being filled, so
// that no value is read twice and no store is torn. ALLOT_LEDGER_STEP() comes before each access
// that other processes can see. It is empty in the product; the interleaving test defines it to
// switch threads there.
#pragma once

#include <cstdint>

#include "abi/region.h"
#include "base/atomic16.h"

#ifndef ALLOT_LEDGER_STEP
#define ALLOT_LEDGER_STEP() ((void)0)
#endif

namespace allot::core {

template <class T>
T load(const T& word) {
  return __atomic_load_n(&word, __ATOMIC_SEQ_CST);
}

template <class T>
void store(T& word, T value) {
  __atomic_store_n(&word, value, __ATOMIC_SEQ_CST);
}

template <class T>
bool cas(T& word, T& expected, T desired) {
  return __atomic_compare_exchange_n(&word, &expected, desired, false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST);
}

// Raises `word` to at least `value`.
template <class T>
void raise_to(T& word, T value) {
  T seen = __atomic_load_n(&word, __ATOMIC_RELAXED);
  while (seen < value && !cas(word, seen, value)) {
  }
}

inline uint64_t saturating_add(uint64_t a, uint64_t b) {
  return b > UINT64_MAX - a ? UINT64_MAX : a + b;
}

inline uint32_t gpus_of(const AllotSliceFile& file) {
  uint32_t count = load(file.header.gpu_count);
  return count < ALLOT_MAX_GPUS ? count : ALLOT_MAX_GPUS;
}

// Slots below this may be in use.
inline uint32_t slots_of(const AllotSliceFile& file) {
  uint32_t high = load(file.header.slots_high);
  return high < ALLOT_MAX_SLOTS ? high : ALLOT_MAX_SLOTS;
}

}  // namespace allot::core
