// Runs a program to its end or beside the test, with a bound on every wait.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

namespace allot::e2e {

inline constexpr double kPatienceSeconds = 10;

// Seconds, for deadlines.
double now();

// A program with its input and output in our hands. Killed and reaped at the latest by the
// destructor.
class Command {
 public:
  // `changes` are made to the test's own environment: an empty value takes a variable away.
  Command(std::vector<std::string> argv, const std::map<std::string, std::string>& changes);
  ~Command();
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;

  pid_t pid() const { return pid_; }
  void write(const std::string& text);
  void close_input();
  void signal(int number) const;

  // The next whole line of standard output; "(nothing)" when there is none in time.
  std::string line();

  // Waits for the end: the exit status, or 128 + the signal; -1 when it did not end in time (it is
  // killed then). Output that line() has not read is in out() and err() afterwards.
  int wait(double seconds = kPatienceSeconds * 3);
  const std::string& out() const { return out_; }
  const std::string& err() const { return err_; }

 private:
  bool pump(double seconds);
  pid_t pid_ = -1;
  int in_ = -1;
  int out_end_ = -1;
  int err_end_ = -1;
  int status_ = -2;
  std::string out_;
  std::string err_;
};

}  // namespace allot::e2e
