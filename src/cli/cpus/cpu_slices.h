// The slices of CPUs that are in the region's folder, as listings show them.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
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

// The processes in the slices of CPUs called `name`, and the commands that wait for them; nothing
// when there is no such slice. A slice without a group is its program and what that has started.
struct CpuMembers {
  std::set<uint32_t> members, launchers;
};
std::optional<CpuMembers> read_cpu_members(const std::string& folder, const std::string& name);

// For commands that are about GPUs: refuses (125) when `name` is a slice of CPUs alone.
#ifdef ALLOT_HAVE_CPUS
void refuse_cpus_alone(const std::string& command, const std::string& name);
#else
inline void refuse_cpus_alone(const std::string&, const std::string&) {}
#endif

}  // namespace allot::cli
