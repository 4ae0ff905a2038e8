// What kernels, copies and sets do to memory, and how long a kernel takes on the modelled card.
//
// The work is done at once, by the calling thread; the time on the device is then spent by the
// caller on the timeline. Addresses are checked against live memory first: a kernel that would
// leave it gets CUDA_ERROR_ILLEGAL_ADDRESS, as on a card, and the context is lost.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>

#include "memory.h"
#include "module.h"
#include "runtime.h"

namespace allot::sim {
namespace {

// Modelled card: an empty kernel takes 2 us; memory moves at 1.5 TB/s; 20 T fused multiply-adds/s.
constexpr int64_t kEmptyNs = 2'000;
constexpr uint64_t kBytesPerNs = 1500;
constexpr uint64_t kFmaPerNs = 20'000;

double speed() {  // ALLOT_SIM_SPEED: 2 = everything takes half the time
  static const double value = [] {
    const char* text = getenv("ALLOT_SIM_SPEED");
    const double given = text != nullptr ? strtod(text, nullptr) : 1.0;
    return given > 0 ? given : 1.0;
  }();
  return value;
}

int64_t scaled(uint64_t ns) {
  return std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(ns) / speed()));
}

template <class T>
T param(const KernelBody& k, size_t index) {
  T value;
  memcpy(&value, k.params.data() + k.function->params[index].offset, sizeof value);
  return value;
}

bool has_params(const KernelBody& k, std::initializer_list<uint32_t> bytes) {
  const auto& params = k.function->params;
  return params.size() == bytes.size() &&
         std::equal(params.begin(), params.end(), bytes.begin(),
                    [](const Param& p, uint32_t b) { return p.bytes == b; });
}

bool words_ok(uint64_t address, uint64_t words) {
  if (not_backed(address)) return false;
  return address % 4 == 0 && words <= (1ull << 48) && device_reaches(address, words * 4);
}

KernelOutcome spin_of(const KernelBody& k) {
  const auto iterations = param<uint64_t>(k, 0), sink = param<uint64_t>(k, 1);
  // Addresses of 0 are accepted: such a kernel never stores.
  if (sink != 0 && !device_reaches(sink, 4)) return {CUDA_ERROR_ILLEGAL_ADDRESS, 0};
  if (sink != 0) {
    const auto word = static_cast<uint32_t>(iterations);
    memcpy(reinterpret_cast<void*>(sink), &word, sizeof word);
  }
  return {CUDA_SUCCESS, scaled(std::max<uint64_t>(kEmptyNs, iterations))};
}

KernelOutcome spin(const KernelBody& k) {
  return has_params(k, {8, 8}) ? spin_of(k) : KernelOutcome{CUDA_ERROR_INVALID_VALUE, 0};
}

// What it did before it began is all that it tells: a card shows every round of its loop.
KernelOutcome spin_told(const KernelBody& k) {
  if (!has_params(k, {8, 8, 8, 8})) return {CUDA_ERROR_INVALID_VALUE, 0};
  const auto told = param<uint64_t>(k, 2), base = param<uint64_t>(k, 3);
  if (!device_reaches(told, 8)) return {CUDA_ERROR_ILLEGAL_ADDRESS, 0};
  __atomic_store_n(reinterpret_cast<uint64_t*>(told), base, __ATOMIC_RELAXED);
  return spin_of(k);
}

KernelOutcome fill(const KernelBody& k) {
  if (!has_params(k, {8, 8, 4})) return {CUDA_ERROR_INVALID_VALUE, 0};
  const auto to = param<uint64_t>(k, 0), words = param<uint64_t>(k, 1);
  if (!words_ok(to, words)) return {CUDA_ERROR_ILLEGAL_ADDRESS, 0};
  std::fill_n(reinterpret_cast<uint32_t*>(to), words, param<uint32_t>(k, 2));
  return {CUDA_SUCCESS, scaled(kEmptyNs + words * 4 / kBytesPerNs)};
}

