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
#include "shim/memory/exported.h"
#include "shim/memory/graph.h"
#include "shim/memory/movable.h"
#include "shim/memory/pool.h"
#include "shim/memory/slabs.h"
#include "shim/memory/vmm.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/hook_guard.h"
#include "shim/process/hook_lists.h"
#include "shim/process/process.h"
#include "shim/time/agent.h"
#include "shim/time/gpu_clients.h"
#include "shim/time/rm_tracker.h"
#include "shim/time/streams.h"

namespace allot::shim {
namespace {

bool primary_active(CUdevice ordinal) {
  unsigned flags = 0;
  int active = 0;
  return real::cuDevicePrimaryCtxGetState(ordinal, &flags, &active) == CUDA_SUCCESS && active != 0;
}

// A context that was made by a call (not the primary one) is known by its handle while it lives.
void note_context(CUcontext context, CUdevice ordinal) {
  const Entry fresh = {reinterpret_cast<uint64_t>(context),
                       static_cast<uint64_t>(ordinal),
                       0,
                       1,
                       0,
                       Tag::kContext,
                       0};
  if (process.table.put(fresh)) process.devices[ordinal].contexts.fetch_add(1);
}

Device* forget_context(CUcontext context) {
  Entry known;
  if (!process.table.take(Tag::kContext, reinterpret_cast<uint64_t>(context), &known))
    return nullptr;
  Device* device = device_of(static_cast<CUdevice>(known.owner));
  if (device != nullptr) device->contexts.fetch_sub(1);
  return device;
}

bool last_context_gone(const Device& device) {
  return device.contexts.load() == 0 && !primary_active(ordinal_of(device));
}

// Returns what was made in a context that has ended.
void drop_context(CUcontext context, Device& device) {
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
        if (e.tag == Tag::kArray) holder_of_memory_gone(e.key);
        if (e.kind() == ALLOT_KIND_IMPORT) {
          import_gone(e);
        } else {
          release_entry(e);
        }
      });
  exported_context_gone(context);
  const bool last = last_context_gone(device);
  if (last) device.driver_floor.store(0, std::memory_order_relaxed);
  settle_pools(false);
  pools_after_context(device, last);
  settle_graphs();
}

