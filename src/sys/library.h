// Finds the driver's own library as the dynamic linker would, but skips our library of the same
// name.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "sys/file.h"

namespace allot::sys {

struct LibraryQuery {
  const char* soname;                  // "libcuda.so.1"
  const char* library_path = nullptr;  // value of LD_LIBRARY_PATH, may be null
  const char* skip_folder = nullptr;   // folder of our own libraries, may be null
  uint64_t skip_device = 0;            // never return this file, whatever its path
  uint64_t skip_inode = 0;             // 0 = none
};

// Writes the absolute path of the first 64-bit library of this processor named `soname` to `out`.
// Order: LD_LIBRARY_PATH, /etc/ld.so.cache, then the folders where drivers are put: the machine's
// /usr/lib/<triplet>, /usr/local/nvidia/lib64, /usr/lib64, /usr/lib, /usr/lib/wsl/lib. Relative
// entries of LD_LIBRARY_PATH and a damaged cache are ignored.
// Errors: kNotFound (none, or the path does not fit into `size`). Source of the cache's layout:
// glibc's sysdeps/generic/dl-cache.h ("glibc-ld.so.cache1.1"). Any thread; does not allocate;
// blocks only on the file system; errno does not change.
Result<void> find_library(Root root, const LibraryQuery& query, char* out, uint32_t size);

}  // namespace allot::sys
