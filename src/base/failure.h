// Failure: why a command ends early, as one line and an exit status. For hosted code only, which
// has exceptions; guest code returns a Result.
//
// `allot` and `allot bench` throw it where they find the error; the command's main catches it.
#pragma once

#include <exception>
#include <string>
#include <utility>

namespace allot {

class Failure : public std::exception {
 public:
  // `line` says what was wrong, what was found and what to do. docs/commands.md lists the exit
  // statuses.
  Failure(int exit_status, std::string line) : exit_status_(exit_status), line_(std::move(line)) {}
  int exit_status() const { return exit_status_; }
  const std::string& line() const { return line_; }
  const char* what() const noexcept override { return line_.c_str(); }

 private:
  int exit_status_;
  std::string line_;
};

}  // namespace allot
