// How listings look: sizes, columns, and text of others made harmless.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace allot::cli {

// "8 GiB", "512 MiB"; "none" for ALLOT_UNLIMITED. Any thread; allocates.
std::string size_text(uint64_t bytes);

// `text` with control characters (and bytes that are not ASCII) shown as '?', so that a name written
// by another slice cannot move the reader's cursor. Any thread; allocates.
std::string harmless(std::string_view text);

// A listing in columns: the width of a column is that of its longest cell, the last one runs free.
class Table {
 public:
  explicit Table(std::vector<std::string> header);
  void row(std::vector<std::string> cells);
  // A line across all columns, below the row before it.
  void note(std::string line);
  std::string text() const;

 private:
  struct Line {
    std::vector<std::string> cells;
    bool is_note;
  };
  std::vector<Line> lines_;
};

// Writes `text` to standard output and checks that it got there: a full disk or a closed pipe ends
// the command with a Failure, not with a silent success.
void print(std::string_view text);
void print_json(const nlohmann::json& json);

}  // namespace allot::cli
