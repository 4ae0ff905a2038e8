// Modules from PTX text: which kernels and variables a text declares.
//
// The software GPU does not execute PTX. It reads a module's entries with their parameters, so that
// launches are checked and copied like a driver does it, and carries out the kernels that it knows
// by name (kernels.cc) and those whose body only returns. Any other kernel can be loaded and looked
// up, but its launch is refused with NOT_SUPPORTED: nothing pretends to have run.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime.h"

namespace allot::sim {

enum class KernelKind : uint8_t { kUnknown, kEmpty, kSpin, kSpinTold, kFill, kCheck, kFma };

struct Param {
  uint32_t offset, bytes;
};

inline constexpr uint32_t kFunctionMagic = 0x46554e43, kModuleMagic = 0x4d4f4455,
                          kLibraryMagic = 0x4c494252;

struct Module;

// Both CUfunction and CUkernel.
struct Function {
  uint32_t magic = kFunctionMagic;
  std::string name;
  KernelKind kind = KernelKind::kUnknown;
  std::vector<Param> params;
  uint32_t param_bytes = 0;
  uint32_t max_threads = 1024;
  int dynamic_shared = 48 << 10, carveout = -1;
  Module* module = nullptr;
  struct Library* library = nullptr;
};

struct Variable {
  std::string name;
  uint64_t bytes;
  std::vector<uint8_t> initial;
  uint64_t address = 0;
};

struct Module {
  uint32_t magic = kModuleMagic;
  Context* context = nullptr;
  std::vector<std::unique_ptr<Function>> functions;
  std::vector<Variable> variables;
  struct Library* library = nullptr;
};

// A library loads into each context on demand; here its one module is context-free, its variables
// live in the context that first asked for them.
struct Library {
  uint32_t magic = kLibraryMagic;
  std::unique_ptr<Module> module;
};

// Reads PTX. NO_BINARY_FOR_GPU for cubins and fatbins, INVALID_PTX / INVALID_IMAGE for anything
// else.
CUresult parse_image(const void* image, std::unique_ptr<Module>* out);
// Lays `arguments` (one pointer per parameter) or the packed block of `extra` out as the PTX says.
CUresult gather_params(const Function& function, void** arguments, void** extra, Params* out);
CUresult place_variables(Module* module, Context* context);
std::mutex& module_lock();

inline Function* to_function(const void* handle) {
  auto* f = static_cast<Function*>(const_cast<void*>(handle));
  return f != nullptr && f->magic == kFunctionMagic ? f : nullptr;
}

}  // namespace allot::sim
