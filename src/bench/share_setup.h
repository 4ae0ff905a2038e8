// Where the programs of `bench share` are and how they are started.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "bench/share.h"
#include "bench/share_load.h"
#include "bench/share_spec.h"

namespace allot::bench {

using Words = std::vector<std::string>;
using Changes = std::map<std::string, std::string>;

class ShareSetup {
 public:
  // Failure 125 when this program does not find itself, or `allot` beside itself where it is
  // needed.
  explicit ShareSetup(const ShareOptions& options);

  // A process without a slice, on the bare driver or the software GPU.
  Words worker(const Words& arguments) const;
  const Changes& bare() const { return bare_; }

  // A slice: in a slice or, with --no-allot, bare. `gpu`: the UUID of the one GPU that the slice is
  // of; empty for all.
  Words slice(size_t index, const SliceSpec& spec, double iters_per_us,
              const std::string& gpu) const;
  const Changes& slice_environment() const { return options_.allot ? in_slice_ : bare_; }
  std::string slice_name(size_t index) const;

  // `allot set` for what differs.
  Words set(size_t index, const Grant& before, const Grant& after) const;
  Words ps() const { return {allot_, "ps", "--json"}; }

 private:
  const ShareOptions& options_;
  std::string allot_;
  Words self_;
  Changes bare_, in_slice_;
};

// Calibrations of all loads in `slices`, from the file where it has them. Each one that is missing
// is measured now, one after the other, and written to the file.
std::vector<Calibration> calibrate_all(const ShareSetup& setup, const ShareOptions& options,
                                       const std::vector<SliceSpec>& slices,
                                       nlohmann::ordered_json* about);

}  // namespace allot::bench
