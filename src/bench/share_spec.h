// What the slices of `bench share` are: their loads, and what each is granted.
//
// A slice is written as "LOAD:SHARE,KEY=VALUE,...", such as "step:30" or
// "wait:20,max=50,host-us=800". "load=" and "share=" say the same as fields, in any order. A phase
// changes grants while the loads run: one group of fields a slice, divided by '/'.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace allot::bench {

enum class LoadKind {
  kFull,         // kernels, the host waits after every 16th
  kGraph,        // replays of a graph of 20 kernels, the host waits after every 4th
  kLong,         // 50 ms kernels, two in flight
  kStep,         // a decode loop: a graph of 32 small kernels, then a wait
  kWait,         // one kernel, a wait, host work: launch-bound inference, notebooks
  kMixed,        // kernels of 20 us to 20 ms by chance, four in flight
  kLaunchBound,  // kernels that the host cannot launch fast enough: the GPU is busy now and then
  kBursty,       // full for 300 ms, then idle for 200 ms
  kRequest,      // one small kernel and a wait, due every 2.2 ms: latency is what counts
  kIdle,         // a context and nothing else
};

struct LoadSpec {
  LoadKind kind = LoadKind::kFull;
  double kernel_us = 1000;   // device time of one kernel, alone
  unsigned inflight = 16;    // launches between two waits, or in flight
  unsigned kernels = 1;      // of one launch: a graph where above 1
  double period_us = 2200;   // kRequest
  double host_us = 400;      // kWait
  double busy_ms = 300;      // kBursty
  double idle_ms = 200;      // kBursty
  double busy_percent = 55;  // kLaunchBound
  double from_s = 0;         // idle until so long after the start

  // The same text for loads that need the same calibration.
  std::string calibration_key() const;
};

// Tenths of a percent; 0 = none.
struct Grant {
  uint32_t share_permille = 0;
  uint32_t max_permille = 0;
};

struct SliceSpec {
  std::string text;  // as written
  LoadSpec load;
  Grant grant;
  std::string priority;   // empty = normal
  std::string level;      // empty = whatever --level says
  double latency_ms = 0;  // the longest stop that it asks for; 0 = allot's own
};

// Failure 2 with the field, what was found and what would be right.
// Pure; any thread; allocates; does not block.
SliceSpec parse_slice(const std::string& text);

// One Grant a slice. A slice whose group is empty keeps what it had in `before`.
std::vector<Grant> parse_phase(const std::string& text, const std::vector<Grant>& before);

const char* kind_name(LoadKind kind);

// For handing a load to another process, and back.
nlohmann::ordered_json load_json(const LoadSpec& load);
LoadSpec load_from_json(const nlohmann::json& json);

}  // namespace allot::bench