KernelOutcome check(const KernelBody& k) {
  if (!has_params(k, {8, 8, 4, 8})) return {CUDA_ERROR_INVALID_VALUE, 0};
  const auto from = param<uint64_t>(k, 0), words = param<uint64_t>(k, 1),
             sum = param<uint64_t>(k, 3);
  if (!words_ok(from, words) || !device_reaches(sum, 8)) return {CUDA_ERROR_ILLEGAL_ADDRESS, 0};
  const auto* at = reinterpret_cast<const uint32_t*>(from);
  const auto expected = param<uint32_t>(k, 2);
  uint64_t wrong = 0;
  for (uint64_t i = 0; i < words; i++) wrong += at[i] != expected;
  __atomic_fetch_add(reinterpret_cast<uint64_t*>(sum), wrong, __ATOMIC_RELAXED);
  return {CUDA_SUCCESS, scaled(kEmptyNs + words * 4 / kBytesPerNs)};
}

KernelOutcome fma_loop(const KernelBody& k) {
  if (!has_params(k, {8, 8, 4})) return {CUDA_ERROR_INVALID_VALUE, 0};
  const auto data = param<uint64_t>(k, 0), words = param<uint64_t>(k, 1);
  const auto rounds = param<uint32_t>(k, 2);
  if (!words_ok(data, words)) return {CUDA_ERROR_ILLEGAL_ADDRESS, 0};
  auto* at = reinterpret_cast<float*>(data);
  for (uint64_t i = 0; i < words; i++) {
    float x = at[i];
    for (uint32_t r = 0; r < rounds; r++) x = fmaf(x, 1.0001f, 0.5f);
    at[i] = x;
  }
  return {CUDA_SUCCESS,
          scaled(kEmptyNs + std::max(words * 8 / kBytesPerNs, words * rounds / kFmaPerNs))};
}

}  // namespace

KernelOutcome do_kernel(const KernelBody& kernel) {
  switch (kernel.function->kind) {
    case KernelKind::kSpin:
      return spin(kernel);
    case KernelKind::kSpinTold:
      return spin_told(kernel);
    case KernelKind::kFill:
      return fill(kernel);
    case KernelKind::kCheck:
      return check(kernel);
    case KernelKind::kFma:
      return fma_loop(kernel);
    case KernelKind::kEmpty:
      return {CUDA_SUCCESS, scaled(kEmptyNs)};
    case KernelKind::kUnknown:
      break;
  }
  return {CUDA_ERROR_LAUNCH_FAILED, 0};  // refused at launch; not reached
}

CUresult do_copy(const CopyBody& c) {
  if (not_backed(c.from.base) || not_backed(c.to.base)) return CUDA_ERROR_ILLEGAL_ADDRESS;
  for (size_t z = 0; z < c.depth; z++) {
    const uint64_t from = c.from.base + z * c.from.slice, to = c.to.base + z * c.to.slice;
    if (c.height == 1) {
      memmove(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), c.width);
      continue;
    }
    for (size_t y = 0; y < c.height; y++) {
      memmove(reinterpret_cast<void*>(to + y * c.to.row),
              reinterpret_cast<const void*>(from + y * c.from.row), c.width);
    }
  }
  return CUDA_SUCCESS;
}

CUresult do_set(const SetBody& s) {
  if (not_backed(s.base)) return CUDA_ERROR_ILLEGAL_ADDRESS;
  for (size_t y = 0; y < s.height; y++) {
    auto* at = reinterpret_cast<uint8_t*>(s.base + y * s.pitch);
    if (s.element == 1) {
      memset(at, static_cast<int>(s.value), s.width);
    } else if (s.element == 2) {
      std::fill_n(reinterpret_cast<uint16_t*>(at), s.width, static_cast<uint16_t>(s.value));
    } else {
      std::fill_n(reinterpret_cast<uint32_t*>(at), s.width, s.value);
    }
  }
  return CUDA_SUCCESS;
}

}  // namespace allot::sim
