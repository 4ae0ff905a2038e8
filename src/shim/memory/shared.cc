// Memory of other processes: IPC handles, shareable handles on offer, external memory.
//
// Physical memory is charged once, to the process that created it. So the region records what a
// process of this slice offers (AllotExport, by a hash of the 64 bytes of its handle), and a
// process of the slice that opens it is not charged again. Memory of another slice is charged as
// ALLOT_KIND_IMPORT while it is open. External memory (Vulkan, OpenGL) comes from an API that allot
// does not see: it is charged in full to the importing process, on the device that is current then.
#include "base/text.h"
#include "shim/memory/charge.h"
#include "shim/memory/driver_memory.h"
#include "shim/memory/movable.h"
#include "shim/process/cuda_calls.h"
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

// Records an offer of this process in the region. A full table does not hold it: then processes
// that open it are charged too.
void offer(uint64_t hash) {
  static_cast<void>(shm::add_export(process.slice, hash, process.slot));
}

CUresult ipc_get(CUipcMemHandle* out, CUdeviceptr address) {
  const Scope scope;
  const CUresult result = real::cuIpcGetMemHandle(out, address);
  if (result == CUDA_SUCCESS && scope.tracking()) offer(hash_of_handle(out));
  if (result != CUDA_SUCCESS && scope.tracking() && swap_covers(address)) log_no_ipc();
  return result;
}

CUresult export_shareable(void* out, CUmemGenericAllocationHandle handle,
                          CUmemAllocationHandleType type, unsigned long long flags) {
  const Scope scope;
  const CUresult result = real::cuMemExportToShareableHandle(out, handle, type, flags);
  if (result == CUDA_SUCCESS && scope.tracking() && type == CU_MEM_HANDLE_TYPE_FABRIC) {
    offer(hash_of_handle(out));
  }
  return result;
}

// Charges an opened block of another slice. False when it does not fit.
bool charge_opened(Device& device, CUcontext context, CUdeviceptr address, bool ours) {
  CUdeviceptr base = 0;
  size_t bytes = 0;
  if (!ours && real::cuMemGetAddressRange_v2(&base, &bytes, address) != CUDA_SUCCESS) bytes = 0;
  const uint64_t charged = ours ? 0 : round_up(bytes, kPage);
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
  }
  return ok;
}

template <auto& Open>
CUresult ipc_open(CUdeviceptr* out, CUipcMemHandle handle, unsigned flags) {
  const Scope scope;
  if (scope.refusing()) return CUDA_ERROR_NOT_PERMITTED;
  CUcontext context = nullptr;
  Device* device = scope.tracking() && out != nullptr ? current_device(&context) : nullptr;
  if (device == nullptr) return Open(out, handle, flags);
  keep_accounts(*device);
  const CUresult result = Open(out, handle, flags);
  if (result != CUDA_SUCCESS) return result;
  if (charge_opened(*device, context, *out,
                    shm::find_export(process.slice, hash_of_handle(&handle))))
    return result;
  real::cuIpcCloseMemHandle(*out);
  *out = 0;
  return CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult ipc_close(CUdeviceptr address) {
  const Scope scope;
  if (!scope.tracking()) return real::cuIpcCloseMemHandle(address);
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
    if (last) release_entry(opened);
  } else {
    bool ok = true;
    Entry again = opened;
    again.count = 1;
    process.table.put_or_update(
        last ? again : opened, [](Entry& e) { ++e.count; }, &ok);
  }
  return result;
}

CUresult import_external(CUexternalMemory* out, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC* desc) {
  const Scope scope;
  if (scope.refusing()) return CUDA_ERROR_NOT_PERMITTED;
  CUcontext context = nullptr;
  Device* device = scope.tracking() && out && desc ? current_device(&context) : nullptr;
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

CUresult destroy_external(CUexternalMemory memory) {
  const Scope scope;
  Entry entry;
  if (!scope.tracking() ||
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
      hook<export_shareable>("cuMemExportToShareableHandle"),
      hook<import_external>("cuImportExternalMemory"),
      hook<destroy_external>("cuDestroyExternalMemory"),
  };
  return hooks;
}

}  // namespace allot::shim
