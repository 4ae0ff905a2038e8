// Loading and unloading of code: takes memory of the driver's own, seen by the next reconciliation.
#include "shim/cuda_calls.h"
#include "shim/driver_memory.h"
#include "shim/memory.h"
#include "shim/process.h"

namespace allot::shim {
namespace {

template <auto& Call, class... A>
CUresult then_reconcile(A... arguments) {
  const Scope scope;
  const CUresult result = Call(arguments...);
  if (result == CUDA_SUCCESS && scope.tracking()) keep_all_accounts();
  return result;
}

}  // namespace

std::span<const Hook> module_hooks() {
  static constexpr Hook hooks[] = {
      hook<then_reconcile<real::cuModuleLoad, CUmodule*, const char*>>("cuModuleLoad"),
      hook<then_reconcile<real::cuModuleLoadData, CUmodule*, const void*>>("cuModuleLoadData"),
      hook<then_reconcile<real::cuModuleLoadDataEx, CUmodule*, const void*, unsigned, void*,
                          void**>>("cuModuleLoadDataEx"),
      hook<then_reconcile<real::cuModuleLoadFatBinary, CUmodule*, const void*>>(
          "cuModuleLoadFatBinary"),
      hook<then_reconcile<real::cuModuleUnload, CUmodule>>("cuModuleUnload"),
      hook<then_reconcile<real::cuLibraryLoadData, CUlibrary*, const void*, void*, void**, unsigned,
                          void*, void**, unsigned>>("cuLibraryLoadData"),
      hook<then_reconcile<real::cuLibraryLoadFromFile, CUlibrary*, const char*, void*, void**,
                          unsigned, void*, void**, unsigned>>("cuLibraryLoadFromFile"),
      hook<then_reconcile<real::cuLibraryUnload, CUlibrary>>("cuLibraryUnload"),
  };
  return hooks;
}

}  // namespace allot::shim
