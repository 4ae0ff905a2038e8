// The exported entries by name, for cuGetProcAddress.
#pragma once

#include "driver/cuda_abi.h"

namespace allot::sim {

struct FoundSymbol {
  void* address;  // null unless status is CU_GET_PROC_ADDRESS_SUCCESS
  CUdriverProcAddressQueryResult status;
};

// What a driver of 13.0 answers for `name` at `version`. Any thread, also before cuInit; no lock.
FoundSymbol find_symbol(const char* name, int version, bool per_thread);

}  // namespace allot::sim
