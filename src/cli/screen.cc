// See screen.h. What must not happen here: a byte of others that moves the reader's cursor, or a
// line that wraps where it was to fit.
#include "cli/screen.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>

namespace allot::cli {
namespace {

constexpr size_t kUsualWidth = 80;
constexpr size_t kLeastWidth = 20;
constexpr size_t kShownColumns = 60;
constexpr std::string_view kMissing = "...";

// One character at the beginning of `text`: its number and its bytes; 0 bytes where it is no UTF-8.
struct Character {
  uint32_t number = 0;
  size_t bytes = 0;
};

Character first_of(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const size_t bytes = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < bytes) return {};
  uint32_t number = lead & (0xffu >> (bytes + 1));
  for (size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {};
    number = number << 6 | (byte(i) & 0x3fu);
  }
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  if (number < kLeast[bytes] || number > 0x10ffff || (number >= 0xd800 && number < 0xe000))
    return {};
  return {number, bytes};
}

bool within(uint32_t number, uint32_t from, uint32_t to) {
  return number >= from && number <= to;
}

// Controls, marks of direction, separators of lines, invisible ones, private and tag characters.
bool harms(uint32_t number) {
  return number < 0x20 || within(number, 0x7f, 0x9f) || number == 0xad || number == 0x61c ||
         within(number, 0x200b, 0x200f) || within(number, 0x2028, 0x202e) ||
         within(number, 0x2060, 0x206f) || within(number, 0xe000, 0xf8ff) || number == 0xfeff ||
         within(number, 0xfff0, 0xfffb) || number >= 0xe0000;
}

size_t columns_of(uint32_t number) {
  if (within(number, 0x300, 0x36f) || within(number, 0x20d0, 0x20ff) ||
      within(number, 0xfe00, 0xfe0f)) {
    return 0;
  }
  const bool wide = within(number, 0x1100, 0x115f) || within(number, 0x2e80, 0xa4cf) ||
                    within(number, 0xac00, 0xd7a3) || within(number, 0xf900, 0xfaff) ||
                    within(number, 0xfe30, 0xfe6f) || within(number, 0xff00, 0xff60) ||
                    within(number, 0xffe0, 0xffe6) || within(number, 0x1f300, 0x1faff) ||
                    within(number, 0x20000, 0x3fffd);
  return wide ? 2 : 1;
}

size_t columns_in(const char* text) {
  char* end = nullptr;
  if (text == nullptr || *text < '1' || *text > '9') return 0;
  const unsigned long number = std::strtoul(text, &end, 10);
  return *end == '\0' && number <= 100000 ? number : 0;
}

// The bytes of `text` that fit into `columns`.
size_t fitting(std::string_view text, size_t columns) {
  size_t at = 0;
  size_t used = 0;
  while (at < text.size()) {
    const Character c = first_of(text.substr(at));
    const size_t width = c.bytes == 0 ? 1 : columns_of(c.number);
    if (used + width > columns) break;
    used += width;
    at += std::max<size_t>(c.bytes, 1);
  }
  return at;
}

}  // namespace

size_t screen_width() {
  size_t width = columns_in(std::getenv("COLUMNS"));
  winsize size = {};
  if (width == 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) width = size.ws_col;
  return std::max(width == 0 ? kUsualWidth : width, kLeastWidth);
}

bool has_width() {
  return columns_in(std::getenv("COLUMNS")) != 0 || isatty(STDOUT_FILENO) == 1;
}

bool shows_colour(int descriptor) {
  const char* refused = std::getenv("NO_COLOR");
  const char* terminal = std::getenv("TERM");
  if (refused != nullptr && *refused != '\0') return false;
  if (terminal == nullptr || *terminal == '\0' || std::string_view(terminal) == "dumb")
    return false;
  return isatty(descriptor) == 1;
}

std::string coloured(Colour colour, const std::string& text) {
  static const bool shows = shows_colour(STDOUT_FILENO);
  if (!shows || colour == Colour::kPlain) return text;
  constexpr int kCodes[] = {0, 1, 31, 32, 33, 34, 35};
  return fmt::format("\x1b[{}m{}\x1b[0m", kCodes[static_cast<size_t>(colour)], text);
}

std::string harmless(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const Character c = first_of(text.substr(at));
    if (c.bytes == 0) {
      out += fmt::format("\\x{:02x}", static_cast<uint8_t>(text[at]));
    } else if (c.number == '\n') {
      out += "\\n";
    } else if (c.number == '\t') {
      out += "\\t";
    } else if (harms(c.number)) {
      out += c.number < 0x100 ? fmt::format("\\x{:02x}", c.number)
                              : fmt::format("\\u{:04x}", c.number);
    } else {
      out += text.substr(at, c.bytes);
    }
    at += std::max<size_t>(c.bytes, 1);
  }
  return out;
}

std::string shown(std::string_view text) {
  return cut(harmless(text.substr(0, 4 * kShownColumns)), kShownColumns);
}

size_t columns_of(std::string_view text) {
  size_t columns = 0;
  for (size_t at = 0; at < text.size();) {
    const Character c = first_of(text.substr(at));
    columns += c.bytes == 0 ? 1 : columns_of(c.number);
    at += std::max<size_t>(c.bytes, 1);
  }
  return columns;
}

std::string cut(const std::string& text, size_t columns) {
  if (columns_of(text) <= columns) return text;
  if (columns <= kMissing.size()) return text.substr(0, fitting(text, columns));
  return text.substr(0, fitting(text, columns - kMissing.size())) + std::string(kMissing);
}

std::string wrapped(std::string_view text, size_t columns, size_t indent) {
  if (columns_of(text) <= columns) return std::string(text);
  std::string out;
  size_t used = 0;
  bool first = true;
  size_t at = 0;
  while (at < text.size()) {
    size_t end = text.find(' ', at);
    if (end == at && !first) {
      ++at;
      continue;
    }
    // Blanks at the beginning of the text are kept: they are its indentation.
    if (first) end = text.find(' ', std::min(text.find_first_not_of(' ', at), text.size()));
    end = std::min(end, text.size());
    const std::string_view word = text.substr(at, end - at);
    const size_t width = columns_of(word);
    if (!first && used + 1 + width > columns) {
      out += "\n" + std::string(indent, ' ');
      used = indent;
    } else if (!first) {
      out += ' ';
      ++used;
    }
    out += word;
    used += width;
    first = false;
    at = end + 1;
  }
  return out;
}

}  // namespace allot::cli
