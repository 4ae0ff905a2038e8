// printf that appends to a string: the report and the chart are built of it.
#pragma once

#include <string>

namespace allot::model {

// Appends the whole text, however long it is. Any thread; allocates.
[[gnu::format(printf, 2, 3)]] void print_to(std::string* out, const char* format, ...);

}  // namespace allot::model
