// A driver entry that our own code calls: looked up in the real driver at the first call, never
// NULL.
//
// Later calls cost one load and one indirect jump. An entry that the driver does not have returns
// CUDA_ERROR_NOT_SUPPORTED. Racing first calls find the same address and store it twice, so there
// is no lock and no order.
#pragma once

#include <atomic>

#include "driver/cuda_abi.h"

namespace allot::shim {

// Address of `name` in the real driver or NVML, or null. May open the driver (dlopen) on first use.
void* find_in_driver(const char* name);
void* find_in_nvml(const char* name);

// Used for an entry that is missing; ignores its arguments.
CUresult entry_not_supported();

template <class R, class... A>
struct BasicCall {
  using Fn = R (*)(A...);
  const char* name;
  void* (*find)(const char* name);
  Fn missing;
  std::atomic<Fn> target{nullptr};

  Fn get() {
    Fn fn = target.load(std::memory_order_acquire);
    if (fn == nullptr) {
      void* address = find(name);
      fn = address ? reinterpret_cast<Fn>(address) : missing;
      target.store(fn, std::memory_order_release);
    }
    return fn;
  }
  R operator()(A... args) { return get()(args...); }
  bool present() { return get() != missing; }
};

// The calling convention lets a function ignore the arguments it is given.
template <class... A>
struct DriverCall : BasicCall<CUresult, A...> {
  constexpr explicit DriverCall(const char* entry) noexcept
      : BasicCall<CUresult, A...>{entry, find_in_driver,
                                  [](A...) { return entry_not_supported(); }} {}
};

}  // namespace allot::shim
