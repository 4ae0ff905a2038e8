// Every NVML entry of the modelled driver exists; those that no other file defines answer
// NVML_ERROR_NOT_SUPPORTED (weak aliases, as in cu_symbols.cc).
extern "C" int allot_sim_unsupported(void) {
  return 3;
}

#define ALLOT_SIM_SYMBOL(name)                                                                \
  extern "C" __attribute__((visibility("default"), weak, alias("allot_sim_unsupported"))) int \
  name(void);
#include "sim_nvml_symbols.inc"
#undef ALLOT_SIM_SYMBOL
