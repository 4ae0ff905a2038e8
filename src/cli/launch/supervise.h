// Runs one program as a child and behaves like it: signals, job control and exit status.
//
// The child stays in our process group, so the terminal's foreground group is right by itself, and
// the kernel delivers the terminal's signals (Ctrl-C, Ctrl-\, Ctrl-Z, a hang-up, a new size) to the
// child. We pass on a signal that somebody sends to us alone, but not one that the kernel sent to
// the whole group, or the child would get it twice; a hang-up that reaches us as the leader of a
// session was sent to nobody else, so we pass it on. When the child stops, we stop; when we are
// continued, we continue the child. As process 1 of a container we also reap what is left to us.
#pragma once

#include <sys/types.h>

#include <csignal>
#include <functional>
#include <string>
#include <vector>

namespace allot::cli {

struct Program {
  std::string file;               // what is executed
  std::vector<std::string> argv;  // argv[0] as the user wrote it
  std::vector<std::string> env;
  int inherits = -1;  // a descriptor that it gets, though it is close-on-exec here
};

// Blocks the signals that supervise() passes on (all that can be), from before the slice is made
// until it is removed: a signal in between waits, so no slice is left behind. One at a time, main
// thread. The destructor takes the signals that still wait and restores the old mask and the old
// SIGCHLD action.
class SignalGuard {
 public:
  SignalGuard();
  ~SignalGuard();
  SignalGuard(const SignalGuard&) = delete;
  SignalGuard& operator=(const SignalGuard&) = delete;
  void restore() const;  // in a child before exec: the old mask and action

 private:
  sigset_t old_mask_;
  struct sigaction old_child_action_;
};

// What else a run does around the start of its program, such as moving it onto its CPUs.
class StartHook {
 public:
  virtual ~StartHook() = default;
  virtual pid_t start() = 0;  // as fork(2)
  // In the new process, before exec: nothing here may allocate. False: the program must not run.
  virtual bool enter() = 0;
  virtual std::string refusal() const = 0;  // why enter() was false, as a line
  virtual void started(pid_t program) = 0;  // `program` is about to run, or runs
  virtual void say() const = 0;             // tells the user what enter() achieved
};

// Sees a signal before it is passed on; true: it was not for the program.
using SignalTaker = std::function<bool(int)>;

// Starts `program`, waits for its end, returns its exit status, or 128 + the signal that killed it.
// Throws a Failure when it could not be started: 127 not found, 126 not executable, 125 otherwise.
// The caller must hold the guard. Blocks as long as the program runs. `hook` may be null.
int supervise(const Program& program, const SignalGuard& guard, StartHook* hook = nullptr,
              const SignalTaker& taker = nullptr);

// Becomes `program` (same process). Returns only by throwing, as supervise() does.
[[noreturn]] void become(const Program& program, const SignalGuard& guard,
                         StartHook* hook = nullptr);

}  // namespace allot::cli
