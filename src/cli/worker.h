// A child of ours whose standard output we read line by line: what the demo is made of.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace allot::cli {

// Starts on construction, is killed on destruction if it still runs. One thread.
class Worker {
 public:
  // Throws a Failure (exit 125) when no process can be made.
  explicit Worker(const std::vector<std::string>& argv);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // The next whole line, or nothing when the child ended or `seconds` are over.
  std::optional<std::string> line(double seconds);

  void signal(int number) const;

  // Waits for the end; the exit status, 128 + signal, or -1 when `seconds` are over.
  int wait(double seconds);

 private:
  pid_t pid_ = -1;
  int output_ = -1;
  int status_ = -1;
  std::string pending_;
};

}  // namespace allot::cli
