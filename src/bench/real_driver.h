// The driver behind the shim, in a process that has both.
//
// Comparing the two in one process, in alternating batches, is the only way to see tens of
// nanoseconds: between two processes the clocks and the driver's state differ by more.
#pragma once

#include <string>

#include "bench/driver_api.h"

namespace allot::bench {

struct RealDriver {
  void* handle = nullptr;  // null: the process has only one libcuda
  std::string path;
};

// Finds the second libcuda of this process: the file ALLOT_REAL_CUDA names, else one that
// /proc/self/maps shows, which is not the library that `front` (an open libcuda) is. Opens it with
// the C library's own dlopen, since the shim answers for libcuda in its own, and with RTLD_NOLOAD,
// so that nothing new is loaded. Call after cuInit: the shim opens the driver no earlier. Any
// thread; allocates; reads /proc.
RealDriver find_real_driver(void* front);

// True if the line of /proc/PID/maps shows a file called libcuda.so.<anything>; `path` takes it.
bool maps_line_of_libcuda(const std::string& line, std::string* path);

}  // namespace allot::bench
