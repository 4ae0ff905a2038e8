// Sealed slices: root sets their limits, the owner may lower them, and raise them again to no more
// than what was sealed. The seal is in the slice's file, which the owner's processes can write: it
// binds the command, not a program that writes the file (SECURITY.md).
#pragma once

#include <cstdint>
#include <string>

#include "shm/slice_file.h"

namespace allot::cli {

// Whether the caller is root of the machine: root of a user namespace is whoever made that.
bool is_machine_root();

// Seals the slice at its present limits, or takes the seal away; says so in a line.
std::string seal_slice(shm::Slice& slice, bool on);

// What the seal of a slice allows the calling user: root everything. Each check throws a Failure
// (exit 125). `label` names the GPU of that position.
class Seal {
 public:
  explicit Seal(const shm::Slice& slice);
  void check_memory(const std::string& label, uint32_t position, uint64_t bytes) const;
  void check_time(const std::string& label, uint32_t position, uint32_t share, uint32_t max) const;
  void check_priority(uint32_t priority) const;
  void check_level() const;

 private:
  const AllotSliceFile* file_ = nullptr;  // null: nothing binds
};

}  // namespace allot::cli
