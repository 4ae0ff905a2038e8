// The allocation loop and the hold.
//
// Managed memory is the exception among the kinds: a real driver grants more of it than the card
// has, and a program that takes that can stall the whole GPU, so without --limit it stops at what
// was free.
#include "bench/alloc.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "bench/nvml_figure.h"

namespace allot::bench {
namespace {

constexpr uint32_t kFirstValue = 0x5ca1ab1e, kLastValue = 0x0ddba11;

int wake_pipe[2] = {-1, -1};

void on_signal(int) {
  const int saved = errno;
  const char byte = 1;
  [[maybe_unused]] const ssize_t written = write(wake_pipe[1], &byte, 1);
  errno = saved;
}

// Waits `seconds`, or until SIGTERM or SIGINT. A handler and a pipe, not sigwait: the driver's own
// threads may be the ones a signal is delivered to.
void hold(double seconds) {
  if (seconds <= 0 || pipe(wake_pipe) != 0) return;
  struct sigaction action = {}, old_term = {}, old_int = {};
  action.sa_handler = on_signal;
  sigaction(SIGTERM, &action, &old_term);
  sigaction(SIGINT, &action, &old_int);
  const double until = now_s() + seconds;
  for (double left = seconds; left > 0; left = until - now_s()) {
    pollfd wake = {wake_pipe[0], POLLIN, 0};
    if (poll(&wake, 1, static_cast<int>(std::min(left, 1e6) * 1e3) + 1) > 0) break;
  }
  sigaction(SIGTERM, &old_term, nullptr);
  sigaction(SIGINT, &old_int, nullptr);
  close(wake_pipe[0]);
  close(wake_pipe[1]);
}

nlohmann::ordered_json memory_json(const Gpu::Memory& memory) {
  return {{"free", memory.free_bytes}, {"total", memory.total_bytes}};
}

}  // namespace

void run_alloc(const AllocOptions& options,
               const std::function<void(const nlohmann::ordered_json&)>& report) {
  const Gpu gpu(options.gpu);
  const BlockMaker maker(gpu, options.kind, options.step_bytes);
  const Gpu::Memory before = gpu.memory();
  uint64_t limit_bytes = options.limit_bytes;
  if (limit_bytes == 0) {
    limit_bytes = options.kind == BlockKind::kManaged ? before.free_bytes : UINT64_MAX;
  }

  std::vector<Block> blocks;
  nlohmann::ordered_json refused_with, reject_us;  // null until a call was refused
  while ((blocks.size() + 1) * maker.block_bytes() <= limit_bytes) {
    Block block;
    const double begin = now_s();
    const CUresult result = maker.make(&block);
    const double end = now_s();
    if (result != CUDA_SUCCESS) {
      refused_with = result_name(gpu.api(), result);
      reject_us = (end - begin) * 1e6;
      break;
    }
    blocks.push_back(block);
    if (blocks.size() == 1) maker.fill(block, kFirstValue);
  }
  uint64_t mismatches = 0;
  if (blocks.size() > 1) {
    maker.fill(blocks.back(), kLastValue);
    mismatches += maker.mismatches(blocks.back(), kLastValue);
  }
  if (!blocks.empty()) mismatches += maker.mismatches(blocks.front(), kFirstValue);

  nlohmann::ordered_json result;
  result["bench"] = "alloc";
  result["gpu"] = gpu.name();
  result["driver"] = gpu.driver_version();
  result["pid"] = getpid();
  result["granted_bytes"] = blocks.size() * maker.block_bytes();
  result["steps"] = blocks.size();
  result["step_bytes"] = maker.block_bytes();
  result["refused_with"] = refused_with;
  result["reject_us"] = reject_us;
  result["mismatches"] = mismatches;
  result["memory_before"] = memory_json(before);
  result["memory_after"] = memory_json(gpu.memory());
  const std::optional<uint64_t> nvml = nvml_process_bytes(gpu);
  result["nvml_process_bytes"] = nvml ? nlohmann::ordered_json(*nvml) : nullptr;
  report(result);

  hold(options.hold_s);
  for (const Block& block : blocks) maker.free(block);
  gpu.check(gpu.api().context_synchronize(), "cuCtxSynchronize");
}

}  // namespace allot::bench
