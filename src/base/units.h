// Sizes and fractions as users type them. The command line and the shim both use these functions,
// so a value means the same in both.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace allot {

// Bytes of a size such as "8G", "512m", "1.5GiB", "1073741824". Binary multiples (1G = 1 GiB);
// units B, K, M, G, T, each optionally with "B" or "iB", in either case. Errors: kBadValue (empty,
// no digits, unknown unit, negative, above 2^63-1). Any thread, signal-safe, neither allocates nor
// blocks.
Result<uint64_t> parse_size(std::string_view text);

// Thousandths of a percentage such as "30", "30%", "0.5%": 300, 300, 5. Range 0.1 to 100 percent.
// Errors: kBadValue (0, above 100, finer than a tenth of a percent, not a number).
// Any thread, signal-safe, neither allocates nor blocks.
Result<uint32_t> parse_percent(std::string_view text);

// Writes `bytes` as people read it ("8 GiB", "512 MiB", "1.5 GiB", "17 B") into `out`, ending with
// NUL. Returns the length without the NUL; cuts the text when `size` is too small. Any thread,
// signal-safe, neither allocates nor blocks.
uint32_t format_size(uint64_t bytes, char* out, uint32_t size);

}  // namespace allot
