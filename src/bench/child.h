// A process of ours with its input and output in our hands, ended at the latest by the destructor.
//
// Its standard error is ours. It gets SIGTERM when we die, so that a killed measurement leaves no
// load on the GPU.
#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace allot::bench {

class Child {
 public:
  // `changes` are made to our environment; an empty value takes a variable away. A program that
  // cannot be started ends with 127. Failure 125: no process or pipe can be made.
  Child(const std::vector<std::string>& argv, const std::map<std::string, std::string>& changes);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // False when it no longer reads.
  bool send(const std::string& text) const;

  // The next whole line; nothing when it closed its output or `seconds` are over.
  std::optional<std::string> line(double seconds);

  // Everything until it closes its output, or until `seconds` are over.
  std::string rest(double seconds);

  // The exit status if it has ended, else -1; does not wait.
  int ended();

  // Nothing when it has ended and was waited for.
  void signal(int number) const;

  // Waits for the end: the exit status, 128 + signal, or -1 when `seconds` are over.
  int wait(double seconds);

 private:
  bool pump(double until_s);
  pid_t pid_ = -1;
  int in_ = -1;
  int out_ = -1;
  int status_ = -1;
  std::string pending_;
};

}  // namespace allot::bench
