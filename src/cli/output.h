// How listings look: sizes, columns, and other people's text made harmless.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace allot::cli {

// "8 GiB", "512 MiB"; "none" for ALLOT_UNLIMITED. Any thread; allocates.
std::string size_text(uint64_t bytes);

// `text` with '?' for control characters and bytes that are not ASCII, so that a name which another
// slice wrote cannot move the reader's cursor. Any thread; allocates.
std::string harmless(std::string_view text);

// A listing in columns: a column is as wide as its longest cell; the last one has no fixed width.
class Table {
 public:
  explicit Table(std::vector<std::string> header);
  void row(std::vector<std::string> cells);
  // A line across all columns, below the last row.
  void note(std::string line);
  std::string text() const;

 private:
  struct Line {
    std::vector<std::string> cells;
    bool is_note;
  };
  std::vector<Line> lines_;
};

// Writes `text` to standard output and checks that it arrived: a full disk or a closed pipe ends
// the command with a Failure, not with a silent success.
void print(std::string_view text);
void print_json(const nlohmann::json& json);

}  // namespace allot::cli
