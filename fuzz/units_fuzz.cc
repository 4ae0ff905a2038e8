// Sizes and percentages of any text: no crash, no value out of range, and what is accepted as a
// size means the same when it is written out and read again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/units.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (auto bytes = allot::parse_size(text)) {
    if (*bytes > INT64_MAX || size == 0 || text[0] < '0' || text[0] > '9') std::abort();
    char shown[32];
    const uint32_t length = allot::format_size(*bytes, shown, sizeof(shown));
    if (length == 0 || length >= sizeof(shown)) std::abort();
    auto again = allot::parse_size(shown);  // rounded up, it may be just past the largest
    if (!again && *bytes < (uint64_t{1} << 62)) std::abort();
    if (again && *again < *bytes - *bytes / 8) std::abort();
  }
  if (auto permille = allot::parse_percent(text)) {
    if (*permille == 0 || *permille > 1000) std::abort();
  }
  return 0;
}
