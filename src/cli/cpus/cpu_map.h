// The map of `allot cpus show`: packages, memory nodes, caches, cores and threads as they hang
// together, the GPUs beside their nodes, and which slice holds which CPU.
//
// Must not happen: a CPU left out, one drawn twice, or a place drawn that is not known.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "cpus/leases.h"
#include "cpus/topology.h"

namespace allot::cli {

// Cores that share a last-level cache and a memory node, by their lowest CPU.
struct MapDomain {
  std::vector<std::vector<int>> cores;  // each with its threads in order; offline ones are absent
  uint64_t cache_bytes = 0;             // 0 = not reported
};

// What one memory node has in one package.
struct MapNode {
  int node = -1;  // -1 = unknown
  uint64_t memory_bytes = 0;
  std::vector<MapDomain> domains;
  std::vector<int> gpus;  // indices into Topology::gpus
};

struct MapPackage {
  int package = -1;  // -1 = unknown, as is that of a node without CPUs
  std::vector<MapNode> nodes;
};

// What a CPU is to slices. Text shows the mark, SVG the colour of the slice and the mark.
struct CpuState {
  char mark = '.';
  int slice = -1;  // index of the lease that alone holds it
};

class CpuMap {
 public:
  CpuMap(const cpus::Topology& topology, const std::vector<cpus::Lease>& leases);

  // In lines of at most `width` columns (at least 20), with colours where standard output shows
  // them. Any thread; allocates.
  std::string text(size_t width) const;
  // A picture that fits light and dark backgrounds.
  std::string svg() const;

  CpuState state_of(int cpu) const;
  const std::vector<MapPackage>& packages() const { return packages_; }
  // The letter of a slice: A to Z, then 0 to 9; '+' beyond these.
  static char letter(size_t slice);

 private:
  std::string gpu_name(int index) const;
  std::string heading_of(const MapNode& node) const;
  // The marks in use that are no letter, each with its meaning.
  std::vector<std::pair<char, std::string>> legend() const;

  cpus::Topology topology_;
  std::vector<cpus::Lease> leases_;
  std::vector<MapPackage> packages_;
  std::vector<int> lost_gpus_;  // whose place is unknown
};

// "0-7", "0,2..14" for every second one, "0..9" for any other set.
std::string short_list(const std::vector<int>& cpus);

}  // namespace allot::cli
