// The hooks of each kind of memory and of what goes with it, by file. The table of entry/hooks.cc
// has all; time/submit.h and time/streams.h declare theirs.
#pragma once

#include <span>

#include "shim/process/hook.h"

namespace allot::shim {

std::span<const Hook> linear_hooks();
std::span<const Hook> array_hooks();
std::span<const Hook> pool_hooks();
std::span<const Hook> vmm_hooks();
std::span<const Hook> bound_memory_hooks();
std::span<const Hook> graph_hooks();
std::span<const Hook> shared_memory_hooks();
std::span<const Hook> context_hooks();
std::span<const Hook> module_hooks();
std::span<const Hook> query_hooks();
std::span<const Hook> address_hooks();
std::span<const Hook> init_hooks();
std::span<const Hook> swap_hooks();
std::span<const Hook> swap_held_hooks();

}  // namespace allot::shim
