// Opens with libc's dlopen by absolute path and RTLD_LOCAL: the driver's symbols must not enter the
// global scope beside ours. dlsym(RTLD_NEXT) finds libc's dlopen after this library, and so skips
// our own dlopen and that of our other library.
#include "shim/process/real_library.h"

#include <dlfcn.h>

#include "abi/env.h"
#include "shim/process/driver_call.h"
#include "shim/process/log.h"
#include "shim/process/own_files.h"
#include "shim/process/start_environment.h"
#include "sys/file.h"
#include "sys/glibc_floor.h"
#include "sys/keep_errno.h"
#include "sys/library.h"

namespace allot::shim {
namespace {

constexpr uint32_t kPathRoom = 4096;
constinit char none_marker = 0;

void* none() {
  return &none_marker;
}

// A variable that names one of our own libraries would send every call in a circle.
void* unless_ours(void* library, const char* symbol) {
  Dl_info theirs = {};
  Dl_info ours = {};
  void* address = library != nullptr ? dlsym(library, symbol) : nullptr;
  if (address == nullptr || dladdr(address, &theirs) == 0) return library;
  if (dladdr(&none_marker, &ours) == 0 || theirs.dli_fbase != ours.dli_fbase) return library;
  return nullptr;
}

}  // namespace

constinit RealLibrary real_cuda("libcuda.so.1", ALLOT_ENV_REAL_CUDA, "cuInit");
constinit RealLibrary real_nvml("libnvidia-ml.so.1", ALLOT_ENV_REAL_NVML, "nvmlInit_v2");

DlopenFn real_dlopen() {
  static constinit std::atomic<void*> known{nullptr};
  void* address = known.load(std::memory_order_acquire);
  if (address == nullptr) {
    address = dlsym(RTLD_NEXT, "dlopen");
    known.store(address, std::memory_order_release);
  }
  return reinterpret_cast<DlopenFn>(address);
}

void* RealLibrary::open() {
  const sys::KeepErrno keep;
  const DlopenFn open_library = real_dlopen();
  if (open_library == nullptr) return nullptr;
  if (const char* chosen = start_variable(variable_))
    return open_library(chosen, RTLD_NOW | RTLD_LOCAL);
  char ours[kPathRoom];
  sys::LibraryQuery query = {soname_};
  query.library_path = start_environment().library_path;
  query.skip_folder = own_folder()[0] != '\0' ? own_folder() : nullptr;
  if (beside_us(soname_, ours, sizeof(ours))) {
    // Our file under another path (a copied or bound folder) has the same inode.
    const Result<sys::Fd> fd = sys::open_file({}, ours, 0);
    if (fd) {
      if (const Result<sys::FileInfo> info = sys::info_of(fd->get())) {
        query.skip_device = info->device;
        query.skip_inode = info->inode;
      }
    }
  }
  char path[kPathRoom];
  if (!sys::find_library({}, query, path, sizeof(path))) return nullptr;
  return unless_ours(open_library(path, RTLD_NOW | RTLD_LOCAL), probe_);
}

void* RealLibrary::handle() {
  void* known = handle_.load(std::memory_order_acquire);
  if (known == nullptr) {
    known = open();
    if (known == nullptr) {
      log_missing_library(soname_);
      known = none();
    }
    void* expected = nullptr;
    if (!handle_.compare_exchange_strong(expected, known)) known = expected;
  }
  return known == none() ? nullptr : known;
}

void* RealLibrary::find(const char* symbol) {
  const sys::KeepErrno keep;
  void* library = handle();
  return library ? dlsym(library, symbol) : nullptr;
}

bool RealLibrary::open_now() const {
  const void* known = handle_.load(std::memory_order_acquire);
  return known != nullptr && known != none();
}

void* find_in_driver(const char* name) {
  return real_cuda.find(name);
}

void* find_in_nvml(const char* name) {
  return real_nvml.find(name);
}

CUresult entry_not_supported() {
  return real_cuda.there() ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_NOT_INITIALIZED;
}

}  // namespace allot::shim
