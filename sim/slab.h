// One slab of cuMemAlloc's small blocks: 2 MiB in units of 512 bytes.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "machine.h"

namespace allot::sim {

inline constexpr uint64_t kUnit = 512;
inline constexpr uint32_t kUnits = static_cast<uint32_t>(kPageBytes / kUnit);

struct Slab {
  std::array<uint64_t, kUnits / 64> used{};
  std::array<uint32_t, kUnits> bytes{};  // at a block's first unit: its size as asked for
  uint32_t live = 0;
  uint32_t room = kUnits;  // upper bound of the longest free stretch, in units
  uint32_t bin = 0;        // index in Heap::by_room_, and position there
  uint32_t position = 0;
  uint32_t hint = 0;  // a good unit to start looking at
  bool taken(uint32_t unit) const { return (used[unit / 64] >> (unit % 64) & 1) != 0; }
  void mark(uint32_t first, uint32_t count, bool on) {
    for (uint32_t i = first; i < first + count;) {
      const uint32_t in_word = std::min(64 - i % 64, first + count - i);
      const uint64_t bits = (in_word == 64 ? ~0ull : (1ull << in_word) - 1) << (i % 64);
      on ? used[i / 64] |= bits : used[i / 64] &= ~bits;
      i += in_word;
    }
  }
  // First free stretch of `count` units in [from, to), or kUnits; `longest` grows to what was seen.
  uint32_t find(uint32_t count, uint32_t from, uint32_t to, uint32_t* longest) const {
    uint32_t start = from, at = from;
    while (at < to) {
      const uint64_t rest = used[at / 64] >> (at % 64);
      const uint32_t free_here =
          rest == 0 ? 64 - at % 64 : static_cast<uint32_t>(__builtin_ctzll(rest));
      at += free_here;
      if (std::min(at, to) - start >= count) return start;
      if (rest == 0) continue;
      *longest = std::max(*longest, std::min(at, to) - start);
      const uint64_t ones = used[at / 64] >> (at % 64);
      at += std::min<uint32_t>(ones == ~0ull ? 64 : static_cast<uint32_t>(__builtin_ctzll(~ones)),
                               64 - at % 64);
      start = at;
    }
    if (at > start) *longest = std::max(*longest, std::min(at, to) - start);
    return kUnits;
  }
};

}  // namespace allot::sim
