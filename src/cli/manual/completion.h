// Completions of the command line for three shells, each a whole file to be installed.
#pragma once

#include <string>

#include "cli/manual/command_table.h"

namespace allot::cli::manual {

std::string bash_completion(const Command& top);
std::string zsh_completion(const Command& top);
std::string fish_completion(const Command& top);

// Lists the names of the slices, in any shell.
inline constexpr const char* kListSlices =
    "allot ps --wide 2>/dev/null | awk 'NF == 0 {exit} NR > 1 && /^[^ ]/ {print $1}'";

}  // namespace allot::cli::manual
