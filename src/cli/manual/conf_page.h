// The manual page of the administrator's rules.
#pragma once

#include <string>

namespace allot::cli::manual {

// allot.conf(5) as roff. `version` and `day` stand at its foot.
std::string conf_page(const std::string& version, const std::string& day);

}  // namespace allot::cli::manual
