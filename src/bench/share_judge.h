// What allot promises each slice of `bench share`, as numbers to be held against what came out.
// Pure.
//
//   share      a slice that works makes at least that part of the progress that it makes alone
//   ceiling    its work takes at most that part of the GPU's time; who uses less is not touched
//   first      small requests of a slice that needs less than its share are served at once
//   stalls     a program that waits for short operations is stopped for (1 - share) of 20 ms
//   lent       whoever is alone on the GPU has all of it
//
// docs/gpu-time.md makes these promises; bench/results/ says where a card keeps them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/share_load.h"
#include "bench/share_spec.h"

namespace allot::bench {

// What a slice had in a phase.
struct Had {
  LoadSpec load;
  Grant grant;
  std::string priority;   // empty = normal
  double latency_ms = 0;  // SliceSpec's
  Calibration alone;
  double progress = 0;   // of what it does alone
  double gpu_time = 0;   // of the time
  bool works = true;     // has work in all of the phase
  nlohmann::json waits;  // wait_figures(); null for none
};

struct Promise {
  std::string what;  // "progress %", "GPU time %", "wait p50 ms", "wait p99 ms"
  double value = 0;
  double limit = 0;
  bool at_least = false;  // else at most
  bool kept() const { return at_least ? value >= limit : value <= limit; }
};

// What is promised to slice `which` of those that share a GPU, with what came out. `points`: by how
// many percentage points progress and GPU time may miss. Empty where nothing is promised: no share
// and no ceiling.
std::vector<Promise> promises(const std::vector<Had>& all, size_t which, double points);

// {"what", "value", "limit", "kind", "kept"} each.
nlohmann::ordered_json promises_json(const std::vector<Promise>& promises);

}  // namespace allot::bench
