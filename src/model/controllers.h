// The controllers a v2 hierarchy can hand down, as bits of subtree_control.
//
// cpuset is the one this model is about; the others matter because "domain" controllers forbid
// tasks in inner groups and "threaded" ones do not. Source: the .threaded fields of the kernel's
// subsystems.
#pragma once

#include <array>
#include <string_view>

namespace allot::model {

struct Controller {
  std::string_view name;
  bool threaded;
};

// In the kernel's order, which is the order of cgroup.controllers.
constexpr std::array<Controller, 8> kControllers = {{{"cpuset", true},
                                                     {"cpu", true},
                                                     {"io", false},
                                                     {"memory", false},
                                                     {"hugetlb", false},
                                                     {"pids", true},
                                                     {"rdma", false},
                                                     {"misc", false}}};
constexpr unsigned kCpusetBit = 1;
constexpr unsigned kAllControllers = (1u << kControllers.size()) - 1;

constexpr unsigned domain_controllers() {
  unsigned bits = 0;
  for (size_t i = 0; i < kControllers.size(); ++i) bits |= kControllers[i].threaded ? 0 : 1u << i;
  return bits;
}

}  // namespace allot::model
