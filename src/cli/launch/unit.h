// `allot run --unit`: the same command again, in a systemd scope of its own.
#pragma once

#include <string>

namespace allot::cli {

// Replaces this process by systemd-run, which makes the scope allot-<name> (of the user's manager;
// for root the machine's) and replaces itself by this very command with --cgroup in place of
// --unit: pid, terminal and environment stay. Throws a Failure (exit 125) when there is no
// systemd-run.
[[noreturn]] void become_unit(const std::string& name);

}  // namespace allot::cli
