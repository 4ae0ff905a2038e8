// Where a call of an exported symbol goes: the resolver behind the generated jump stubs.
//
// A stub calls it at the first call of its symbol and stores the answer in its slot; from then on a
// call costs one indirect jump. Racing first calls get the same answer and store it twice, so there
// is no lock and no order. A hooked symbol leads to the hook, any other to the driver. An entry
// that the driver does not have returns CUDA_ERROR_NOT_SUPPORTED. Without a driver every entry
// returns NOT_INITIALIZED and cuInit NO_DEVICE; nothing is stored then, because a later search of
// LD_LIBRARY_PATH may find a driver.
#include "driver/entries.h"
#include "shim/entry/hooks.h"
#include "shim/process/driver_call.h"
#include "shim/process/real_library.h"
#include "shim/process/start_environment.h"

extern "C" {
extern void* allot_cuda_slots[];
void* allot_cuda_resolve_entry(unsigned index);
}

void* allot_cuda_resolve_entry(unsigned index) {
  using namespace allot;
  const std::span<const driver::Entry> entries = driver::cuda().entries();
  if (index >= entries.size()) return nullptr;
  const char* symbol = entries[index].symbol;
  void* target = shim::hook_for(symbol);
  if (target == nullptr) target = shim::real_cuda.find(symbol);
  if (target == nullptr) return reinterpret_cast<void*>(&shim::entry_not_supported);
  __atomic_store_n(&allot_cuda_slots[index], target, __ATOMIC_RELEASE);
  return target;
}

namespace {

// Copies the environment, which the program may change before its first call. Nothing else happens
// at load.
__attribute__((constructor)) void library_loaded() {
  allot::shim::start_environment();
}

}  // namespace
