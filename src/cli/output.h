// How listings look: sizes, columns, and other people's text made harmless.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "cli/screen.h"

namespace allot::cli {

// "8 GiB", "512 MiB"; "none" for ALLOT_UNLIMITED. Any thread; allocates.
std::string size_text(uint64_t bytes);

// A column of a listing.
struct Column {
  std::string title;
  // Which columns go first where a line does not fit: the highest number. 0 = it stays.
  int goes = 0;
  // How far a column that stays may be cut; 0 = not at all.
  size_t least = 0;
};

// A listing in columns: a column is as wide as its longest cell; the last one has no fixed width.
class Table {
 public:
  explicit Table(const std::vector<std::string>& titles);
  explicit Table(const std::vector<Column>& columns);
  // Cells are plain text; `colour` goes around the one cell that it names by its column.
  void row(std::vector<std::string> cells);
  void colour(size_t column, Colour colour);  // of the last row
  void leave_out(size_t column) { left_out_ = column; }
  // A line across all columns, below the last row. Where it does not fit it is broken at blanks and
  // continues `indent` columns from the left.
  void note(std::string line, size_t indent = 4);
  // Lines of at most `width` columns, as far as the columns that stay allow it.
  std::string text(size_t width = kNoLimit) const;

  static constexpr size_t kNoLimit = SIZE_MAX / 2;

 private:
  struct Line {
    std::vector<std::string> cells;
    bool is_note = false;
    size_t indent = 0;
    size_t coloured = SIZE_MAX;
    Colour colour = Colour::kPlain;
  };
  void cut_widest(size_t floor, size_t width, std::vector<size_t>* widths) const;
  std::vector<size_t> widths(size_t width) const;
  std::vector<Column> columns_;
  std::vector<Line> lines_;
  size_t left_out_ = SIZE_MAX;
};

// One line on standard error: "allot: note: ...".
void note(const std::string& line);

// Writes `text` to standard output and checks that it arrived: a full disk or a closed output ends
// the command with a Failure, not with a silent success; a pipe that nobody reads with BrokenPipe.
void print(std::string_view text);
void print_json(const nlohmann::json& json);

}  // namespace allot::cli
