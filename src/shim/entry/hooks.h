// The hooks: what stands in for a driver entry, one table for symbols and cuGetProcAddress alike.
//
// Each memory_*.cc, contexts.cc, query.cc and so on lists its own hooks; routing.cc asks hook_for().
// A hook has the signature of its entry, forwards when the process is not tracked, hands the driver's
// results through unchanged and makes only one result of its own: CUDA_ERROR_OUT_OF_MEMORY at the limit
// (and CUDA_ERROR_NOT_PERMITTED for a slice that could not be set up and fails closed).
#pragma once

#include <cstdint>
#include <span>

#include "driver/signature.h"

#include "driver/signature.h"

namespace allot::shim {

// The address of a function is no constant expression as void*, the one of a function that returns it
// is: so the tables are constant data and nothing runs when the library loads.
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

// A hook as the table wants it: the symbol it stands for and the function. Does not compile when the
// function's parameters travel otherwise than the entry's.
template <auto F>
consteval Hook hook(const char* symbol) {
  if (!driver::fits_cuda<F>(symbol) && !driver::fits_nvml<F>(symbol)) {
    hook_has_another_signature_than_its_entry();
  }
  return {symbol, address_of<F>};
}

// Our function for an exported symbol, or null when it is not hooked. Any thread, signal-safe.
void* hook_for(const char* symbol);

// Calls visit(context, hook) for every hook.
void each_hook(void (*visit)(void* context, const Hook& hook), void* context);

}  // namespace allot::shim
