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

namespace {

constexpr size_t kGap = 2;
constexpr size_t kReadable = 16;

size_t sum_of(const std::vector<size_t>& widths) {
  size_t sum = 0;
  for (const size_t width : widths) sum += width == 0 ? 0 : width + kGap;
  return sum == 0 ? 0 : sum - kGap;
}

}  // namespace

Table::Table(const std::vector<std::string>& titles) {
  for (const std::string& title : titles) columns_.push_back({title, 0, 0});
}

Table::Table(const std::vector<Column>& columns) : columns_(columns) {}

void Table::row(std::vector<std::string> cells) {
  Line line;
  line.cells = std::move(cells);
  lines_.push_back(std::move(line));
}

void Table::colour(size_t column, Colour colour) {
  lines_.back().coloured = column;
  lines_.back().colour = colour;
}

void Table::note(std::string text, size_t indent) {
  Line line;
  line.cells = {std::move(text)};
  line.is_note = true;
  line.indent = indent;
  lines_.push_back(std::move(line));
}

// Cuts the widest first, down to what its column allows and to `floor`.
void Table::cut_widest(size_t floor, size_t width, std::vector<size_t>* widths) const {
  while (sum_of(*widths) > width) {
    size_t widest = SIZE_MAX;
    for (size_t i = 0; i < columns_.size(); ++i) {
      if (columns_[i].least == 0 || (*widths)[i] <= std::max(columns_[i].least, floor)) continue;
      if (widest == SIZE_MAX || (*widths)[i] > (*widths)[widest]) widest = i;
    }
    if (widest == SIZE_MAX) break;
    --(*widths)[widest];
  }
}

// Of each column; 0 = it is left out.
std::vector<size_t> Table::widths(size_t width) const {
  std::vector<size_t> widths;
  for (const Column& column : columns_) widths.push_back(std::max<size_t>(column.title.size(), 1));
  for (const Line& line : lines_) {
    for (size_t i = 0; !line.is_note && i < line.cells.size() && i < widths.size(); ++i) {
      widths[i] = std::max(widths[i], columns_of(line.cells[i]));
    }
  }
  if (left_out_ < widths.size()) widths[left_out_] = 0;
  // Long names and paths are cut to something readable before a column goes.
  cut_widest(kReadable, width, &widths);
  while (sum_of(widths) > width) {
    size_t goes = SIZE_MAX;
    for (size_t i = 0; i < columns_.size(); ++i) {
      if (widths[i] == 0 || columns_[i].goes == 0) continue;
      if (goes == SIZE_MAX || columns_[i].goes > columns_[goes].goes) goes = i;
    }
    if (goes == SIZE_MAX) break;
    widths[goes] = 0;
  }
  cut_widest(0, width, &widths);
  return widths;
}

std::string Table::text(size_t width) const {
  const std::vector<size_t> widths = this->widths(width);
  const auto row_text = [&](const Line& line, bool header) {
    std::string out;
    size_t blanks = 0;
    for (size_t i = 0; i < line.cells.size() && i < widths.size(); ++i) {
      if (widths[i] == 0) continue;
      const std::string cell = cut(line.cells[i], widths[i]);
      out.append(blanks, ' ');
      out += header               ? coloured(Colour::kBold, cell)
             : i == line.coloured ? coloured(line.colour, cell)
                                  : cell;
      blanks = widths[i] - columns_of(cell) + kGap;
    }
    return out + "\n";
  };
  Line header;
  for (const Column& column : columns_) header.cells.push_back(column.title);
  std::string out = row_text(header, true);
  for (const Line& line : lines_) {
    out += line.is_note ? wrapped(line.cells[0], width, line.indent) + "\n" : row_text(line, false);
  }
  return out;
}

void note(const std::string& line) {
  fmt::print(stderr, "allot: note: {}\n", harmless(line));
}

void print(std::string_view text) {
  errno = 0;
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (!written || std::fflush(stdout) != 0) {
    if (errno == EPIPE) throw BrokenPipe();
    refuse("standard output: cannot write: {}", describe_errno(errno));
  }
}

void print_json(const nlohmann::json& json) {
  // Names are other people's bytes: bytes that are not UTF-8 are replaced and throw nothing.
  print(json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

}  // namespace allot::cli
