/* The CUDA driver ABI as far as the shim, the software GPU and the workloads use it.
 *
 * Our own declarations of outside facts: names, numbers and layouts of cuda.h of CUDA 13.0, written
 * so that nothing of the vendor's needs to be on the build machine. Readable from C. Include this
 * or the vendor's cuda.h, never both in one translation unit. What must not happen here: behaviour,
 * or a name that is not the vendor's. */
#ifndef ALLOT_DRIVER_CUDA_ABI_H
#define ALLOT_DRIVER_CUDA_ABI_H

#include "driver/cuda_device.h"
#include "driver/cuda_execution.h"
#include "driver/cuda_graph.h"
#include "driver/cuda_memory.h"
#include "driver/cuda_results.h"
#include "driver/cuda_types.h"

#define ALLOT_CUDA_ABI_VERSION 13000 /* CUDA_VERSION of the header mirrored */

#endif
