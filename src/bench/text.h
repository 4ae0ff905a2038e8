// Results as people read them, and how they get to standard output.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace allot::bench {

// A line a figure, each with its unit: what a key of the JSON says by its ending (_us, _bytes, ...)
// stands behind the number instead. Any thread; allocates.
std::string result_text(const nlohmann::ordered_json& result);

// Writes to standard output; throws a Failure (exit 125) where that cannot be done.
void write_out(const std::string& text);

// `text` in one line without control bytes: what was typed may hold anything.
std::string plain_line(const std::string& text);

}  // namespace allot::bench
