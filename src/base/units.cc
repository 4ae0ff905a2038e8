// Sizes and percentages: see units.h. Written by hand because strtod and its relatives depend on
// the host's locale, and because a value that is only nearly right ("8X", "1e3", "8G8") must be
// refused, never guessed.
#include "base/units.h"

#include "base/text.h"

namespace allot {
namespace {

__extension__ typedef unsigned __int128 Wide;

constexpr uint64_t kLargest = INT64_MAX;
constexpr uint32_t kFractionDigits = 9;  // "0.000000001T" is still exact; more is a typing error

// A decimal number as typed: whole part, and `fraction` / `scale` (scale a power of ten).
struct Decimal {
  uint64_t whole = 0;
  uint64_t fraction = 0;
  uint64_t scale = 1;
};

// Takes digits, or digits '.' digits, from `*at`.
bool read_decimal(const char** at, const char* end, Decimal* out) {
  if (!read_u64(at, end, &out->whole)) return false;
  if (*at == end || **at != '.') return true;
  ++*at;
  uint32_t digits = 0;
  for (; *at < end && **at >= '0' && **at <= '9'; ++*at) {
    if (++digits > kFractionDigits) return false;
    out->fraction = out->fraction * 10 + static_cast<uint64_t>(**at - '0');
    out->scale *= 10;
  }
  return digits > 0;
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

// How far a unit such as "", "B", "G", "GB", "GiB" shifts; -1 if there is no such unit.
int unit_shift(const char* at, const char* end) {
  if (at == end) return 0;
  int shift;
  switch (lower(*at)) {
    case 'b':
      return at + 1 == end ? 0 : -1;
    case 'k':
      shift = 10;
      break;
    case 'm':
      shift = 20;
      break;
    case 'g':
      shift = 30;
      break;
    case 't':
      shift = 40;
      break;
    default:
      return -1;
  }
  ++at;
  if (at < end && lower(*at) == 'i') {
    if (++at == end) return -1;  // "Gi" alone is Kubernetes' spelling: refused, not guessed
  }
  if (at < end && lower(*at) == 'b') ++at;
  return at == end ? shift : -1;
}

}  // namespace

Result<uint64_t> parse_size(std::string_view text) {
  const char* at = text.data();
  const char* end = at + text.size();
  Decimal number;
  if (!read_decimal(&at, end, &number)) return fail(Errc::kBadValue);
  if (at < end && *at == ' ') {
    ++at;
    if (at == end) return fail(Errc::kBadValue);
  }
  int shift = unit_shift(at, end);
  if (shift < 0) return fail(Errc::kBadValue);
  if (shift == 0 && number.scale != 1) return fail(Errc::kBadValue);  // half a byte
  Wide bytes = (static_cast<Wide>(number.whole) << shift) +
               ((static_cast<Wide>(number.fraction) << shift) / number.scale);
  if (bytes > kLargest) return fail(Errc::kBadValue);
  return static_cast<uint64_t>(bytes);
}

Result<uint32_t> parse_percent(std::string_view text) {
  const char* at = text.data();
  const char* end = at + text.size();
  Decimal number;
  if (!read_decimal(&at, end, &number)) return fail(Errc::kBadValue);
  if (at < end && *at == '%') ++at;
  if (at != end || number.whole > 100) return fail(Errc::kBadValue);
  uint64_t tenths = number.fraction * 10;
  if (tenths % number.scale != 0) return fail(Errc::kBadValue);  // finer than a tenth of a percent
  uint64_t permille = number.whole * 10 + tenths / number.scale;
  if (permille == 0 || permille > 1000) return fail(Errc::kBadValue);
  return static_cast<uint32_t>(permille);
}

uint32_t format_size(uint64_t bytes, char* out, uint32_t size) {
  static constexpr std::string_view kUnits[] = {" B", " KiB", " MiB", " GiB", " TiB"};
  uint32_t unit = 0;
  while (unit < 4 && bytes >> (10 * (unit + 1)) != 0) ++unit;
  // Tenths of the unit, rounded to the nearest; 1023.96 MiB rounds up into the next unit.
  auto tenths_of = [&](uint32_t u) {
    Wide one = static_cast<Wide>(1) << (10 * u);
    return static_cast<uint64_t>((static_cast<Wide>(bytes) * 10 + one / 2) / one);
  };
  uint64_t tenths = tenths_of(unit);
  if (unit < 4 && tenths >= 10240) tenths = tenths_of(++unit);
  TextBuf text(out, size);
  text.u64(tenths / 10);
  if (tenths % 10 != 0) text.put('.').u64(tenths % 10);
  text.text(kUnits[unit]);
  return text.length();
}

}  // namespace allot
