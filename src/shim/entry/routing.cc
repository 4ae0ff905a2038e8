// Where a call of an exported symbol goes: the resolver behind the generated jump stubs.
//
// Asked on the first call of each symbol; the answer is stored into the symbol's slot, from then on a call
// costs one indirect jump. Racing first calls come to the same answer and store it twice, so there is no
// lock and no order. A hooked symbol leads to the hook, any other to the driver. What the driver does not
// have answers CUDA_ERROR_NOT_SUPPORTED; without a driver everything answers NOT_INITIALIZED and cuInit
// NO_DEVICE, and nothing is stored, because the driver may come with a later LD_LIBRARY_PATH search.
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

// The program may change its environment before it first needs us. Nothing else happens at load.
__attribute__((constructor)) void library_loaded() {
  allot::shim::start_environment();
}

}  // namespace