// Reserve, create, measure; `undo` destroys what was created.
template <class Create, class Undo>
CUresult create_on(const Call& guard, CUdevice ordinal, Create create, Undo undo) {
  Device* device = device_of(ordinal);
  if (device == nullptr) return refused_gpu(ordinal) ? CUDA_ERROR_NOT_PERMITTED : create();
  const MakingContextOn making(guard, ordinal);
  if (!ready_for_context(ordinal)) return CUDA_ERROR_NOT_PERMITTED;
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

// The device is the last argument of every version (behind it VDPAU's stand two that say how to
// reach the display).
CUdevice last(CUdevice device) {
  return device;
}
CUdevice last(unsigned, CUdevice device, unsigned, void*) {
  return device;
}
template <class First, class... Rest>
CUdevice last(First, Rest... rest) {
  return last(rest...);
}

template <auto& Create, class... A>
CUresult context_create(const Taking& guard, CUcontext* out, A... rest_and_device) {
  if (!guard.tracking() || out == nullptr) return Create(out, rest_and_device...);
  const CUdevice ordinal = last(rest_and_device...);
  const MakingContextOn making(guard, ordinal);  // until it is known
  const CUresult result = create_on(
      guard, ordinal, [&] { return Create(out, rest_and_device...); },
      [&] {
        real::cuCtxDestroy_v2(*out);
        *out = nullptr;
      });
  if (result == CUDA_SUCCESS) {
    context_made(*out, ordinal);
    if (device_of(ordinal) != nullptr) note_context(*out, ordinal);
  }
  return result;
}

// After the driver has ended a context that was made by a call.
void made_context_ended(CUcontext context) {
  if (Device* device = forget_context(context)) {
    drop_context(context, *device);
    measure_driver_memory(*device, 0);
    return;
  }
  for (uint32_t i = 0; i < process.device_count; ++i) {  // made by a way that we do not see
    Device& device = process.devices[i];
    if (device.gpu < 0 || device.driver.bytes() == 0) continue;
    drop_context(context, device);
    measure_driver_memory(device, 0);
  }
}

template <auto& Destroy>
CUresult context_destroy(const Moving& guard, CUcontext context) {
  if (!guard.tracking()) return Destroy(context);
  context_ends(context);
  const CUresult result = Destroy(context);
  context_gone(context);  // also after an error: it may have been that of earlier work
  if (result == CUDA_SUCCESS) made_context_ended(context);
  return result;
}

// cuCtxAttach and cuCtxDetach count: a context is made with 1 and ends at 0.
CUresult context_attach(const Observing& guard, CUcontext* out, unsigned flags) {
  const CUresult result = real::cuCtxAttach(out, flags);
  if (result == CUDA_SUCCESS && guard.tracking() && out != nullptr) {
    process.table.update(Tag::kContext, reinterpret_cast<uint64_t>(*out), [](Entry& e) {
      ++e.count;
      return true;
    });
  }
  return result;
}

CUresult context_detach(const Moving& guard, CUcontext context) {
  if (!guard.tracking()) return real::cuCtxDetach(context);
  context_ends(context);
  const CUresult result = real::cuCtxDetach(context);
  bool lives = result != CUDA_SUCCESS;
  if (!lives) {
    const uint64_t key = reinterpret_cast<uint64_t>(context);
    const bool known = process.table.update(Tag::kContext, key, [&lives](Entry& e) {
      lives = e.count > 1;
      if (lives) --e.count;
      return true;
    });
    unsigned version = 0;
    if (!known) lives = real::cuCtxGetApiVersion(context, &version) == CUDA_SUCCESS;
  }
  if (lives) {
    context_kept(context);
  } else {
    context_gone(context);
    made_context_ended(context);
  }
  return result;
}

CUresult primary_retain(const Taking& guard, CUcontext* out, CUdevice ordinal) {
  if (!guard.tracking() || out == nullptr || primary_active(ordinal)) {
    return real::cuDevicePrimaryCtxRetain(out, ordinal);
  }
  const MakingContextOn making(guard, ordinal);
  const CUresult result = create_on(
      guard, ordinal, [&] { return real::cuDevicePrimaryCtxRetain(out, ordinal); },
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

// Brackets a call that may end the primary context of a device.
template <class End>
CUresult primary_may_end(const Moving&, CUdevice ordinal, bool always_ends, End end) {
  const CUcontext context = primary_context(ordinal);
  context_ends(context);
  const CUresult result = end();
  const bool lives = result != CUDA_SUCCESS || (!always_ends && primary_active(ordinal));
  if (lives) context_kept(context);
  if (lives || context == nullptr) return result;
  context_gone(context);
  drop_context(context, *device_of(ordinal));
  measure_driver_memory(*device_of(ordinal), 0);
  return result;
}

template <auto& End>
CUresult primary_end(const Moving& guard, CUdevice ordinal, bool always_ends) {
  if (!guard.tracking() || device_of(ordinal) == nullptr) return End(ordinal);
  return primary_may_end(guard, ordinal, always_ends, [ordinal] { return End(ordinal); });
}

template <auto& End>
CUresult primary_release(const Moving& guard, CUdevice ordinal) {
  return primary_end<End>(guard, ordinal, false);
}
template <auto& End>
CUresult primary_reset(const Moving& guard, CUdevice ordinal) {
  return primary_end<End>(guard, ordinal, true);
}

CUresult green_create(const Taking& guard, CUgreenCtx* out, CUdevResourceDesc desc,
                      CUdevice ordinal, unsigned flags) {
  if (!guard.tracking() || out == nullptr) {
    return real::cuGreenCtxCreate(out, desc, ordinal, flags);
  }
  const MakingContextOn making(guard, ordinal);
  const CUresult result = create_on(
      guard, ordinal, [&] { return real::cuGreenCtxCreate(out, desc, ordinal, flags); },
      [&] {
        real::cuGreenCtxDestroy(*out);
        *out = nullptr;
      });
  if (result != CUDA_SUCCESS || device_of(ordinal) == nullptr) return result;
  green_context_made(*out, ordinal);
  process.table.put(
      {reinterpret_cast<uint64_t>(*out), static_cast<uint64_t>(ordinal), 0, 0, 0, Tag::kGreen, 0});
  return result;
}

// A green context holds its device's primary one, so the last to go ends it.
CUresult green_destroy(const Moving& guard, CUgreenCtx context) {
  Entry known;
  if (!guard.tracking() ||
      !process.table.take(Tag::kGreen, reinterpret_cast<uint64_t>(context), &known)) {
    return real::cuGreenCtxDestroy(context);
  }
  const CUdevice ordinal = static_cast<CUdevice>(known.owner);
  CUcontext own = nullptr;
  if (real::cuCtxFromGreenCtx(&own, context) != CUDA_SUCCESS) own = nullptr;
  green_context_ends(context);
  const CUresult result = primary_may_end(guard, ordinal, false,
                                          [context] { return real::cuGreenCtxDestroy(context); });
  green_context_gone(context);
  if (result != CUDA_SUCCESS) {
    process.table.put(known);
    return result;
  }
  if (own != nullptr) drop_context(own, *device_of(ordinal));
  keep_all_accounts();
  return result;
}

// Heaps for malloc() and printf() in kernels are as large as the program says, and the driver takes
// them when a kernel wants them: reserved now, and kept as the least that the driver's own memory
// is charged with. Other limits are small, or fit by the next reconciliation.
CUresult set_limit(const Taking& guard, int limit, size_t value) {
  const bool heap = limit == CU_LIMIT_MALLOC_HEAP_SIZE || limit == CU_LIMIT_PRINTF_FIFO_SIZE;
  CUcontext context = nullptr;
  Device* device = guard.tracking() ? current_device(&context) : nullptr;
  size_t before = 0;
  if (device == nullptr || !heap || real::cuCtxGetLimit(&before, limit) != CUDA_SUCCESS ||
      value <= before) {
    const CUresult result = real::cuCtxSetLimit(limit, value);
    if (result == CUDA_SUCCESS && device != nullptr) keep_all_accounts();
    return result;
  }
  const uint64_t more = round_up(value - before, kPage);
  if (!reserve(*device, ALLOT_KIND_DRIVER, more)) return CUDA_ERROR_OUT_OF_MEMORY;
  const uint64_t measured = device->driver_measured.load(std::memory_order_relaxed);
  const uint64_t floor = device->driver_floor.load(std::memory_order_relaxed);
  const CUresult result = real::cuCtxSetLimit(limit, value);
  if (result == CUDA_SUCCESS) {
    device->driver_floor.store((floor > measured ? floor : measured) + more,
                               std::memory_order_relaxed);
  }
  measure_driver_memory(*device, more);
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
      hook<context_create<real::cuGLCtxCreate, unsigned, CUdevice>>("cuGLCtxCreate"),
      hook<context_create<real::cuGLCtxCreate_v2, unsigned, CUdevice>>("cuGLCtxCreate_v2"),
      hook<context_create<real::cuVDPAUCtxCreate, unsigned, CUdevice, unsigned, void*>>(
          "cuVDPAUCtxCreate"),
      hook<context_create<real::cuVDPAUCtxCreate_v2, unsigned, CUdevice, unsigned, void*>>(
          "cuVDPAUCtxCreate_v2"),
      hook<context_attach>("cuCtxAttach"),
      hook<context_detach>("cuCtxDetach"),
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
