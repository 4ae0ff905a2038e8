// Words for what is wrong with the region's folder or a file in it, and what mends that. The cause
// is looked up again by the path: the error of the lower folders says only that it was refused.
#pragma once

#include <string>

#include "base/result.h"

namespace allot::cli {

// "a link to /tmp/x", "a pipe", "a folder"; empty for a regular file and for none.
std::string kind_of_file(const std::string& path);

// What to do about an error while a file in `folder` is made or opened; fits its errno.
std::string advice_for(const Error& error, const std::string& folder);

}  // namespace allot::cli
