// Copies blocks to their memory on the host, or back: in pieces, by a few threads.
//
// One thread cannot keep up with PCIe: it has to copy what the GPU writes into pinned memory on to
// pages that the kernel clears first. So up to eight threads take pieces in turn, each with two
// lanes (a stream and a pinned buffer): while the GPU fills one buffer, the thread empties the
// other. The devices are copied one after the other, each in a context of its own; addresses that
// VMM maps are the same in all contexts.
//
// What must not happen here: pinned memory is left behind, or a driver call begins after the
// process began to end.
#include <sched.h>

#include <cstring>

#include "shim/memory/movable.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/guest_thread.h"
#include "shim/process/hook_guard.h"
#include "shim/swap/swap.h"
#include "shim/time/stream_table.h"
#include "shim/time/streams.h"
#include "sys/clock.h"
#include "sys/futex.h"

namespace allot::shim {
namespace {

constexpr uint64_t kPiece = 8 * kMiB;
constexpr uint64_t kWorthAThread = 64 * kMiB;
constexpr uint32_t kMostThreads = 8;  // four moved 13 GB/s out and 26 GB/s back
constexpr uint64_t kLookNs = 100'000'000;

struct Segment {
  uint64_t device;
  char* host;
  uint64_t bytes;
};

// What the threads share. There is one job at a time.
struct Job {
  SwapBlock* blocks;
  uint32_t count;
  int32_t ordinal;
  uint64_t context;
  bool to_host;
  SpinLock guard;  // of the next two
  uint32_t block;
  uint64_t offset;
  std::atomic<uint32_t> failed;   // CUresult
  std::atomic<uint32_t> helpers;  // a futex
};
constinit Job job = {};
constinit std::atomic<bool> stopped{false};

// Blocks to copy: to the host those on the GPU, from the host those that are out.
bool wanted(const SwapBlock& block) {
  return block.host != nullptr && block.ordinal == job.ordinal && block.out != job.to_host;
}

bool take_piece(Segment* piece) {
  if (stopped.load(std::memory_order_acquire)) job.failed.store(CUDA_ERROR_DEINITIALIZED);
  if (job.failed.load() != CUDA_SUCCESS) return false;
  job.guard.lock();
  while (job.block < job.count && !wanted(job.blocks[job.block])) ++job.block;
  const bool there = job.block < job.count;
  if (there) {
    const SwapBlock& block = job.blocks[job.block];
    const uint64_t left = block.span - job.offset;
    piece->device = block.base + job.offset;
    piece->host = static_cast<char*>(block.host) + job.offset;
    piece->bytes = left < kPiece ? left : kPiece;
    job.offset += piece->bytes;
    if (job.offset == block.span) {
      ++job.block;
      job.offset = 0;
    }
  }
  job.guard.unlock();
  return there;
}

void failed(CUresult result) {
  uint32_t none = CUDA_SUCCESS;
  if (result != CUDA_SUCCESS) job.failed.compare_exchange_strong(none, result);
}

void count_moved(uint64_t bytes) {
  __atomic_fetch_add(&swap_entry().moved_bytes, bytes, __ATOMIC_RELAXED);
}

// A stream and a pinned buffer, which carry one piece at a time.
class Lane {
 public:
  CUresult open() {
    const CUresult result = real::cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING);
    if (result != CUDA_SUCCESS) return result;
    return real::cuMemHostAlloc(&buffer_, kPiece, 0);
  }
  void close() {
    if (stream_ != nullptr) real::cuStreamSynchronize(stream_);
    if (buffer_ != nullptr) real::cuMemFreeHost(buffer_);
    if (stream_ != nullptr) real::cuStreamDestroy_v2(stream_);
  }
  // Finishes the last piece and begins this one.
  CUresult begin(const Segment& piece) {
    if (const CUresult result = end(); result != CUDA_SUCCESS) return result;
    piece_ = piece;
    if (job.to_host) {
      return real::cuMemcpyDtoHAsync_v2(buffer_, piece.device, piece.bytes, stream_);
    }
    memcpy(buffer_, piece.host, piece.bytes);
    return real::cuMemcpyHtoDAsync_v2(piece.device, buffer_, piece.bytes, stream_);
  }
  CUresult end() {
    if (piece_.bytes == 0) return CUDA_SUCCESS;
    const CUresult result = real::cuStreamSynchronize(stream_);
    if (result != CUDA_SUCCESS) return result;
    if (job.to_host) memcpy(piece_.host, buffer_, piece_.bytes);
    count_moved(piece_.bytes);
    piece_.bytes = 0;
    return CUDA_SUCCESS;
  }

