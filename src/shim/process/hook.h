// One hook: the symbol that it answers for, and its function.
//
// Each room lists its own hooks (hook_lists.h, time/submit.h, time/streams.h, nvml/hooks.h). A hook
// has the signature of its entry behind its guard (hook_guard.h), which the compiler checks.
#pragma once

#include "driver/signature.h"

namespace allot::shim {

// As void* the address of a function is no constant expression, but the address of a function that
// returns it is. So the tables are constant data, and nothing runs when the library loads.
struct Hook {
  const char* symbol;
  void* (*function)();
};

template <auto F>
void* address_of() {
  return reinterpret_cast<void*>(F);
}

// Made for functions whose first parameter is a guard: call() has the parameters of the entry.
template <auto F>
struct Guarded {
  static constexpr bool kIs = false;
};

// Never defined: a call of one in a constant expression is the compiler's error message.
void hook_has_another_signature_than_its_entry();
void hook_has_no_guard();

// An entry of a hook table, entered through a guard of the kind that F wants. Does not compile when
// F has none, or when its other parameters are passed in another way than the entry's.
template <auto F>
consteval Hook hook(const char* symbol) {
  if constexpr (Guarded<F>::kIs) {
    if (!driver::fits_cuda<&Guarded<F>::call>(symbol)) hook_has_another_signature_than_its_entry();
    return {symbol, address_of<&Guarded<F>::call>};
  } else {
    hook_has_no_guard();
    return {};
  }
}

// A hook of libcuda without a guard: what takes the quick way must be said beside each use.
template <auto F>
consteval Hook unguarded(const char* symbol) {
  if (!driver::fits_cuda<F>(symbol)) hook_has_another_signature_than_its_entry();
  return {symbol, address_of<F>};
}

// NVML's entries only answer.
template <auto F>
consteval Hook nvml_hook(const char* symbol) {
  if (!driver::fits_nvml<F>(symbol)) hook_has_another_signature_than_its_entry();
  return {symbol, address_of<F>};
}

}  // namespace allot::shim
