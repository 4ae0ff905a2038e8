// The real libraries that ours replace: found in spite of ours, opened once, asked for symbols.
#pragma once

#include <atomic>
#include <cstdint>

namespace allot::shim {

class RealLibrary {
 public:
  // Searches for `soname`, or opens the file that the environment variable `variable` names.
  // `probe` is a symbol that the library and ours both have.
  constexpr RealLibrary(const char* soname, const char* variable, const char* probe)
      : soname_(soname), variable_(variable), probe_(probe) {}

  // Address of a symbol; null when the library has none or when there is no library. Opens the
  // library on first use. Any thread; racing first uses open it twice, which the linker counts as
  // one library.
  void* find(const char* symbol);

  // Whether the library is open: for code that must not open it.
  bool open_now() const;

  // Whether the library could be opened. Opens it on first use.
  bool there() { return handle() != nullptr; }

 private:
  void* handle();
  void* open();

  const char* soname_;
  const char* variable_;
  const char* probe_;
  std::atomic<void*> handle_{nullptr};  // kNone when it was not found
};

// The driver and its management library.
extern constinit RealLibrary real_cuda;
extern constinit RealLibrary real_nvml;

// libc's own dlopen, not the one that we export.
using DlopenFn = void* (*)(const char*, int);
DlopenFn real_dlopen();

}  // namespace allot::shim
