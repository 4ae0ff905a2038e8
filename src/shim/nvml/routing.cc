// The resolver of NVML's jump stubs, by the rules of entry/routing.cc.
//
// Without the real library every entry returns NVML_ERROR_LIBRARY_NOT_FOUND, as a program that
// links NVML expects on a machine without a driver.
#include "driver/entries.h"
#include "shim/nvml/hooks.h"
#include "shim/process/real_library.h"
#include "shim/process/start_environment.h"

namespace allot::shim {
namespace {

nvmlReturn_t entry_missing() {
  return real_nvml.there() ? NVML_ERROR_FUNCTION_NOT_FOUND : NVML_ERROR_LIBRARY_NOT_FOUND;
}

bool same(const char* a, const char* b) {
  while (*a != '\0' && *a == *b) {
    ++a;
    ++b;
  }
  return *a == *b;
}

void* nvml_hook_for(const char* symbol) {
  for (const std::span<const Hook> hooks :
       {nvml_memory_hooks(), nvml_process_hooks(), nvml_device_hooks()}) {
    for (const Hook& hook : hooks) {
      if (same(hook.symbol, symbol)) return hook.function();
    }
  }
  return nullptr;
}

__attribute__((constructor)) void library_loaded() {
  start_environment();
}

}  // namespace
}  // namespace allot::shim

extern "C" {
extern void* allot_nvml_slots[];
void* allot_nvml_resolve_entry(unsigned index);
}

void* allot_nvml_resolve_entry(unsigned index) {
  using namespace allot;
  const std::span<const driver::Entry> entries = driver::nvml().entries();
  if (index >= entries.size()) return nullptr;
  const char* symbol = entries[index].symbol;
  void* target = shim::real_nvml.there() ? shim::nvml_hook_for(symbol) : nullptr;
  if (target == nullptr) target = shim::real_nvml.find(symbol);
  if (target == nullptr) return reinterpret_cast<void*>(&shim::entry_missing);
  __atomic_store_n(&allot_nvml_slots[index], target, __ATOMIC_RELEASE);
  return target;
}
