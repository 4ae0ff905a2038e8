// What `allot ps` prints for people.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/region/region_view.h"

namespace allot::cli {

// The CPUs of a slice.
struct CpuPart {
  std::string cpus;
  bool exclusive = false;
  std::string group;
  uint32_t pid = 0;
};

// One slice of the listing.
struct PsRow {
  SliceView slice;
  std::optional<CpuPart> cpus;
  bool only_cpus = false;  // then `slice` has a name, a user and a process, and no more
};

// The listing in lines of at most `width` columns; with the sums of each GPU where `rows` is `all`
// there is.
std::string ps_text(const std::vector<PsRow>& rows, const RegionView& region, bool all,
                    size_t width);

// "job2" before "job10".
bool natural_less(const std::string& a, const std::string& b);

std::string slice_state(const SliceView& slice, size_t gpu);
uint64_t sum_of_kinds(const ByKind& kinds);

// The same slices by what they and their processes have had so far.
std::string counters_text(const std::vector<PsRow>& rows, size_t width);

}  // namespace allot::cli
