// The seam to /sys and /proc: every path is looked up below a root folder, so a machine that was
// captured (or made up) on disk can replace this one.
//
// Must not happen: a path that leaves the seam. Code of this folder opens nothing by itself, except
// what acts on the running kernel (affinity calls, cgroup writes), which makes sense only here.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cpus/cpu_set.h"

namespace allot::cpus {

class FsRoot {
 public:
  // "" is this machine.
  explicit FsRoot(std::string root = "") : root_(std::move(root)) {}

  bool is_this_machine() const { return root_.empty(); }
  std::string path(std::string_view absolute) const { return root_ + std::string(absolute); }

  // The whole file, or nothing when it cannot be read (errno is kept). Any thread; allocates.
  std::optional<std::string> read(std::string_view absolute) const;
  // The same without blanks at the end.
  std::optional<std::string> read_line(std::string_view absolute) const;
  std::optional<long long> read_number(std::string_view absolute) const;
  // The file as a CPU or node list; nothing when it is missing or is not a list.
  std::optional<CpuSet> read_list(std::string_view absolute) const;
  // Names in a folder, sorted, without "." and ".."; empty when it cannot be read.
  std::vector<std::string> list(std::string_view absolute) const;
  bool exists(std::string_view absolute) const;

 private:
  std::string root_;
};

// The value of the line "key:   value" of a /proc status file; empty when it is not there.
std::string_view status_value(std::string_view text, std::string_view key);

std::string_view trim(std::string_view text);

}  // namespace allot::cpus
