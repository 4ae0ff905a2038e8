// One loop over sigwaitinfo, with no handler: nothing runs at an unexpected moment.
#include "cli/launch/supervise.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "cli/failure.h"

namespace allot::cli {
namespace {

// Not passed on: what an instruction of our own causes, what the kernel does not let anybody catch,
// what it sends for our own resources and our own reads and writes.
constexpr std::array kOurOwn = {SIGSEGV, SIGBUS,  SIGFPE,  SIGILL,  SIGTRAP, SIGSYS, SIGKILL,
                                SIGSTOP, SIGXCPU, SIGXFSZ, SIGPIPE, SIGTTIN, SIGTTOU};

constexpr int kHookRefused = -1;  // in place of an errno

sigset_t waited_for() {
  sigset_t set;
  sigfillset(&set);
  for (const int number : kOurOwn) sigdelset(&set, number);
  return set;
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> out;
  out.reserve(texts.size() + 1);
  for (const std::string& text : texts) out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

// Executes the program by env(1)'s rules: the shell runs a file that the kernel does not recognise.
// Returns the errno of the failure. Runs between fork and exec, so it allocates nothing itself.
int execute(const char* file, char* const* argv, char* const* shell_argv, char* const* env,
            int inherits) {
  if (inherits >= 0) fcntl(inherits, F_SETFD, 0);
  execve(file, argv, env);
  if (errno == ENOEXEC) {
    execve("/bin/sh", shell_argv, env);
    errno = ENOEXEC;
  }
  return errno;
}

struct ExecPlan {
  explicit ExecPlan(const Program& program)
      : inherits(program.inherits),
        shell_words({"sh", program.file}),
        argv(pointers(program.argv)),
        env(pointers(program.env)) {
    shell_words.insert(shell_words.end(), program.argv.begin() + 1, program.argv.end());
    shell_argv = pointers(shell_words);
  }
  int inherits;
  std::vector<std::string> shell_words;
  std::vector<char*> argv;
  std::vector<char*> env;
  std::vector<char*> shell_argv;
};

[[noreturn]] void not_started(const Program& program, int why) {
  const bool missing = why == ENOENT || why == ENOTDIR;
  const bool denied = why == EACCES || why == EPERM || why == ENOEXEC;
  throw Failure(missing  ? kExitNotFound
                : denied ? kExitNotExecutable
                         : kExitRefused,
                fmt::format("{}: cannot be executed: {}{}", program.argv[0], describe_errno(why),
                            missing ? " (the file, or the interpreter it names)" : ""));
}

// Reads the child's exec error from a pipe that a successful exec closes. 0 = the program runs.
int exec_failure(int pipe_end) {
  int why = 0;
  ssize_t n;
  do {
    n = read(pipe_end, &why, sizeof why);
  } while (n < 0 && errno == EINTR);
  return n == sizeof why ? why : 0;
}

// What the kernel sends goes to the whole group, the program included; but a terminal that hangs up
// tells the leader of its session alone, and whoever runs as that (ssh -t, a terminal's own
// command) is waited for by nobody else.
bool was_for_us_alone(int number, const siginfo_t& info) {
  return info.si_code != SI_KERNEL || (number == SIGHUP && getsid(0) == getpid());
}

void pass_on(pid_t child, int number, const siginfo_t& info) {
  if (info.si_code == SI_QUEUE) {
    sigqueue(child, number, info.si_value);
  } else {
    kill(child, number);
  }
}

bool has_terminal() {
  const int terminal = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (terminal >= 0) close(terminal);
  return terminal >= 0;
}

// Reaps the child's changes of state. True when it has ended; then *status is set. Processes that
// were left to us (as process 1 of a container, or a subreaper) are reaped too, but none that
// another thread of ours has started.
bool reap(pid_t child, int* status) {
  for (;;) {
    const pid_t pid = waitpid(-1, status, WUNTRACED | WNOHANG | __WNOTHREAD);
    if (pid < 0 && errno == EINTR) continue;
    if (pid < 0) refuse("waitpid: {}", describe_errno(errno));
    if (pid == 0) return false;
    if (pid != child) continue;
    if (!WIFSTOPPED(*status)) return true;
    // A shell with job control waits for us, not for the child, so we stop as well. By SIGSTOP,
    // because the gentler signals are blocked here. We continue from here when the shell continues
    // us. Without a terminal the process that stopped the child also continues it, and we must be
    // awake to see it end.
    if (!has_terminal()) continue;
    raise(SIGSTOP);
    kill(child, SIGCONT);
  }
}

int wait_for(pid_t child, const SignalTaker& taker) {
  const sigset_t set = waited_for();
  int status = 0;
  while (!reap(child, &status)) {
    siginfo_t info = {};
    const int number = sigwaitinfo(&set, &info);
    if (number < 0 || number == SIGCHLD || (taker && taker(number))) continue;
    // SIGCONT has already continued us, and may be all the child is waiting for.
    if (number == SIGCONT || was_for_us_alone(number, info)) pass_on(child, number, info);
  }
  return WIFSIGNALED(status) ? kExitSignalBase + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace

SignalGuard::SignalGuard() {
  const sigset_t set = waited_for();
  sigprocmask(SIG_BLOCK, &set, &old_mask_);
  // Some parents leave SIGCHLD ignored; then the kernel would discard the exit status.
  struct sigaction usual = {};
  usual.sa_handler = SIG_DFL;
  sigaction(SIGCHLD, &usual, &old_child_action_);
}

SignalGuard::~SignalGuard() {
  // A signal that came while the program ended was for the program. Unblocked, it would kill us
  // instead, and a Ctrl-C just before the end would turn the program's exit status into 130.
  const sigset_t set = waited_for();
  constexpr timespec kAtOnce = {0, 0};
  int number;
  do {
    number = sigtimedwait(&set, nullptr, &kAtOnce);
  } while (number > 0 || (number < 0 && errno == EINTR));
  restore();
}

void SignalGuard::restore() const {
  sigaction(SIGCHLD, &old_child_action_, nullptr);
  sigprocmask(SIG_SETMASK, &old_mask_, nullptr);
}

int supervise(const Program& program, const SignalGuard& guard, StartHook* hook,
              const SignalTaker& taker) {
  const ExecPlan plan(program);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0)
    refuse("pipe: {}; allow this shell more open files (ulimit -n)", describe_errno(errno));
  const pid_t child = hook != nullptr ? hook->start() : fork();
  if (child < 0) {
    const int why = errno;
    close(ends[0]);
    close(ends[1]);
    refuse("fork: {}; fewer processes, or a higher limit (ulimit -u), would help",
           describe_errno(why));
  }
  if (child == 0) {
    guard.restore();
    const int why = hook != nullptr && !hook->enter()
                        ? kHookRefused
                        : execute(program.file.c_str(), plan.argv.data(), plan.shell_argv.data(),
                                  plan.env.data(), plan.inherits);
    const ssize_t ignored = write(ends[1], &why, sizeof why);
    _exit(ignored == sizeof why ? kExitRefused : kExitNotFound);
  }
  close(ends[1]);
  if (hook != nullptr) hook->started(child);
  const int why = exec_failure(ends[0]);
  close(ends[0]);
  if (why != 0) {
    while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
    }
    if (why == kHookRefused) refuse("{}", hook->refusal());
    not_started(program, why);
  }
  if (hook != nullptr) hook->say();
  return wait_for(child, taker);
}

void become(const Program& program, const SignalGuard& guard, StartHook* hook) {
  const ExecPlan plan(program);
  if (hook != nullptr) {
    hook->started(getpid());
    if (!hook->enter()) refuse("{}", hook->refusal());
    hook->say();
  }
  guard.restore();
  not_started(program, execute(program.file.c_str(), plan.argv.data(), plan.shell_argv.data(),
                               plan.env.data(), plan.inherits));
}

}  // namespace allot::cli
