// Every entry of the modelled driver exists as a symbol; those that no other file defines answer
// CUDA_ERROR_NOT_SUPPORTED. What cuGetProcAddress may hand out is found here too.
//
// The stubs are weak aliases: a definition elsewhere in the library takes an entry's place without
// any list of what is implemented.
#include <string.h>

#include <iterator>

#include "driver/entries.h"
#include "symbols.h"

extern "C" int allot_sim_unsupported(void) {
  return 801;
}

#define ALLOT_SIM_SYMBOL(name)                                                                \
  extern "C" __attribute__((visibility("default"), weak, alias("allot_sim_unsupported"))) int \
  name(void);
#include "sim_cuda_symbols.inc"
#undef ALLOT_SIM_SYMBOL

namespace {

struct Symbol {
  const char* name;
  void* address;
};

// Sorted by name, as the table it is made from.
const Symbol kSymbols[] = {
#define ALLOT_SIM_SYMBOL(name) {#name, reinterpret_cast<void*>(&name)},
#include "sim_cuda_symbols.inc"
#undef ALLOT_SIM_SYMBOL
};

void* address_of(const char* symbol) {
  size_t low = 0, high = std::size(kSymbols);
  while (low < high) {
    const size_t middle = (low + high) / 2;
    const int order = strcmp(kSymbols[middle].name, symbol);
    if (order == 0) return kSymbols[middle].address;
    order < 0 ? low = middle + 1 : high = middle;
  }
  return nullptr;
}

}  // namespace

namespace allot::sim {

FoundSymbol find_symbol(const char* name, int version, bool per_thread) {
  const auto& table = allot::driver::cuda();
  const allot::driver::Entry* entry = table.find_by_name(name, version, per_thread);
  if (entry != nullptr) {
    if (void* at = address_of(entry->symbol)) return {at, CU_GET_PROC_ADDRESS_SUCCESS};
    return {nullptr, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND};
  }
  return {nullptr, table.has_name(name) ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
                                        : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND};
}

}  // namespace allot::sim
