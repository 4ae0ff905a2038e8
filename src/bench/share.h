// `bench share`: slices with given shares, ceilings and loads on one GPU, and what each of them
// got.
//
// Every slice is a process of its own under `allot run`; all begin and end at the same moments of
// the monotonic clock. Before, each kind of load is calibrated alone on the GPU, in a process
// without a slice.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace allot::bench {

struct ShareOptions {
  std::vector<std::string> slices;  // share_spec.h
  std::vector<std::string> phases;  // changes of grants, each followed by another `seconds`
  double seconds = 10;
  double warm_s = 1;      // before the first phase is measured
  double settle_s = 0.5;  // before each later one
  int gpu = 0;
  std::string sim;          // "default" or a SPEC; empty = the card
  std::string level;        // for `allot run`; empty = its default
  std::string calibration;  // a file that remembers calibrations between calls; empty = none
  bool allot = true;        // false: plain processes, the driver's own timeslices
  bool native = false;      // measure the same loads without allot first, in the same call
  double points = 1;        // by which promises of GPU time may be missed
  bool bins = false;        // add the work of each 10 ms to the result
};

// Fields of the result: bench/README.md. Failure 2 for what makes no sense, 125 where something
// cannot be started, 1 where a slice failed on the way. Blocks for all of it; at most one at a time
// on a GPU.
nlohmann::ordered_json run_share(const ShareOptions& options);

// The result as a table.
std::string share_text(const nlohmann::ordered_json& result);

}  // namespace allot::bench
