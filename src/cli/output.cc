// Listings are built as one string and written at once, so that a reader of a pipe never sees half
// a table next to somebody else's lines.
#include "cli/output.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "abi/region.h"
#include "base/units.h"
#include "cli/failure.h"

namespace allot::cli {

std::string size_text(uint64_t bytes) {
  if (bytes == ALLOT_UNLIMITED) return "none";
  char text[32];
  const uint32_t length = format_size(bytes, text, sizeof text);
  return std::string(text, length);
}

std::string harmless(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c < 0x20 || c == 0x7f) c = '?';
  }
  return out;
}

Table::Table(std::vector<std::string> header) {
  row(std::move(header));
}

void Table::row(std::vector<std::string> cells) {
  lines_.push_back({std::move(cells), false});
}

void Table::note(std::string line) {
  lines_.push_back({{std::move(line)}, true});
}

std::string Table::text() const {
  std::vector<size_t> widths;
  for (const Line& line : lines_) {
    if (line.is_note) continue;
    widths.resize(std::max(widths.size(), line.cells.size()));
    for (size_t i = 0; i < line.cells.size(); ++i) {
      widths[i] = std::max(widths[i], line.cells[i].size());
    }
  }
  std::string out;
  for (const Line& line : lines_) {
    for (size_t i = 0; i < line.cells.size(); ++i) {
      out += line.cells[i];
      if (i + 1 < line.cells.size()) out.append(widths[i] - line.cells[i].size() + 2, ' ');
    }
    out += '\n';
  }
  return out;
}

void print(std::string_view text) {
  errno = 0;
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (!written || std::fflush(stdout) != 0) {
    refuse("standard output: cannot write: {}", describe_errno(errno));
  }
}

void print_json(const nlohmann::json& json) {
  // Names are other people's bytes: bytes that are not UTF-8 are replaced and throw nothing.
  print(json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

}  // namespace allot::cli
