// dlopen: a program that opens the driver by another name than its SONAME gets our library.
//
// "libcuda.so.1" needs nothing: we are loaded under that SONAME. "libcuda.so" (a development link),
// "libcuda.so.580.65" and absolute paths (numba, some just-in-time compilers) would bypass us. Only
// the file name decides, in any form of path, and only in a process that belongs to a slice.
// Everything else, and every dlopen of our own, goes to libc unchanged. dlopen_x86_64.S makes the
// jump.
#include "shim/process/own_files.h"
#include "shim/process/real_library.h"
#include "shim/process/slice_search.h"
#include "shim/process/spin.h"
#include "shim/process/start_environment.h"
#include "sys/keep_errno.h"

namespace allot::shim {
namespace {

// True for `stem`, `stem`.1, `stem`.anything; `stem` ends in ".so".
bool is_library(const char* file_name, const char* stem) {
  while (*stem != '\0' && *file_name == *stem) {
    ++file_name;
    ++stem;
  }
  return *stem == '\0' && (*file_name == '\0' || *file_name == '.');
}

// Called only when the program opens a driver library, because for a process that lost its
// environment it reads /proc to find the ancestors.
bool in_slice() {
  if (start_environment().disabled) return false;
  if (start_environment().carries_slice) return true;
  SliceChoice choice;
  return choose_slice(&choice) && choice.kind != SliceChoice::Kind::kNone;
}

// Our NVML library, which stands beside us. Null when the path does not fit.
const char* sister_path() {
  static constinit char path[1024] = {};
  static constinit SpinLock writing;
  writing.lock();
  const bool known = path[0] != '\0' || beside_us("libnvidia-ml.so.1", path, sizeof(path));
  writing.unlock();
  return known ? path : nullptr;
}

const char* replacement(const char* file) {
  const char* name = base_name(file);
  const bool cuda = is_library(name, "libcuda.so");
  const bool nvml = !cuda && is_library(name, "libnvidia-ml.so");
  if (!cuda && !nvml) return nullptr;
  if (!in_slice()) return nullptr;
  return cuda ? own_path() : sister_path();
}

}  // namespace

struct Route {
  const char* file;
  DlopenFn target;
};

extern "C" Route allot_route_dlopen(const char* file) {
  const sys::KeepErrno keep;
  const char* instead = file != nullptr ? replacement(file) : nullptr;
  return {instead != nullptr && *instead != '\0' ? instead : file, real_dlopen()};
}

}  // namespace allot::shim
