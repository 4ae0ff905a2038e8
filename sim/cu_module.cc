// Entries of modules, libraries, kernels and functions, and the launches.
#include <stdio.h>
#include <string.h>

#include <algorithm>

#include "launch.h"
#include "memory.h"
#include "module.h"
#include "runtime.h"

using namespace allot::sim;

namespace {

Module* to_module(CUmodule handle) {
  auto* m = reinterpret_cast<Module*>(handle);
  return m != nullptr && m->magic == kModuleMagic ? m : nullptr;
}
Library* to_library(CUlibrary handle) {
  auto* l = reinterpret_cast<Library*>(handle);
  return l != nullptr && l->magic == kLibraryMagic ? l : nullptr;
}

CUresult load(CUmodule* out, const void* image) {
  Context* c = nullptr;
  if (const CUresult r = current_context(&c); r != CUDA_SUCCESS) return r;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::unique_ptr<Module> module;
  if (const CUresult r = parse_image(image, &module); r != CUDA_SUCCESS) return r;
  module->context = c;
  if (const CUresult r = place_variables(module.get(), c); r != CUDA_SUCCESS) return r;
  std::lock_guard<std::mutex> lock(module_lock());
  c->modules.push_back(module.get());
  *out = reinterpret_cast<CUmodule>(module.release());
  return CUDA_SUCCESS;
}

bool read_file(const char* path, std::string* out) {
  FILE* file = path != nullptr ? fopen(path, "rbe") : nullptr;
  if (file == nullptr) return false;
  char part[65536];
  for (size_t n; (n = fread(part, 1, sizeof part, file)) > 0;) out->append(part, n);
  fclose(file);
  return true;
}

Function* find_function(const Module* m, const char* name) {
  for (const auto& f : m->functions) {
    if (f->name == name) return f.get();
  }
  return nullptr;
}

CUresult find_variable(Module* m, const char* name, CUdeviceptr* at, size_t* bytes) {
  for (const Variable& v : m->variables) {
    if (v.name != name) continue;
    if (at != nullptr) *at = v.address;
    if (bytes != nullptr) *bytes = v.bytes;
    return CUDA_SUCCESS;
  }
  return CUDA_ERROR_NOT_FOUND;
}

// Frees the module's variables; its functions stay as stale handles.
void retire(Module* m) {
  for (Variable& v : m->variables) {
    Block* block = nullptr;
    {
      std::lock_guard<std::mutex> lock(memory_lock());
      if (v.address != 0) block = block_at(v.address);
    }
    if (block != nullptr && block->context != nullptr && block->context->heap != nullptr) {
      block->context->heap->release(v.address, block);
    }
    v.address = 0;
  }
  for (auto& f : m->functions) f->magic = 0;
  m->magic = 0;
}

CUresult function_attribute(int* out, CUfunction_attribute which, const Function* f) {
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  switch (which) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      *out = static_cast<int>(f->max_threads);
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
      *out = 32;
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
      *out = 90;
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      *out = f->dynamic_shared;
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
      *out = f->carveout;
      return CUDA_SUCCESS;
    default:
      if (which < 0 || which >= CU_FUNC_ATTRIBUTE_MAX) return CUDA_ERROR_INVALID_VALUE;
      *out = 0;
      return CUDA_SUCCESS;
  }
}

