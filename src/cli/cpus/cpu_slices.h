// The slices of CPUs that are in the region's folder, as listings show them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace allot::cli {

struct CpuSliceView {
  std::string name;
  std::string cpus;  // "0-3,8"
  bool exclusive = false;
  std::string group;  // its cpuset group, empty without one
  uint32_t pid = 0;   // the program; the launcher's until that is known; 0 = not known
  uint32_t uid = 0;
  std::string command;
};

// Reads the leases of `folder`; makes nothing there. `problem` says why they could not be read,
// else it stays empty. May wait some seconds for a run that places its CPUs.
std::vector<CpuSliceView> read_cpu_slices(const std::string& folder, std::string* problem);

}  // namespace allot::cli
