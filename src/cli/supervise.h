// Runs one program as a child and stands in for it: signals, job control and exit status.
//
// The child stays in our process group, so the terminal's foreground group is right without our doing
// anything, and what the terminal sends (Ctrl-C, Ctrl-\, Ctrl-Z, a hang-up, a new size) reaches the
// child from the kernel. Signals that somebody sends to us alone are passed on; those the kernel sent
// to the whole group are not, or the child would get them twice. When the child stops, we stop; when
// we are continued, so is the child.
#pragma once

#include <csignal>
#include <string>
#include <vector>

namespace allot::cli {

struct Program {
  std::string file;               // what is executed
  std::vector<std::string> argv;  // argv[0] as the user wrote it
  std::vector<std::string> env;
};

// Blocks the signals that supervise() passes on, from before the slice is made until it is unmade: a
// signal in between waits, so no slice is left behind. One at a time, main thread; the destructor puts
// the former mask and the former SIGCHLD action back.
class SignalGuard {
 public:
  SignalGuard();
  ~SignalGuard();
  SignalGuard(const SignalGuard&) = delete;
  SignalGuard& operator=(const SignalGuard&) = delete;
  void restore() const;  // in a child before exec: as if we had never been there

 private:
  sigset_t old_mask_;
  struct sigaction old_child_action_;
};

// Starts `program`, waits for its end, returns its exit status, or 128 + the signal that killed it.
// Throws a Failure when it could not be started: 127 not found, 126 not executable, 125 else. Needs the
// guard held. Blocks as long as the program runs.
int supervise(const Program& program, const SignalGuard& guard);

// Becomes `program` (same process). Returns only by throwing, as supervise() does.
[[noreturn]] void become(const Program& program, const SignalGuard& guard);

}  // namespace allot::cli
