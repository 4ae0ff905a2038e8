// Memory of other processes: IPC handles, blocks of pools by pointer, external memory.
//
// Physical memory is charged once, to the process that created it. So the region records what a
// process of this slice offers (AllotExport, by a hash of the 64 bytes of its handle), and a
// process of the slice that opens it is not charged again. Memory of another slice is charged as
// ALLOT_KIND_IMPORT while it is open. External memory (Vulkan, OpenGL) comes from an API that allot
// does not see: it is charged in full to the importing process, on the device that is current then.
#include "base/text.h"
#include "shim/memory/charge.h"
#include "shim/memory/driver_memory.h"
#include "shim/memory/exported.h"
#include "shim/memory/movable.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/hook_guard.h"
#include "shim/process/hook_lists.h"
#include "shim/process/log.h"
#include "shim/process/process.h"
#include "shm/slice_file.h"

namespace allot::shim {
namespace {

constexpr size_t kHandleBytes = 64;

uint64_t hash_of_handle(const void* handle) {
  const uint64_t hash = hash64(handle, kHandleBytes);
  return hash == 0 ? 1 : hash;
}

// Notes that a handle for the block around `address` was given out.
void offer(uint64_t hash, CUdeviceptr address) {
  CUcontext context = nullptr;
  CUdeviceptr base = 0;
  size_t bytes = 0;
  if (real::cuMemGetAddressRange_v2(&base, &bytes, address) != CUDA_SUCCESS) base = address;
  if (real::cuCtxGetCurrent(&context) != CUDA_SUCCESS) context = nullptr;
  Entry block;  // which dies with the context it was made in, not with the current one
  if (process.table.find(Tag::kPointer, base, &block)) {
    context = reinterpret_cast<CUcontext>(block.owner);
  }
  offer_block(base, hash, reinterpret_cast<uint64_t>(context));
}

CUresult ipc_get(const Observing& guard, CUipcMemHandle* out, CUdeviceptr address) {
  const CUresult result = real::cuIpcGetMemHandle(out, address);
  if (result == CUDA_SUCCESS && guard.tracking()) offer(hash_of_handle(out), address);
  if (result != CUDA_SUCCESS && guard.tracking() && swap_covers(address)) log_no_ipc();
  return result;
}

// A block of a pool whose handle went to another process.
CUresult pool_export_pointer(const Observing& guard, CUmemPoolPtrExportData* out,
                             CUdeviceptr address) {
  const CUresult result = real::cuMemPoolExportPointer(out, address);
  if (result == CUDA_SUCCESS && guard.tracking()) offer(hash_of_handle(out), address);
  return result;
}

// Charges an opened block of another slice; one of our own is borrowed. False when it does not fit.
bool charge_opened(Device& device, CUcontext context, CUdeviceptr address, const void* handle) {
  CUdeviceptr base = 0;
  size_t bytes = 0;
  const uint64_t hash = hash_of_handle(handle);
  const bool ours = shm::find_export_of_other(process.slice, hash, process.slot);
  if (real::cuMemGetAddressRange_v2(&base, &bytes, address) != CUDA_SUCCESS) bytes = 0;
  const uint64_t size = round_up(bytes, kPage);
  const uint64_t charged = ours ? 0 : size;
  if (!reserve(device, ALLOT_KIND_IMPORT, charged)) return false;
  const Entry entry = {address,
                       reinterpret_cast<uint64_t>(context),
                       charged,
                       1,
                       0,
                       Tag::kPointer,
                       Entry::pack(static_cast<uint32_t>(device.gpu), ALLOT_KIND_IMPORT)};
  bool ok = true;
  // The driver returns the same address for the same handle and counts the opens.
  if (process.table.put_or_update(
          entry, [](Entry& e) { ++e.count; }, &ok)) {
    release(device, ALLOT_KIND_IMPORT, charged);
    return true;
  }
  if (ok && (!ours || borrow(address, hash, size, static_cast<uint32_t>(device.gpu)))) return true;
  Entry gone;
  if (ok) process.table.take(Tag::kPointer, address, &gone);
  release(device, ALLOT_KIND_IMPORT, charged);
  return false;
}

template <auto& Open>
CUresult ipc_open(const Taking& guard, CUdeviceptr* out, CUipcMemHandle handle, unsigned flags) {
  CUcontext context = nullptr;
  Device* device = guard.tracking() && out != nullptr ? current_device(&context) : nullptr;
  if (device == nullptr) return Open(out, handle, flags);
  keep_accounts(*device);
  const CUresult result = Open(out, handle, flags);
  if (result != CUDA_SUCCESS) return result;
  if (charge_opened(*device, context, *out, &handle)) return result;
  real::cuIpcCloseMemHandle(*out);
  *out = 0;
  return CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult ipc_close(const Observing& guard, CUdeviceptr address) {
  if (!guard.tracking()) return real::cuIpcCloseMemHandle(address);
  Entry opened = {};
  bool last = false;
  process.table.update(Tag::kPointer, address, [&](Entry& e) {
    if (e.kind() != ALLOT_KIND_IMPORT) return true;
    opened = e;
    last = --e.count == 0;
    return !last;
  });
  const CUresult result = real::cuIpcCloseMemHandle(address);
  if (opened.tag == Tag::kNone) return result;
  if (result == CUDA_SUCCESS) {
    if (last) import_gone(opened);
  } else {
    bool ok = true;
    Entry again = opened;
    again.count = 1;
    process.table.put_or_update(
        last ? again : opened, [](Entry& e) { ++e.count; }, &ok);
  }
  return result;
}

CUresult pool_import_pointer(const Taking& guard, CUdeviceptr* out, CUmemoryPool pool,
                             CUmemPoolPtrExportData* data) {
  CUcontext context = nullptr;
  Device* device = guard.tracking() && out && data ? current_device(&context) : nullptr;
  if (device == nullptr) return real::cuMemPoolImportPointer(out, pool, data);
  keep_accounts(*device);
  const CUresult result = real::cuMemPoolImportPointer(out, pool, data);
  if (result != CUDA_SUCCESS || charge_opened(*device, context, *out, data)) return result;
  real::cuMemFree_v2(*out);
  *out = 0;
  return CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult import_external(const Taking& guard, CUexternalMemory* out,
                         const CUDA_EXTERNAL_MEMORY_HANDLE_DESC* desc) {
  CUcontext context = nullptr;
  Device* device = guard.tracking() && out && desc ? current_device(&context) : nullptr;
  if (device == nullptr) return real::cuImportExternalMemory(out, desc);
  keep_accounts(*device);
  const uint64_t charged = round_up(desc->size, kPage);
  if (!reserve(*device, ALLOT_KIND_IMPORT, charged)) return CUDA_ERROR_OUT_OF_MEMORY;
  const CUresult result = real::cuImportExternalMemory(out, desc);
  if (result == CUDA_SUCCESS) {
    const Entry entry = {reinterpret_cast<uint64_t>(*out),
                         reinterpret_cast<uint64_t>(context),
                         charged,
                         0,
                         0,
                         Tag::kExternal,
                         Entry::pack(static_cast<uint32_t>(device->gpu), ALLOT_KIND_IMPORT)};
    if (process.table.put(entry)) return result;
    real::cuDestroyExternalMemory(*out);
  }
  release(*device, ALLOT_KIND_IMPORT, charged);
  return result == CUDA_SUCCESS ? CUDA_ERROR_OUT_OF_MEMORY : result;
}

CUresult destroy_external(const Observing& guard, CUexternalMemory memory) {
  Entry entry;
  if (!guard.tracking() ||
      !process.table.take(Tag::kExternal, reinterpret_cast<uint64_t>(memory), &entry)) {
    return real::cuDestroyExternalMemory(memory);
  }
  const CUresult result = real::cuDestroyExternalMemory(memory);
  if (result == CUDA_SUCCESS) {
    release_entry(entry);
  } else {
    process.table.put(entry);
  }
  return result;
}

}  // namespace

std::span<const Hook> shared_memory_hooks() {
  static constexpr Hook hooks[] = {
      hook<ipc_get>("cuIpcGetMemHandle"),
      hook<ipc_open<real::cuIpcOpenMemHandle>>("cuIpcOpenMemHandle"),
      hook<ipc_open<real::cuIpcOpenMemHandle_v2>>("cuIpcOpenMemHandle_v2"),
      hook<ipc_close>("cuIpcCloseMemHandle"),
      hook<pool_export_pointer>("cuMemPoolExportPointer"),
      hook<pool_import_pointer>("cuMemPoolImportPointer"),
      hook<import_external>("cuImportExternalMemory"),
      hook<destroy_external>("cuDestroyExternalMemory"),
  };
  return hooks;
}

}  // namespace allot::shim
