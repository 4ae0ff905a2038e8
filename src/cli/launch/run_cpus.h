// The CPU half of `allot run`: chooses the CPUs before the fork, moves the program onto them before
// exec, says what it achieved, and gives the CPUs back at the end.
//
// What must not happen here: a program starts without the CPUs that the user asked for, and the
// user is not told. The child reports what it read back after entering through a shared page,
// because between fork and exec nothing may allocate.
#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <memory>
#include <string>

#include "cli/launch/supervise.h"

namespace allot::cli {

struct CpuFlags;

// The flags of `run` about CPUs. A build without src/cpus has none, and wanted() is false.
class RunCpus {
 public:
  void add_flags(CLI::App& run);
  bool wanted() const;
  // True when no flag of `run` concerns GPUs: then it does not touch them, and the machine need not
  // have any.
  bool only(const CLI::App& run) const;
  // Chooses the CPUs, near GPU `gpu` of the `gpus` that the driver lists unless the user named one
  // (-1: none). Throws a Failure; nothing is changed then. The hook's destructor gives the CPUs
  // back. Needs a single-threaded caller that holds the SignalGuard, so that no signal comes in
  // between.
  std::unique_ptr<StartHook> place(const std::string& name, int gpu, size_t gpus) const;

 private:
  std::shared_ptr<CpuFlags> flags_;
};

}  // namespace allot::cli
