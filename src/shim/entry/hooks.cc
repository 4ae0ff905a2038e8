// The one list of all hooks. Each jump stub searches it once, and cuGetProcAddress reads it once,
// so a linear search is enough.
#include "shim/entry/hooks.h"

#include "shim/process/hook_lists.h"
#include "shim/time/streams.h"
#include "shim/time/submit.h"

namespace allot::shim {
namespace {

using List = std::span<const Hook> (*)();
constexpr List kLists[] = {init_hooks,          address_hooks, linear_hooks,    array_hooks,
                           pool_hooks,          vmm_hooks,     graph_hooks,     query_hooks,
                           shared_memory_hooks, context_hooks, module_hooks,    submit_hooks,
                           stream_hooks,        swap_hooks,    swap_held_hooks, bound_memory_hooks};

// strcmp may be an IFUNC that is not resolved yet when another library's constructor calls us.
bool same(const char* a, const char* b) {
  while (*a != '\0' && *a == *b) {
    ++a;
    ++b;
  }
  return *a == *b;
}

}  // namespace

void* hook_for(const char* symbol) {
  for (const List list : kLists) {
    for (const Hook& hook : list()) {
      if (same(hook.symbol, symbol)) return hook.function();
    }
  }
  return nullptr;
}

void each_hook(void (*visit)(void* context, const Hook& hook), void* context) {
  for (const List list : kLists) {
    for (const Hook& hook : list()) visit(context, hook);
  }
}

}  // namespace allot::shim
