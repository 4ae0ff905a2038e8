// The CPU half of `allot run`: places the slice before the fork, puts the program onto it before exec,
// says what was reached, and gives the CPUs back at the end.
//
// Must not happen: a program that starts without the CPUs that were asked for and is not told so. What
// the child reads back after entering travels to the parent through a shared page, because between fork
// and exec nothing may allocate.
#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <memory>
#include <string>

#include "cli/launch/supervise.h"

namespace allot::cli {

struct CpuFlags;

// What `run` was asked for. A build without src/cpus has no such flags, and wanted() is false.
class RunCpus {
 public:
  void add_flags(CLI::App& run);
  bool wanted() const;
  // True when no flag of `run` speaks of GPUs: then they are left alone, and need not be there.
  bool only(const CLI::App& run) const;
  // Places the slice, near GPU `gpu` of the `gpus` that the driver shows unless the user named one
  // (-1: none). Throws a Failure, and then nothing is left changed. The slice is given back with the
  // hook. Needs a single-threaded caller with the SignalGuard held, so that no signal comes in between.
  std::unique_ptr<StartHook> place(const std::string& name, int gpu, size_t gpus) const;

 private:
  std::shared_ptr<CpuFlags> flags_;
};

}  // namespace allot::cli
