// Waits are on the pipe, which closes when the child ends; only the last instant, between the
// closing and the zombie, is asked for in steps of a millisecond.
#include "cli/worker.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>

#include "cli/failure.h"

namespace allot::cli {
namespace {

using Clock = std::chrono::steady_clock;

Clock::time_point after(double seconds) {
  return Clock::now() +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

int milliseconds_until(Clock::time_point deadline) {
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return left < 0 ? 0 : static_cast<int>(left);
}

}  // namespace

Worker::Worker(const std::vector<std::string>& argv) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) refuse("pipe: {}", describe_errno(errno));
  std::vector<char*> words;
  words.reserve(argv.size() + 1);
  for (const std::string& word : argv) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  pid_ = fork();
  if (pid_ < 0) refuse("fork: {}; try again", describe_errno(errno));
  if (pid_ == 0) {
    dup2(ends[1], STDOUT_FILENO);
    execv(words[0], words.data());
    _exit(kExitNotFound);
  }
  close(ends[1]);
  output_ = ends[0];
}

Worker::~Worker() {
  if (status_ < 0) {
    // TERM, not KILL: a worker is an `allot run`, which passes it on and then takes its slice away.
    signal(SIGTERM);
    if (wait(2) < 0) signal(SIGKILL);
    wait(2);
  }
  close(output_);
}

std::optional<std::string> Worker::line(double seconds) {
  const Clock::time_point deadline = after(seconds);
  for (;;) {
    if (const size_t end = pending_.find('\n'); end != std::string::npos) {
      std::string first = pending_.substr(0, end);
      pending_.erase(0, end + 1);
      return first;
    }
    pollfd wait = {output_, POLLIN, 0};
    const int ready = poll(&wait, 1, milliseconds_until(deadline));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return std::nullopt;
    char buffer[4096];
    const ssize_t n = read(output_, buffer, sizeof buffer);
    if (n <= 0) return std::nullopt;
    pending_.append(buffer, static_cast<size_t>(n));
  }
}

void Worker::signal(int number) const {
  if (pid_ > 0 && status_ < 0) kill(pid_, number);
}

int Worker::wait(double seconds) {
  if (status_ >= 0) return status_;
  const Clock::time_point deadline = after(seconds);
  // The pipe's end says that the child, and whoever it gave the pipe to, is gone.
  while (line(milliseconds_until(deadline) / 1000.0)) {
  }
  int status = 0;
  for (;;) {
    const pid_t pid = waitpid(pid_, &status, WNOHANG);
    if (pid == pid_) break;
    if (pid < 0 && errno != EINTR) return -1;
    if (milliseconds_until(deadline) == 0) return -1;
    poll(nullptr, 0, 1);
  }
  status_ = WIFSIGNALED(status) ? kExitSignalBase + WTERMSIG(status) : WEXITSTATUS(status);
  return status_;
}

}  // namespace allot::cli
