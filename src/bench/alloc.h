// `bench alloc`: takes GPU memory step by step until it is refused, says how far it came, holds it.
#pragma once

#include <csignal>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>

#include "bench/blocks.h"

namespace allot::bench {

struct AllocOptions {
  int gpu = 0;
  uint64_t step_bytes = 0;
  uint64_t limit_bytes = 0;  // stop here even if not refused; 0 = no such end
  double hold_s = 0;         // keep the memory this long after the report
  BlockKind kind = BlockKind::kLinear;
};

// Allocates, reports through `report` while everything is still held, then holds and frees.
// Fields: granted_bytes, steps, step_bytes (as asked of the driver), refused_with (null when the
// limit ended it), reject_us (of the refused call), mismatches (32-bit words of the first and last
// block that did not hold what was written: 0), memory_before and memory_after (cuMemGetInfo),
// nvml_process_bytes (null when NVML does not say), pid.
// SIGTERM or SIGINT during the hold ends it at once, with everything freed.
// Failure as in gpu.h. One thread; allocates; blocks for the hold.
void run_alloc(const AllocOptions& options,
               const std::function<void(const nlohmann::ordered_json&)>& report);

}  // namespace allot::bench