 private:
  CUstream stream_ = nullptr;
  void* buffer_ = nullptr;
  Segment piece_ = {};
};

void copy_pieces() {
  CUcontext popped = nullptr;
  CUresult result = real::cuCtxPushCurrent_v2(reinterpret_cast<CUcontext>(job.context));
  if (result != CUDA_SUCCESS) return failed(result);
  Lane lanes[2];
  result = lanes[0].open();
  if (result == CUDA_SUCCESS) result = lanes[1].open();
  Segment piece = {};
  for (uint32_t turn = 0; result == CUDA_SUCCESS && take_piece(&piece); ++turn) {
    result = lanes[turn & 1].begin(piece);
  }
  for (Lane& lane : lanes) {
    if (result == CUDA_SUCCESS) result = lane.end();
  }
  failed(result);
  for (Lane& lane : lanes) lane.close();
  real::cuCtxPopCurrent_v2(&popped);
}

void* helper_main(void*) {
  name_guest_thread("allot-copier");
  {
    const OwnCall own;
    relax_capture_mode();
    copy_pieces();
  }
  job.helpers.fetch_sub(1);
  sys::futex_wake(&job.helpers, sys::FutexScope::kPrivate);
  return nullptr;
}

uint32_t threads_for(uint64_t bytes) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  const bool known = sched_getaffinity(0, sizeof(cpus), &cpus) == 0;
  const uint32_t most = known ? static_cast<uint32_t>(CPU_COUNT(&cpus)) : 1;
  const uint64_t worth = bytes / kWorthAThread + 1;
  const uint64_t count = most < worth ? most : worth;
  return count < kMostThreads ? static_cast<uint32_t>(count) : kMostThreads;
}

// A live context of the device; the block's own context may have ended.
uint64_t context_on(int32_t ordinal, uint64_t otherwise) {
  const uint32_t end = streams::table.contexts_high.load();
  for (uint32_t i = 0; i < end; ++i) {
    const streams::ContextPlace& place = streams::table.contexts[i];
    const uint64_t context = place.handle.load();
    if (context > streams::kFilling && place.ordinal.load() == ordinal) return context;
  }
  return otherwise;
}

// The blocks of job.ordinal, if there are any.
void copy_device() {
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < job.count; ++i) {
    if (!wanted(job.blocks[i])) continue;
    if (bytes == 0) job.context = context_on(job.ordinal, job.blocks[i].context);
    bytes += job.blocks[i].span;
  }
  if (bytes == 0) return;
  job.block = 0;
  job.offset = 0;
  for (uint32_t i = 1; i < threads_for(bytes); ++i) {
    job.helpers.fetch_add(1);
    if (!start_guest_thread(helper_main)) job.helpers.fetch_sub(1);
  }
  copy_pieces();
  for (uint32_t left = 0; (left = job.helpers.load()) != 0;) {
    sys::futex_wait(&job.helpers, left, kLookNs, sys::FutexScope::kPrivate);
  }
}

}  // namespace

CUresult swap_copy(SwapBlock* blocks, uint32_t count, bool to_host) {
  job.blocks = blocks;
  job.count = count;
  job.to_host = to_host;
  job.failed.store(CUDA_SUCCESS);
  __atomic_store_n(&swap_entry().moved_bytes, 0, __ATOMIC_RELAXED);
  for (uint32_t i = 0; i < process.device_count; ++i) {
    job.ordinal = static_cast<int32_t>(i);
    if (job.failed.load() == CUDA_SUCCESS) copy_device();
  }
  return static_cast<CUresult>(job.failed.load());
}

void swap_stop_copying() {
  stopped.store(true, std::memory_order_release);
}

}  // namespace allot::shim
