// A command as a manual page, in the man(7) macros that groff and mandoc both know.
#pragma once

#include <string>

#include "cli/manual/command_table.h"

namespace allot::cli::manual {

// `top` is the whole table, for the lists of commands and of other pages. `date` is YYYY-MM-DD.
std::string man_page(const Command& command, const Command& top, const std::string& version,
                     const std::string& date);

}  // namespace allot::cli::manual
