// The real kernel as the guest driver sees it: performs operations and reads the complete state
// back in the form of Cpusets::observe(), so that the two can be compared line by line.
//
// What the kernel does behind a caller's back is waited for here, with a bound: a removed group
// counts as gone when the kernel has freed it, a switched-off controller when its state is off
// line.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "model/cpuset.h"
#include "ops.h"
#include "subject.h"

namespace allot::kernel_test {

class GuestKernel {
 public:
  explicit GuestKernel(model::Hierarchy hierarchy);

  model::Machine machine();  // probed once, on the untouched system
  int apply(const Op& op, const model::Cpusets& before);
  // The state in observe()'s lines, for the groups and files that the model has.
  std::vector<std::string> observe(const model::Cpusets& model);
  // Back to the state after boot: no subjects, no groups, all CPUs, default flags.
  void reset();

  Subjects& subjects() { return subjects_; }
  std::string root() const { return root_; }
  model::Mask task_mask(int real, const char* field);
  int write_file(const std::string& path, const std::string& text);
  std::string read_file(const std::string& path);

 private:
  int write_op(const Op& op);
  int hotplug(int cpu, bool up);
  int affinity(int real, const std::string& list);
  void wait_groups(size_t count);
  void drain();
  void reclaim_lost_cpus();
  void remove_below(const std::string& path);
  std::string cached_read(const std::string& group, const std::string& file);
  void forget_files(const std::string& group);
  std::vector<int> ids_in(const std::string& text) const;

  model::Hierarchy hierarchy_;
  std::string root_;
  Subjects subjects_;
  std::map<std::string, int> fds_;
  std::map<int, int> status_fds_;
};

}  // namespace allot::kernel_test
