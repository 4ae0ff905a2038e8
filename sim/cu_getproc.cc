// cuGetProcAddress in both forms. They work before cuInit, as the driver's do.
//
// Mirrors the driver API reference, "Driver Entry Point Access": the newest form of a name that is
// not newer than the version asked for; a version above the driver's own is an error; the second
// form succeeds with a null pointer where the first one fails.
#include "runtime.h"
#include "symbols.h"

using namespace allot::sim;

static constexpr int kDriverVersion = 13000;

SIM_API cuGetProcAddress_v2(const char* name, void** out, int version, cuuint64_t flags,
                            CUdriverProcAddressQueryResult* status) {
  if (name == nullptr || out == nullptr || (flags & ~3ull) != 0 || version > kDriverVersion) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const FoundSymbol found =
      find_symbol(name, version, (flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) != 0);
  *out = found.address;
  if (status != nullptr) *status = found.status;
  return CUDA_SUCCESS;
}

SIM_API cuGetProcAddress(const char* name, void** out, int version, cuuint64_t flags) {
  CUdriverProcAddressQueryResult status = CU_GET_PROC_ADDRESS_SUCCESS;
  const CUresult r = cuGetProcAddress_v2(name, out, version, flags, &status);
  if (r != CUDA_SUCCESS) return r;
  return status == CU_GET_PROC_ADDRESS_SUCCESS ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
