// The policy of GPU time with slices of any content: what other users' files may say.
//
// The input is a moment (8 bytes) and then slices of 24 bytes each. Checked besides not crashing: a
// grant lasts at least until after now, nobody that is frozen runs, what one says does not depend
// on the order of the others.
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "core/time_policy.h"

using namespace allot::core;

namespace {

constexpr size_t kSliceBytes = 24;
constexpr size_t kMost = 80;  // more than take part

SliceDemand slice_from(const uint8_t* at) {
  SliceDemand t = {};
  std::memcpy(&t.id, at, 8);
  std::memcpy(&t.share_permille, at + 8, 4);
  std::memcpy(&t.max_permille, at + 12, 4);
  std::memcpy(&t.gpus, at + 16, 4);
  t.priority = at[20];
  t.active = (at[21] & 1) != 0;
  t.saturates = (at[21] & 2) != 0;
  t.frozen = (at[21] & 4) != 0;
  return t;
}

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 8 + kSliceBytes) return 0;
  uint64_t now = 0;
  std::memcpy(&now, data, 8);
  now >>= 2;  // a clock that has run for less than 146 years
  static SliceDemand slices[kMost], turned[kMost];
  static TimeGrant grants[kMost], turned_grants[kMost];
  size_t count = 0;
  bool distinct = true;
  for (size_t at = 8; at + kSliceBytes <= size && count < kMost; at += kSliceBytes) {
    slices[count] = slice_from(data + at);
    for (size_t i = 0; i < count; ++i) distinct = distinct && slices[i].id != slices[count].id;
    ++count;
  }
  plan_gpu({slices, count}, now, {grants, count});
  for (size_t i = 0; i < count; ++i) {
    require(grants[i].until_ns > now);
    require(grants[i].window_permille <= kWhole);
    require(!slices[i].frozen || !grants[i].open);
    turned[i] = slices[count - 1 - i];
  }
  if (!distinct) return 0;
  plan_gpu({turned, count}, now, {turned_grants, count});
  for (size_t i = 0; i < count; ++i) {
    const TimeGrant& a = grants[i];
    const TimeGrant& b = turned_grants[count - 1 - i];
    require(a.open == b.open && a.until_ns == b.until_ns && a.timeslice_us == b.timeslice_us);
  }
  return 0;
}
