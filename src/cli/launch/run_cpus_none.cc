// The CPU half of `allot run` in a build without src/cpus: there is none.
#include "cli/launch/run_cpus.h"

namespace allot::cli {

void RunCpus::add_flags(CLI::App&) {}

bool RunCpus::wanted() const {
  return false;
}

bool RunCpus::only(const CLI::App&) const {
  return false;
}

std::unique_ptr<StartHook> RunCpus::place(const std::string&, int, size_t) const {
  return nullptr;
}

}  // namespace allot::cli
