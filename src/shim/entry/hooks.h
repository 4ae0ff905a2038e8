// All hooks of libcuda.so.1 in one table, for symbols and cuGetProcAddress alike.
//
// Each file of memory/, time/, swap/ and entry/ lists its own hooks; routing.cc asks hook_for(). A
// hook has the signature of its entry, forwards when the process is not tracked, and returns the
// driver's results unchanged. It makes only two results of its own: CUDA_ERROR_OUT_OF_MEMORY at the
// limit, and CUDA_ERROR_NOT_PERMITTED in a slice that could not be set up and fails closed.
#pragma once

#include "shim/process/hook.h"

namespace allot::shim {

// Our function for an exported symbol, or null when it is not hooked. Any thread, signal-safe.
void* hook_for(const char* symbol);

// Calls visit(context, hook) for every hook.
void each_hook(void (*visit)(void* context, const Hook& hook), void* context);

}  // namespace allot::shim
