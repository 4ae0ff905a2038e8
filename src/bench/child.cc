// Waits are on the pipe. Only the instant between its closing and the zombie is asked for in steps
// of 1 ms.
#include "bench/child.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "bench/gpu.h"

extern char** environ;

namespace allot::bench {
namespace {

std::vector<std::string> changed_environment(const std::map<std::string, std::string>& changes) {
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
  out.reserve(texts.size() + 1);
  for (const std::string& text : texts) out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

void close_one(int* descriptor) {
  if (*descriptor >= 0) close(*descriptor);
  *descriptor = -1;
}

int milliseconds_left(double until_s) {
  const double left = (until_s - now_s()) * 1e3;
  return left <= 0 ? 0 : static_cast<int>(left) + 1;
}

}  // namespace

Child::Child(const std::vector<std::string>& argv,
             const std::map<std::string, std::string>& changes) {
  int input[2], output[2];
  if (pipe2(input, O_CLOEXEC) != 0) throw Failure(125, std::string("pipe: ") + strerror(errno));
  if (pipe2(output, O_CLOEXEC) != 0) {
    const int why = errno;
    close(input[0]);
    close(input[1]);
    throw Failure(125, std::string("pipe: ") + strerror(why));
  }
  const std::vector<std::string> entries = changed_environment(changes);
  const std::vector<char*> env = pointers(entries), words = pointers(argv);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(127);
    ::signal(SIGPIPE, SIG_DFL);
    dup2(input[0], STDIN_FILENO);
    dup2(output[1], STDOUT_FILENO);
    execve(words[0], words.data(), env.data());
    _exit(127);
  }
  const int why = errno;
  close(input[0]);
  close(output[1]);
  in_ = input[1];
  out_ = output[0];
  if (pid_ > 0) return;
  close_one(&in_);
  close_one(&out_);
  throw Failure(125, std::string("fork: ") + strerror(why));
}

Child::~Child() {
  close_one(&in_);
  // TERM first: an `allot run` passes it on and takes its slice away.
  if (status_ < 0) {
    kill(pid_, SIGTERM);
    if (wait(3) < 0) kill(pid_, SIGKILL);
    wait(3);
  }
  close_one(&out_);
}

bool Child::send(const std::string& text) const {
  return write(in_, text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// Takes what there is; false when the output is closed or the time is over.
bool Child::pump(double until_s) {
  pollfd end = {out_, POLLIN, 0};
  if (out_ < 0) return false;
  const int ready = poll(&end, 1, milliseconds_left(until_s));
  if (ready < 0 && errno == EINTR) return true;
  if (ready <= 0) return false;
  char buffer[65536];
  const ssize_t n = read(out_, buffer, sizeof buffer);
  if (n > 0) {
    pending_.append(buffer, static_cast<size_t>(n));
  } else if (n == 0 || errno != EINTR) {
    close_one(&out_);
    return false;
  }
  return true;
}

std::optional<std::string> Child::line(double seconds) {
  const double until_s = now_s() + seconds;
  for (size_t searched = 0;;) {
    if (const size_t end = pending_.find('\n', searched); end != std::string::npos) {
      std::string first = pending_.substr(0, end);
      pending_.erase(0, end + 1);
      return first;
    }
    searched = pending_.size();
    if (!pump(until_s)) return std::nullopt;
  }
}

std::string Child::rest(double seconds) {
  const double until_s = now_s() + seconds;
  while (pump(until_s)) {
  }
  std::string all;
  all.swap(pending_);
  return all;
}

int Child::ended() {
  int status = 0;
  if (status_ < 0 && waitpid(pid_, &status, WNOHANG) == pid_)
    status_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return status_;
}

void Child::signal(int number) const {
  if (status_ < 0) kill(pid_, number);
}

int Child::wait(double seconds) {
  const double until_s = now_s() + seconds;
  while (pump(until_s)) {
  }
  while (ended() < 0 && milliseconds_left(until_s) > 0) poll(nullptr, 0, 1);
  return status_;
}

}  // namespace allot::bench
