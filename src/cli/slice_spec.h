// The slice that `allot run` should make, as typed: its form is checked here, and later it is
// checked against the machine.
//
// Every parse_* function throws a Failure with exit 2 that names the flag, the text found and a
// right one. None of them touches the machine. Any thread; they allocate.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "abi/region.h"

namespace allot::cli {

// One `--gpu-mem`: a limit for every GPU, or for the one that `gpu` selects.
struct MemoryLimit {
  std::string gpu;  // index, UUID or its beginning; empty = every GPU
  uint64_t bytes;   // ALLOT_UNLIMITED = "none"
};

struct SliceSpec {
  std::vector<std::string> gpus;    // empty = all
  std::vector<MemoryLimit> memory;  // empty = no limit, only accounting
  uint32_t share_permille = 0;      // 0 = not asked for
  uint32_t max_permille = 0;        // 0 = not asked for
  uint32_t latency_us = 0;          // 0 = not asked for
  AllotPriority priority = ALLOT_PRIORITY_NORMAL;
  AllotLevel level = ALLOT_LEVEL_AUTO;
  bool fail_closed = true;
  bool swap_fast = false;
  // --wait, --evict-idle: the memory must be free, not only within the limit.
  bool free_memory = false;
  bool claims_cgroup = false;  // every process of the user in its cgroup is in the slice
  bool overcommit = false;     // shares may sum to more than the whole

  // True when the spec has a limit that level observe does not enforce.
  bool limits_time() const {
    return share_permille != 0 || max_permille != 0 || priority != ALLOT_PRIORITY_NORMAL;
  }
};

// "8G", "0:8G", "GPU-1a2b:none", and several of them joined by commas.
std::vector<MemoryLimit> parse_gpu_mem(std::string_view flag, std::string_view text);

// Milliseconds from 5 to 200, such as "10" or "7.5", in microseconds; "default" is 0.
uint32_t parse_latency(std::string_view flag, std::string_view text);

// Checks what `--sim=` says of the software GPU: "80G", "2x80G", "80G,24G"; or "default". Throws a
// Failure (exit status 2) that says what it may be.
void check_sim_spec(std::string_view flag, std::string_view text);
// Whether a word could only be such a specification: digits, units, "x" and commas.
bool looks_like_sim_spec(std::string_view text);

// "8G" or "none", in bytes. Refuses 0: a slice without memory is a typing error.
uint64_t parse_limit(std::string_view flag, std::string_view text);

// "0,1", "GPU-1a2b,GPU-3c4d": non-empty parts, none twice.
std::vector<std::string> parse_gpu_list(std::string_view flag, std::string_view text);

// "30", "30%", "0.5%" in thousandths.
uint32_t parse_share(std::string_view flag, std::string_view text);

// The same, or "none" = 0.
uint32_t parse_share_or_none(std::string_view flag, std::string_view text);

AllotPriority parse_priority(std::string_view flag, std::string_view text);
AllotLevel parse_level(std::string_view flag, std::string_view text);
bool parse_swap(std::string_view flag, std::string_view text);  // true = fast
bool parse_fail(std::string_view flag, std::string_view text);  // true = closed

// Throws unless `name` may name a slice (abi/region.h, ALLOT_NAME_BYTES).
void check_name(std::string_view flag, const std::string& name);

// `<program>-<pid>` without characters that a name may not have: the name of a slice without
// --name.
std::string default_name(const std::string& program, int pid);

const char* priority_text(uint32_t priority);
const char* level_text(uint32_t level);

}  // namespace allot::cli