CUresult set_function_attribute(Function* f, CUfunction_attribute which, int value) {
  switch (which) {
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      if (value < 0 || value > 232448) return CUDA_ERROR_INVALID_VALUE;
      f->dynamic_shared = value;
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
      f->carveout = value;
      return CUDA_SUCCESS;
    default:
      return which > 9 && which < CU_FUNC_ATTRIBUTE_MAX ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult param_info(const Function* f, size_t index, size_t* offset, size_t* bytes) {
  if (f == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (index >= f->params.size() || offset == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *offset = f->params[index].offset;
  if (bytes != nullptr) *bytes = f->params[index].bytes;
  return CUDA_SUCCESS;
}

CUresult blocks_per_sm(int* out, const Function* f, int threads, size_t shared) {
  if (f == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr || threads <= 0) return CUDA_ERROR_INVALID_VALUE;
  const int by_threads =
      threads > static_cast<int>(f->max_threads) ? 0 : 2048 / ((threads + 31) / 32 * 32);
  const int by_shared = shared == 0 ? 32 : static_cast<int>(233472 / (shared + 1024));
  *out = std::min({by_threads, by_shared, 32});
  return CUDA_SUCCESS;
}

CUresult best_block(int* grid, int* block, const Function* f, int limit) {
  if (f == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (grid == nullptr || block == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *block = static_cast<int>(f->max_threads);
  if (limit > 0) *block = std::min(*block, limit);
  int per_sm = 0;
  blocks_per_sm(&per_sm, f, *block, 0);
  *grid = per_sm * 132;
  return CUDA_SUCCESS;
}

}  // namespace

namespace allot::sim {
void drop_context_modules(Context* c) {
  std::lock_guard<std::mutex> lock(module_lock());
  for (void* m : c->modules) retire(static_cast<Module*>(m));
  c->modules.clear();
}
}  // namespace allot::sim

SIM_API cuModuleLoadData(CUmodule* out, const void* image) {
  SIM_ENTER();
  return load(out, image);
}
SIM_API cuModuleLoadDataEx(CUmodule* out, const void* image, unsigned, CUjit_option*, void**) {
  SIM_ENTER();
  return load(out, image);
}
SIM_API cuModuleLoadFatBinary(CUmodule* out, const void* image) {
  SIM_ENTER();
  return load(out, image);
}
SIM_API cuModuleLoad(CUmodule* out, const char* path) {
  SIM_ENTER();
  std::string text;
  if (!read_file(path, &text)) return CUDA_ERROR_FILE_NOT_FOUND;
  return load(out, text.c_str());
}
SIM_API cuModuleUnload(CUmodule handle) {
  SIM_CONTEXT(c);
  Module* m = to_module(handle);
  if (m == nullptr || m->library != nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (const CUresult r = synchronize(m->context); r != CUDA_SUCCESS) return r;
  std::lock_guard<std::mutex> lock(module_lock());
  std::erase(m->context->modules, m);
  retire(m);
  static_cast<void>(c);
  return CUDA_SUCCESS;
}
SIM_API cuModuleGetFunction(CUfunction* out, CUmodule handle, const char* name) {
  SIM_ENTER();
  const Module* m = to_module(handle);
  if (m == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr || name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Function* f = find_function(m, name);
  if (f == nullptr) return CUDA_ERROR_NOT_FOUND;
  *out = reinterpret_cast<CUfunction>(f);
  return CUDA_SUCCESS;
}
SIM_API cuModuleGetGlobal_v2(CUdeviceptr* at, size_t* bytes, CUmodule handle, const char* name) {
  SIM_ENTER();
  Module* m = to_module(handle);
  if (m == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return find_variable(m, name, at, bytes);
}
SIM_API cuModuleGetFunctionCount(unsigned* count, CUmodule handle) {
  SIM_ENTER();
  const Module* m = to_module(handle);
  if (m == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *count = static_cast<unsigned>(m->functions.size());
  return CUDA_SUCCESS;
}
SIM_API cuModuleEnumerateFunctions(CUfunction* out, unsigned count, CUmodule handle) {
  SIM_ENTER();
  const Module* m = to_module(handle);
  if (m == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  for (unsigned i = 0; i < count && i < m->functions.size(); i++) {
    out[i] = reinterpret_cast<CUfunction>(m->functions[i].get());
  }
  return CUDA_SUCCESS;
}
SIM_API cuModuleGetLoadingMode(CUmoduleLoadingMode* mode) {
  SIM_ENTER();
  if (mode == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *mode = CU_MODULE_EAGER_LOADING;
  return CUDA_SUCCESS;
}

SIM_API cuLibraryLoadData(CUlibrary* out, const void* image, CUjit_option*, void**, unsigned,
                          CUlibraryOption*, void**, unsigned) {
  SIM_ENTER();
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  auto library = std::make_unique<Library>();
  if (const CUresult r = parse_image(image, &library->module); r != CUDA_SUCCESS) return r;
  library->module->library = library.get();
  for (auto& f : library->module->functions) f->library = library.get();
  *out = reinterpret_cast<CUlibrary>(library.release());
  return CUDA_SUCCESS;
}
SIM_API cuLibraryLoadFromFile(CUlibrary* out, const char* path, CUjit_option* a, void** b,
                              unsigned n, CUlibraryOption* c, void** d, unsigned m) {
  SIM_ENTER();
  std::string text;
  if (!read_file(path, &text)) return CUDA_ERROR_FILE_NOT_FOUND;
  return cuLibraryLoadData(out, text.c_str(), a, b, n, c, d, m);
}
SIM_API cuLibraryUnload(CUlibrary handle) {
  SIM_ENTER();
  Library* l = to_library(handle);
  if (l == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  for (Context* c : living_contexts()) synchronize(c);
  std::lock_guard<std::mutex> lock(module_lock());
  retire(l->module.get());
  l->magic = 0;
  return CUDA_SUCCESS;
}
SIM_API cuLibraryGetKernel(CUkernel* out, CUlibrary handle, const char* name) {
  SIM_ENTER();
  const Library* l = to_library(handle);
  if (l == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr || name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Function* f = find_function(l->module.get(), name);
  if (f == nullptr) return CUDA_ERROR_NOT_FOUND;
  *out = reinterpret_cast<CUkernel>(f);
  return CUDA_SUCCESS;
}
SIM_API cuLibraryGetKernelCount(unsigned* count, CUlibrary handle) {
  SIM_ENTER();
  const Library* l = to_library(handle);
  if (l == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *count = static_cast<unsigned>(l->module->functions.size());
  return CUDA_SUCCESS;
}
SIM_API cuLibraryEnumerateKernels(CUkernel* out, unsigned count, CUlibrary handle) {
  SIM_ENTER();
  const Library* l = to_library(handle);
  if (l == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  for (unsigned i = 0; i < count && i < l->module->functions.size(); i++) {
    out[i] = reinterpret_cast<CUkernel>(l->module->functions[i].get());
  }
  return CUDA_SUCCESS;
}
SIM_API cuLibraryGetModule(CUmodule* out, CUlibrary handle) {
  SIM_ENTER();
  const Library* l = to_library(handle);
  if (l == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = reinterpret_cast<CUmodule>(l->module.get());
  return CUDA_SUCCESS;
}
SIM_API cuLibraryGetGlobal(CUdeviceptr* at, size_t* bytes, CUlibrary handle, const char* name) {
  SIM_CONTEXT(c);
  const Library* l = to_library(handle);
  if (l == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard<std::mutex> lock(module_lock());
  if (const CUresult r = place_variables(l->module.get(), c); r != CUDA_SUCCESS) return r;
  return find_variable(l->module.get(), name, at, bytes);
}

SIM_API cuKernelGetFunction(CUfunction* out, CUkernel kernel) {
  SIM_CONTEXT(c);
  static_cast<void>(c);
  if (to_function(kernel) == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = reinterpret_cast<CUfunction>(kernel);
  return CUDA_SUCCESS;
}
SIM_API cuKernelGetLibrary(CUlibrary* out, CUkernel kernel) {
  SIM_ENTER();
  const Function* f = to_function(kernel);
  if (f == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = reinterpret_cast<CUlibrary>(f->library);
  return CUDA_SUCCESS;
}
SIM_API cuKernelGetName(const char** out, CUkernel kernel) {
  SIM_ENTER();
  const Function* f = to_function(kernel);
  if (f == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = f->name.c_str();
  return CUDA_SUCCESS;
}
SIM_API cuKernelGetParamInfo(CUkernel kernel, size_t index, size_t* offset, size_t* bytes) {
  SIM_ENTER();
  return param_info(to_function(kernel), index, offset, bytes);
}
SIM_API cuKernelGetAttribute(int* out, CUfunction_attribute which, CUkernel kernel, CUdevice) {
  SIM_ENTER();
  const Function* f = to_function(kernel);
  return f != nullptr ? function_attribute(out, which, f) : CUDA_ERROR_INVALID_HANDLE;
}
SIM_API cuKernelSetAttribute(CUfunction_attribute which, int value, CUkernel kernel, CUdevice) {
  SIM_ENTER();
  Function* f = to_function(kernel);
  return f != nullptr ? set_function_attribute(f, which, value) : CUDA_ERROR_INVALID_HANDLE;
}
SIM_API cuKernelSetCacheConfig(CUkernel kernel, CUfunc_cache, CUdevice) {
  SIM_ENTER();
  return to_function(kernel) != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

SIM_API cuFuncGetAttribute(int* out, CUfunction_attribute which, CUfunction function) {
  SIM_ENTER();
  const Function* f = to_function(function);
  return f != nullptr ? function_attribute(out, which, f) : CUDA_ERROR_INVALID_HANDLE;
}
SIM_API cuFuncSetAttribute(CUfunction function, CUfunction_attribute which, int value) {
  SIM_ENTER();
  Function* f = to_function(function);
  return f != nullptr ? set_function_attribute(f, which, value) : CUDA_ERROR_INVALID_HANDLE;
}
SIM_API cuFuncSetCacheConfig(CUfunction function, CUfunc_cache) {
  SIM_ENTER();
  return to_function(function) != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}
SIM_API cuFuncSetSharedMemConfig(CUfunction function, CUsharedconfig) {
  SIM_ENTER();
  return to_function(function) != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}
SIM_API cuFuncGetModule(CUmodule* out, CUfunction function) {
  SIM_ENTER();
  const Function* f = to_function(function);
  if (f == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = reinterpret_cast<CUmodule>(f->module);
  return CUDA_SUCCESS;
}
SIM_API cuFuncGetName(const char** out, CUfunction function) {
  SIM_ENTER();
  const Function* f = to_function(function);
  if (f == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = f->name.c_str();
  return CUDA_SUCCESS;
}
SIM_API cuFuncGetParamInfo(CUfunction function, size_t index, size_t* offset, size_t* bytes) {
  SIM_ENTER();
  return param_info(to_function(function), index, offset, bytes);
}
SIM_API cuFuncIsLoaded(CUfunctionLoadingState* state, CUfunction function) {
  SIM_ENTER();
  if (to_function(function) == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (state == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *state = CU_FUNCTION_LOADING_STATE_LOADED;
  return CUDA_SUCCESS;
}
SIM_API cuFuncLoad(CUfunction function) {
  SIM_ENTER();
  return to_function(function) != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

SIM_API cuOccupancyMaxActiveBlocksPerMultiprocessor(int* out, CUfunction f, int threads,
                                                    size_t shared) {
  SIM_ENTER();
  return blocks_per_sm(out, to_function(f), threads, shared);
}
SIM_API cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* out, CUfunction f, int threads,
                                                             size_t shared, unsigned) {
  SIM_ENTER();
  return blocks_per_sm(out, to_function(f), threads, shared);
}
SIM_API cuOccupancyMaxPotentialBlockSize(int* grid, int* block, CUfunction f, CUoccupancyB2DSize,
                                         size_t, int limit) {
  SIM_ENTER();
  return best_block(grid, block, to_function(f), limit);
}
SIM_API cuOccupancyMaxPotentialBlockSizeWithFlags(int* grid, int* block, CUfunction f,
                                                  CUoccupancyB2DSize, size_t, int limit, unsigned) {
  SIM_ENTER();
  return best_block(grid, block, to_function(f), limit);
}
SIM_API cuOccupancyAvailableDynamicSMemPerBlock(size_t* out, CUfunction f, int blocks, int) {
  SIM_ENTER();
  if (to_function(f) == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr || blocks <= 0) return CUDA_ERROR_INVALID_VALUE;
  *out = std::min<size_t>(232448, 233472 / static_cast<size_t>(blocks) - 1024);
  return CUDA_SUCCESS;
}
