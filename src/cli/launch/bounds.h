// What the administrator's rules (allot.conf(5), shm/rules.h) let this user have, and what a sealed
// slice lets its owner have.
//
// Each check throws a Failure (exit 125) that names the rule's file and line.
#pragma once

#include <string>
#include <vector>

#include "cli/gpus/gpu_inventory.h"
#include "cli/slice_spec.h"
#include "shm/rules.h"

namespace allot::cli {

class Bounds {
 public:
  // Reads the rules for the calling user; a file that cannot be read or understood is a Failure.
  Bounds();

  // Puts the defaults in where nothing was asked for, then checks shares, ceiling and priority.
  void complete(SliceSpec* spec, bool priority_given) const;

  // The same for memory, of the GPUs that were chosen.
  void complete(std::vector<ChosenGpu>* gpus, bool memory_given) const;

  // Throws a NotNow when this user has as many slices in `folder` as the rules allow.
  void check_count(const std::string& folder, const std::string& except_path) const;

  void check_share(std::string_view flag, uint32_t permille) const;
  void check_max(std::string_view flag, uint32_t permille) const;  // 0 = none
  void check_memory(std::string_view flag, uint64_t bytes) const;  // ALLOT_UNLIMITED = none
  void check_priority(std::string_view flag, uint32_t priority) const;

  const shm::Rules& rules() const { return rules_; }

 private:
  shm::Rules rules_;
};

// A rule's value as allot.conf(5) writes it: "8 GiB", "30%", "none".
std::string rule_text(uint32_t key, uint64_t value);

}  // namespace allot::cli
