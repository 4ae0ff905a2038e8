// The nearest right word for a wrong one: commands, flags, names of slices, values of a flag.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace allot::cli {

// The one of `choices` that `typed` most likely meant: few slips of the fingers away, or begun with
// it; empty where none is near. Any thread; allocates.
std::string nearest(std::string_view typed, const std::vector<std::string>& choices);

// "; did you mean 'ps'?", or nothing where none is near.
std::string did_you_mean(std::string_view typed, const std::vector<std::string>& choices);

}  // namespace allot::cli
