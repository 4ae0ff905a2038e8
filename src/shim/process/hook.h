// One hook: the symbol that it answers for, and its function.
//
// Each room lists its own hooks (hook_lists.h, time/submit.h, time/streams.h, nvml/hooks.h). A hook
// has the signature of its entry, which the compiler checks.
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

// Never defined: a call of it in a constant expression is the compiler's error message.
void hook_has_another_signature_than_its_entry();

// An entry of a hook table. Does not compile when the function's parameters are passed in another
// way than the entry's.
template <auto F>
consteval Hook hook(const char* symbol) {
  if (!driver::fits_cuda<F>(symbol) && !driver::fits_nvml<F>(symbol)) {
    hook_has_another_signature_than_its_entry();
  }
  return {symbol, address_of<F>};
}

}  // namespace allot::shim
