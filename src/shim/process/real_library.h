// The libraries we stand in front of: found past ourselves, opened once, asked for symbols.
#pragma once

#include <atomic>
#include <cstdint>

namespace allot::shim {

class RealLibrary {
 public:
  // `soname`: what to search for; `variable`: the environment variable that names the file instead; `probe`:
  // a symbol of it that ours has too.
  constexpr RealLibrary(const char* soname, const char* variable, const char* probe)
      : soname_(soname), variable_(variable), probe_(probe) {}

  // Address of a symbol, or null: not in the library, or there is no library. Opens it on first use.
  // Any thread; racing first uses open it twice, which the linker counts as one.
  void* find(const char* symbol);

  // Whether somebody has opened it: for code that must not be the one to do so.
  bool open_now() const;

  // Whether the library could be opened. Opens it on first use.
  bool there() { return handle() != nullptr; }

 private:
  void* handle();
  void* open();

  const char* soname_;
  const char* variable_;
  const char* probe_;
  std::atomic<void*> handle_{nullptr};  // kNone when it was looked for in vain
};

// The driver and its management library.
extern constinit RealLibrary real_cuda;
extern constinit RealLibrary real_nvml;

// libc's own dlopen, past the one we export.
using DlopenFn = void* (*)(const char*, int);
DlopenFn real_dlopen();

}  // namespace allot::shim
