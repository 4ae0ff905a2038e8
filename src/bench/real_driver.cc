// Two libcuda files in one process, told apart by where their cuInit lies.
#include "bench/real_driver.h"

#include <dlfcn.h>

#include <cstdlib>
#include <fstream>
#include <vector>

#include "abi/env.h"

namespace allot::bench {
namespace {

using OpenFunction = void* (*)(const char*, int);

// dlopen as the C library has it, past any library that exports a dlopen of its own.
OpenFunction plain_dlopen() {
  void* libc = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
  void* address = libc != nullptr ? dlsym(libc, "dlopen") : nullptr;
  if (address == nullptr) {  // before glibc 2.34 it was in a library of its own
    void* libdl = dlopen("libdl.so.2", RTLD_NOW | RTLD_NOLOAD);
    address = libdl != nullptr ? dlsym(libdl, "dlopen") : nullptr;
  }
  return reinterpret_cast<OpenFunction>(address);
}

std::vector<std::string> candidates() {
  std::vector<std::string> paths;
  const char* named = std::getenv(ALLOT_ENV_REAL_CUDA);
  if (named != nullptr && named[0] != '\0') paths.push_back(named);
  std::ifstream maps("/proc/self/maps");
  std::string line, path;
  while (std::getline(maps, line)) {
    if (maps_line_of_libcuda(line, &path)) paths.push_back(path);
  }
  return paths;
}

}  // namespace

bool maps_line_of_libcuda(const std::string& line, std::string* path) {
  const size_t start = line.find('/');
  if (start == std::string::npos) return false;
  const size_t name = line.rfind('/') + 1;
  if (line.compare(name, 10, "libcuda.so") != 0) return false;
  if (line.size() > name + 10 && line[name + 10] != '.') return false;
  *path = line.substr(start);
  return true;
}

RealDriver find_real_driver(void* front) {
  const OpenFunction open = plain_dlopen();
  void* front_init = dlsym(front, "cuInit");
  if (open == nullptr) return {};
  for (const std::string& path : candidates()) {
    void* handle = open(path.c_str(), RTLD_NOW | RTLD_NOLOAD);
    if (handle == nullptr) continue;
    void* init = dlsym(handle, "cuInit");
    if (init != nullptr && init != front_init) return {handle, path};
    dlclose(handle);
  }
  return {};
}

}  // namespace allot::bench
