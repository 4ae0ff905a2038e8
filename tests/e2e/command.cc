// Waits on pipes, never by sleeping; only a child that closed its output before it ended is asked
// for in steps of a millisecond.
#include "tests/e2e/command.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>

extern char** environ;

namespace allot::e2e {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

namespace {

std::vector<std::string> environment(const std::map<std::string, std::string>& changes) {
  std::vector<std::string> entries;
  for (char* const* entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (changes.count(text.substr(0, text.find('='))) == 0) entries.push_back(text);
  }
  for (const auto& [name, value] : changes) {
    if (!value.empty()) entries.push_back(name + "=" + value);
  }
  return entries;
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (const std::string& text : texts) out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

void close_if_open(int* descriptor) {
  if (*descriptor >= 0) close(*descriptor);
  *descriptor = -1;
}

bool take(int* descriptor, std::string* into) {
  char buffer[4096];
  const ssize_t n = read(*descriptor, buffer, sizeof buffer);
  if (n > 0) {
    into->append(buffer, static_cast<size_t>(n));
  } else if (n == 0 || errno != EINTR) {
    close_if_open(descriptor);
  }
  return n > 0;
}

}  // namespace

Command::Command(std::vector<std::string> argv, const std::map<std::string, std::string>& changes) {
  int input[2];
  int output[2];
  int errors[2];
  if (pipe2(input, O_CLOEXEC) != 0 || pipe2(output, O_CLOEXEC) != 0 ||
      pipe2(errors, O_CLOEXEC) != 0) {
    std::perror("pipe2");
    std::abort();
  }
  const std::vector<std::string> entries = environment(changes);
  const std::vector<char*> env = pointers(entries);
  const std::vector<char*> words = pointers(argv);
  pid_ = fork();
  if (pid_ == 0) {
    dup2(input[0], STDIN_FILENO);
    dup2(output[1], STDOUT_FILENO);
    dup2(errors[1], STDERR_FILENO);
    execvpe(words[0], words.data(), env.data());
    _exit(199);
  }
  close(input[0]);
  close(output[1]);
  close(errors[1]);
  in_ = input[1];
  out_end_ = output[0];
  err_end_ = errors[0];
}

Command::~Command() {
  if (status_ == -2) {
    // TERM first: an `allot run` then takes its slice away.
    signal(SIGTERM);
    if (wait(3) < 0) kill(pid_, SIGKILL);
  }
  close_if_open(&in_);
  close_if_open(&out_end_);
  close_if_open(&err_end_);
}

void Command::write(const std::string& text) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(in_, text.data() + done, text.size() - done);
    if (n <= 0) return;
    done += static_cast<size_t>(n);
  }
}

void Command::close_input() {
  close_if_open(&in_);
}

void Command::signal(int number) const {
  if (status_ == -2) kill(pid_, number);
}

// Takes what the program wrote; false when both ends are closed or the time is over.
bool Command::pump(double seconds) {
  pollfd ends[2] = {{out_end_, POLLIN, 0}, {err_end_, POLLIN, 0}};  // negative ones are passed over
  if (out_end_ < 0 && err_end_ < 0) return false;
  const int ready = poll(ends, 2, seconds <= 0 ? 0 : static_cast<int>(seconds * 1000) + 1);
  if (ready < 0) return errno == EINTR;
  if (ends[0].revents != 0) take(&out_end_, &out_);
  if (ends[1].revents != 0) take(&err_end_, &err_);
  return ready > 0;
}

std::string Command::line() {
  const double deadline = now() + kPatienceSeconds;
  for (;;) {
    if (const size_t end = out_.find('\n'); end != std::string::npos) {
      std::string first = out_.substr(0, end);
      out_.erase(0, end + 1);
      return first;
    }
    if (!pump(deadline - now())) return "(nothing)";
  }
}

int Command::wait(double seconds) {
  if (status_ != -2) return status_;
  const double deadline = now() + seconds;
  bool killed = false;
  for (;;) {
    int status = 0;
    const pid_t pid = waitpid(pid_, &status, WNOHANG);
    if (pid == pid_) {
      while (pump(0)) {
      }
      status_ = killed ? -1 : WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
      return status_;
    }
    if (now() > deadline) {
      kill(pid_, SIGKILL);
      killed = true;
    }
    if (!pump(0.02)) poll(nullptr, 0, 1);
  }
}

}  // namespace allot::e2e
