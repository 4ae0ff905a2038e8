// Entries of external memory: what another API (Vulkan, OpenGL) made, imported by a file
// descriptor.
//
// No other API is modelled, so a file stands for its memory: the import takes as much of the card,
// copies the file's bytes and closes the descriptor, which is the driver's from then on. Later
// writes to the file are not seen.
#include <sys/stat.h>
#include <unistd.h>

#include "handles.h"
#include "memory.h"
#include "runtime.h"

namespace allot::sim {
namespace {

constexpr uint32_t kExternalMagic = 0x4558544d;

// Its block is found by address and id: the end of its context may have taken it.
struct External {
  uint32_t magic = kExternalMagic;
  uint64_t base = 0;
  uint64_t bytes = 0;
  uint64_t id = 0;
};

External* to_external(CUexternalMemory handle) {
  auto* e = reinterpret_cast<External*>(handle);
  return e != nullptr && e->magic == kExternalMagic ? e : nullptr;
}

Block* block_of(const External* e) {
  std::lock_guard<std::mutex> lock(memory_lock());
  Block* block = block_at(e->base);
  return block != nullptr && block->id == e->id ? block : nullptr;
}

// Only what was written to the file, so that a large empty one costs the host nothing.
bool copy_file(int fd, uint64_t bytes, uint64_t to) {
  auto at = static_cast<off_t>(0);
  const auto end = static_cast<off_t>(bytes);
  while ((at = lseek(fd, at, SEEK_DATA)) >= 0 && at < end) {
    off_t hole = lseek(fd, at, SEEK_HOLE);
    if (hole < 0 || hole > end) hole = end;
    while (at < hole) {
      const ssize_t n =
          pread(fd, reinterpret_cast<char*>(to) + at, static_cast<size_t>(hole - at), at);
      if (n <= 0) return false;
      at += n;
    }
  }
  return true;
}

}  // namespace
}  // namespace allot::sim

using namespace allot::sim;

SIM_API cuImportExternalMemory(CUexternalMemory* out,
                               const CUDA_EXTERNAL_MEMORY_HANDLE_DESC* desc) {
  SIM_CONTEXT(c);
  if (out == nullptr || desc == nullptr || desc->size == 0) return CUDA_ERROR_INVALID_VALUE;
  if (desc->type != CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD) return CUDA_ERROR_NOT_SUPPORTED;
  struct stat status;
  const int fd = desc->handle.fd;
  if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) ||
      static_cast<uint64_t>(status.st_size) < desc->size) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Block* block = allocate_block(c->gpu, c->device, c, Kind::kExternal, desc->size);
  if (block == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  if (!copy_file(fd, desc->size, block->base)) {
    release_block(block);
    return CUDA_ERROR_OPERATING_SYSTEM;
  }
  auto* e = Handles<External>::make();
  e->base = block->base;
  e->bytes = desc->size;
  e->id = block->id;
  close(fd);
  *out = reinterpret_cast<CUexternalMemory>(e);
  return CUDA_SUCCESS;
}

// The address is freed by cuMemFree, which leaves the memory to cuDestroyExternalMemory.
SIM_API cuExternalMemoryGetMappedBuffer(CUdeviceptr* out, CUexternalMemory handle,
                                        const CUDA_EXTERNAL_MEMORY_BUFFER_DESC* desc) {
  SIM_ENTER();
  const External* e = to_external(handle);
  if (e == nullptr || block_of(e) == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr || desc == nullptr || desc->size == 0 || desc->flags != 0 ||
      desc->offset > e->bytes || desc->size > e->bytes - desc->offset) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *out = e->base + desc->offset;
  return CUDA_SUCCESS;
}

SIM_API cuDestroyExternalMemory(CUexternalMemory handle) {
  SIM_CONTEXT(c);
  External* e = to_external(handle);
  if (e == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (!idle(c)) {
    if (const CUresult r = synchronize(c); r != CUDA_SUCCESS) return r;
  }
  if (Block* block = block_of(e)) release_block(block);
  Handles<External>::bury(e);
  return CUDA_SUCCESS;
}
