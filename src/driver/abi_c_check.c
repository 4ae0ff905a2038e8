/* The ABI headers are readable from C: this file only has to compile, as C11. Their sizes and
 * offsets are asserted where they are declared. */
#include "driver/cuda_abi.h"
#include "driver/nvml_abi.h"
#include "driver/rm_abi.h"

/* ISO C wants a declaration besides the assertions. */
extern const int allot_abi_headers_are_c;
const int allot_abi_headers_are_c = ALLOT_CUDA_ABI_VERSION;
