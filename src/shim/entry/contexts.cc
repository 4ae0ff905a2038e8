// Contexts: the memory that they take, and the objects that end with them.
//
// A context takes some 500 MiB that no call shows. The first context of a slice on a GPU shows its
// size (region, gpus[].context_bytes); later ones reserve that much before the driver is called.
// After the call NVML says what the context really took. If that is over the limit, the context is
// destroyed again and the call returns OUT_OF_MEMORY: a slice that cannot hold a context is of no
// use.
//
// The end of a context frees everything made in it without further calls, so its entries leave the
// table. A primary context ends with its last release or with a reset; we ask the driver whether it
// did.
#include "shim/memory/charge.h"
#include "shim/memory/driver_memory.h"
#include "shim/memory/graph.h"
#include "shim/memory/movable.h"
#include "shim/memory/pool.h"
#include "shim/memory/slabs.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/hook_lists.h"
#include "shim/process/process.h"
#include "shim/process/swap_pass.h"
#include "shim/time/agent.h"
#include "shim/time/rm_tracker.h"
#include "shim/time/streams.h"

namespace allot::shim {
namespace {

void drop_context(CUcontext context) {
  const uint64_t owner = reinterpret_cast<uint64_t>(context);
  if (owner == 0) return;
  if (swap_on()) swap_context_gone(context);
  process.table.drop(
      [owner](const Entry& e) {
        const bool dies = e.tag == Tag::kPointer || e.tag == Tag::kSlab || e.tag == Tag::kArray ||
                          e.tag == Tag::kExternal;
        return dies && e.owner == owner;
      },
      [](const Entry& e) {
        if (e.tag == Tag::kSlab) slab_dropped(e);
        release_entry(e);
      });
  settle_pools(false);
  settle_graphs();
}

// Reserve, create, measure; `undo` destroys what was created.
template <class Create, class Undo>
CUresult create_on(CUdevice ordinal, Create create, Undo undo) {
  Device* device = device_of(ordinal);
  if (device == nullptr) return create();
  const MakingContextOn making(ordinal);
  const uint64_t expected = learned_context_bytes(*device);
  if (!reserve(*device, ALLOT_KIND_DRIVER, expected)) return CUDA_ERROR_OUT_OF_MEMORY;
  const uint64_t before = device->driver_measured.load(std::memory_order_relaxed);
  const CUresult result = create();
  if (result != CUDA_SUCCESS) {
    release(*device, ALLOT_KIND_DRIVER, expected);
    return result;
  }
  device->context_seen.store(true, std::memory_order_release);
  wake_agent();  // its channels run until the agent has seen them
  if (measure_driver_memory(*device, expected)) {
    const uint64_t measured = device->driver_measured.load(std::memory_order_relaxed);
    if (measured > before) learn_context_bytes(*device, measured - before);
  }
  if (!over_limit(*device)) return result;
  reclaim_dead(true);
  if (!over_limit(*device)) return result;
  undo();
  measure_driver_memory(*device, 0);
  return CUDA_ERROR_OUT_OF_MEMORY;
}

// The device is the last argument of every version.
CUdevice last(CUdevice device) {
  return device;
}
template <class First, class... Rest>
CUdevice last(First, Rest... rest) {
  return last(rest...);
}

template <auto& Create, class... A>
CUresult context_create(CUcontext* out, A... rest_and_device) {
  const Scope scope;
  if (scope.refusing()) return CUDA_ERROR_NOT_PERMITTED;
  if (!scope.tracking() || out == nullptr) return Create(out, rest_and_device...);
  const CUdevice ordinal = last(rest_and_device...);
  const CUresult result = create_on(
      ordinal, [&] { return Create(out, rest_and_device...); },
      [&] {
        real::cuCtxDestroy_v2(*out);
        *out = nullptr;
      });
  if (result == CUDA_SUCCESS) context_made(*out, ordinal);
  return result;
}

template <auto& Destroy>
CUresult context_destroy(CUcontext context) {
  const Scope scope;
  if (!scope.tracking()) return Destroy(context);
  const SwapPass pass;
  context_ends(context);
  const CUresult result = Destroy(context);
  context_gone(context);  // also after an error, which may be that of earlier work
  if (result != CUDA_SUCCESS) return result;
  drop_context(context);
  for (uint32_t i = 0; i < process.device_count; ++i) {
    Device& device = process.devices[i];
    if (device.gpu >= 0 && device.driver.bytes() > 0) measure_driver_memory(device, 0);
  }
  return result;
}

bool primary_active(CUdevice ordinal) {
  unsigned flags = 0;
  int active = 0;
  return real::cuDevicePrimaryCtxGetState(ordinal, &flags, &active) == CUDA_SUCCESS && active != 0;
}

CUresult primary_retain(CUcontext* out, CUdevice ordinal) {
  const Scope scope;
  if (scope.refusing()) return CUDA_ERROR_NOT_PERMITTED;
  if (!scope.tracking() || out == nullptr || primary_active(ordinal)) {
    return real::cuDevicePrimaryCtxRetain(out, ordinal);
  }
  const CUresult result = create_on(
      ordinal, [&] { return real::cuDevicePrimaryCtxRetain(out, ordinal); },
      [&] {
        real::cuDevicePrimaryCtxRelease_v2(ordinal);
        *out = nullptr;
      });
  if (result == CUDA_SUCCESS) context_made(*out, ordinal);
  return result;
}

// The primary context's handle, without a change of its retain count.
CUcontext primary_context(CUdevice ordinal) {
  CUcontext context = nullptr;
  if (device_of(ordinal) == nullptr || !primary_active(ordinal)) return nullptr;
  if (real::cuDevicePrimaryCtxRetain(&context, ordinal) != CUDA_SUCCESS) return nullptr;
  real::cuDevicePrimaryCtxRelease_v2(ordinal);
  return context;
}

template <auto& End>
CUresult primary_end(CUdevice ordinal, bool always_ends) {
  const Scope scope;
  if (!scope.tracking()) return End(ordinal);
  const SwapPass pass;
  const CUcontext context = primary_context(ordinal);
  context_ends(context);
  const CUresult result = End(ordinal);
  const bool lives = result != CUDA_SUCCESS || (!always_ends && primary_active(ordinal));
  if (lives) context_kept(context);
  if (lives || context == nullptr) return result;
  context_gone(context);
  drop_context(context);
  measure_driver_memory(*device_of(ordinal), 0);
  return result;
}

template <auto& End>
CUresult primary_release(CUdevice ordinal) {
  return primary_end<End>(ordinal, false);
}
template <auto& End>
CUresult primary_reset(CUdevice ordinal) {
  return primary_end<End>(ordinal, true);
}

CUresult green_create(CUgreenCtx* out, CUdevResourceDesc desc, CUdevice ordinal, unsigned flags) {
  const Scope scope;
  if (scope.refusing()) return CUDA_ERROR_NOT_PERMITTED;
  Device* device = scope.tracking() && out != nullptr ? device_of(ordinal) : nullptr;
  if (device == nullptr) return real::cuGreenCtxCreate(out, desc, ordinal, flags);
  const CUresult result = create_on(
      ordinal, [&] { return real::cuGreenCtxCreate(out, desc, ordinal, flags); },
      [&] {
        real::cuGreenCtxDestroy(*out);
        *out = nullptr;
      });
  if (result == CUDA_SUCCESS) green_context_made(*out, ordinal);
  return result;
}

CUresult green_destroy(CUgreenCtx context) {
  const Scope scope;
  const SwapPass pass;
  if (scope.tracking()) green_context_ends(context);
  const CUresult result = real::cuGreenCtxDestroy(context);
  if (scope.tracking()) green_context_gone(context);
  if (result == CUDA_SUCCESS && scope.tracking()) keep_all_accounts();
  return result;
}

// The size of a context's stacks, heap or printf buffer. It takes effect with the next launch, so
// the next reconciliation sees it.
CUresult set_limit(int limit, size_t value) {
  const Scope scope;
  const CUresult result = real::cuCtxSetLimit(limit, value);
  if (result == CUDA_SUCCESS && scope.tracking()) keep_all_accounts();
  return result;
}

}  // namespace

std::span<const Hook> context_hooks() {
  static constexpr Hook hooks[] = {
      hook<context_create<real::cuCtxCreate, unsigned, CUdevice>>("cuCtxCreate"),
      hook<context_create<real::cuCtxCreate_v2, unsigned, CUdevice>>("cuCtxCreate_v2"),
      hook<context_create<real::cuCtxCreate_v3, CUexecAffinityParam*, int, unsigned, CUdevice>>(
          "cuCtxCreate_v3"),
      hook<context_create<real::cuCtxCreate_v4, CUctxCreateParams*, unsigned, CUdevice>>(
          "cuCtxCreate_v4"),
      hook<context_destroy<real::cuCtxDestroy>>("cuCtxDestroy"),
      hook<context_destroy<real::cuCtxDestroy_v2>>("cuCtxDestroy_v2"),
      hook<primary_retain>("cuDevicePrimaryCtxRetain"),
      hook<primary_release<real::cuDevicePrimaryCtxRelease>>("cuDevicePrimaryCtxRelease"),
      hook<primary_release<real::cuDevicePrimaryCtxRelease_v2>>("cuDevicePrimaryCtxRelease_v2"),
      hook<primary_reset<real::cuDevicePrimaryCtxReset>>("cuDevicePrimaryCtxReset"),
      hook<primary_reset<real::cuDevicePrimaryCtxReset_v2>>("cuDevicePrimaryCtxReset_v2"),
      hook<green_create>("cuGreenCtxCreate"),
      hook<green_destroy>("cuGreenCtxDestroy"),
      hook<set_limit>("cuCtxSetLimit"),
  };
  return hooks;
}

}  // namespace allot::shim
