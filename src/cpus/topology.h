// What CPUs a machine has and how they hang together: threads in cores, cores in cache domains,
// cache domains in memory nodes and packages, and which of them stand near each GPU.
//
// All of it is read from sysfs below a root folder. hwloc would give the same tree, but Debian's
// static archive of it needs libudev, which has no static form, and a command that must start in
// containers and on bare images should not need either at run time; all that is needed here is a
// dozen files.
//
// Three readings that are easily got wrong, each with a machine in tests/cpus/machines.py:
//  - A GPU whose numa_node is -1 has an unknown place. Its local_cpulist then names all CPUs, which
//    does not mean that all are near.
//  - A cache that spans memory nodes (sub-NUMA clustering) is cut at the nodes: the domain that
//    counts for placement is what shares both.
//  - An offline CPU has no topology folder. It is kept in the list, with nothing known about it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cpus/cpu_set.h"
#include "cpus/failure.h"
#include "cpus/fs_root.h"

namespace allot::cpus {

// -1 in any field is "unknown".
struct Cpu {
  int id = -1;
  bool online = false;
  int package = -1;  // physical_package_id
  int core = -1;     // index into Topology::cores
  int domain = -1;   // index into Topology::domains
  int node = -1;     // memory node number
};

struct Core {
  CpuSet threads;  // online threads only
  int package = -1;
  int domain = -1;
  int node = -1;
};

// The cores that share a last-level cache and a memory node.
struct Domain {
  CpuSet cpus;
  uint64_t cache_bytes = 0;  // 0 = not reported (then the domain is the die or the package)
  int package = -1;
  int node = -1;
};

struct Node {
  int id = -1;
  CpuSet cpus;  // empty for a node of memory alone
  uint64_t memory_bytes = 0;
  bool has_memory = false;
  std::vector<std::pair<int, int>> distance;  // (node, as the firmware says; 10 = itself)
};

struct Gpu {
  std::string bdf;  // as in /sys/bus/pci/devices: "0000:3b:00.0"
  int index = -1;   // order of bus addresses, as CUDA_DEVICE_ORDER=PCI_BUS_ID counts
  int node = -1;
  CpuSet local;  // empty when its place is unknown
};

struct Topology {
  CpuSet possible, present, online, isolated;
  CpuSet allowed;         // CPUs that the reading process may use now
  CpuSet allowed_mems;    // the same for memory nodes
  bool numa = false;      // the kernel has node folders; otherwise everything is one unnamed place
  std::vector<Cpu> cpus;  // by number, present ones; cpus[i].id may be -1 for a hole
  std::vector<Core> cores;
  std::vector<Domain> domains;
  std::vector<Node> nodes;
  std::vector<Gpu> gpus;

  CpuSet offline() const { return present - online; }
  const Node* node(int id) const;
  int distance(int from, int to) const;  // 10 for the same node, 20 when not told
  // The cores and domains cut down to `set`: what remains for planning inside it.
  CpuSet threads_of_cores_touching(const CpuSet& set) const;
};

// Reads the machine below `fs`. A missing file means less is known, not failure.
// Errors: kNotFound (no list of online CPUs: not a sysfs tree).
// Any thread; allocates; some hundred small reads (about 5 ms for 256 CPUs).
Expected<Topology> read_topology(const FsRoot& fs);

// One line for people: "2 packages, 8 domains, 64 cores, 128 CPUs (0-127), 2 nodes, 4 GPUs".
std::string summary(const Topology& topology);

// The CPUs near a GPU that may be used, or why that cannot be said.
// Errors: kNotFound (no such index), kUnsupported (its place is unknown, or none of its CPUs is
// allowed here; the caller then keeps what it has and says so).
Expected<CpuSet> cpus_near_gpu(const Topology& topology, int index);

// The CPUs that this process's cpuset lets it use, which may be more than its inherited affinity.
// Asks the kernel by requesting all CPUs for the calling thread, whose mask is put back at once.
// Live machine only. Errors: kSystem. Any thread; does not block.
Expected<CpuSet> cpus_within_cpuset();

}  // namespace allot::cpus
