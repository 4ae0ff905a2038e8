// allot run under a terminal and a shell with job control: Ctrl-Z stops the whole job, fg resumes
// it, Ctrl-C reaches the program once. And as the leader of a session, without a shell: when the
// terminal hangs up, everything ends.
#include <poll.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "tests/e2e/machine.h"

namespace allot::e2e {
namespace {

// bash -c SCRIPT with a terminal of its own. The script must not end by itself: the end of a
// session's leader hangs the terminal up, and Linux then throws away what was not read from it yet.
class Terminal {
 public:
  Terminal(const std::string& script, const std::map<std::string, std::string>& environment)
      : Terminal(std::vector<std::string>{"bash", "--norc", "-c", script}, environment) {}

  // Without a shell: the command leads the session, as under ssh -t and in a terminal's own window.
  Terminal(const std::vector<std::string>& argv,
           const std::map<std::string, std::string>& environment) {
    pid_ = forkpty(&master_, nullptr, nullptr, nullptr);
    if (pid_ != 0) return;
    for (const auto& [name, value] : environment) {
      if (value.empty()) {
        unsetenv(name.c_str());
      } else {
        setenv(name.c_str(), value.c_str(), 1);
      }
    }
    std::vector<char*> words;
    for (const std::string& word : argv) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    execvp(words[0], words.data());
    _exit(199);
  }
  ~Terminal() {
    if (master_ >= 0) close(master_);  // hangs up on everybody who is left
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  // Closes the terminal; the leader's status as the shell has it, or -1 where it lives on.
  int hang_up() {
    close(master_);
    master_ = -1;
    int status = -1;
    if (!wait_until([&] { return waitpid(pid_, &status, WNOHANG) == pid_; })) return -1;
    pid_ = -1;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }

  void type(const std::string& keys) {
    EXPECT_EQ(write(master_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
  }

  // Reads until `text` has been on the screen since the last call.
  bool shows(const std::string& text) {
    const double deadline = now() + kPatienceSeconds;
    for (;;) {
      if (const size_t at = screen_.find(text, seen_); at != std::string::npos) {
        seen_ = at + text.size();
        return true;
      }
      const double left = deadline - now();
      pollfd wait = {master_, POLLIN, 0};
      if (left <= 0) return false;
      const int ready = poll(&wait, 1, static_cast<int>(left * 1000) + 1);
      if (ready < 0 && errno == EINTR) continue;
      if (ready <= 0) return false;
      char buffer[4096];
      const ssize_t n = read(master_, buffer, sizeof buffer);
      if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (n <= 0) return false;
      screen_.append(buffer, static_cast<size_t>(n));
    }
  }
  const std::string& screen() const { return screen_; }

 private:
  pid_t pid_ = -1;
  int master_ = -1;
  std::string screen_;
  size_t seen_ = 0;
};

class JobControl : public Machine {};

// Not a zombie either, which nobody may have reaped yet.
bool runs(int pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const size_t name_end = text.rfind(')');
  return name_end != std::string::npos && text.find(" Z", name_end) != name_end + 1;
}

TEST_F(JobControl, CtrlZStopsTheJobFgGoesOnAndCtrlCArrivesOnce) {
  Terminal terminal("set -m; " ALLOT_BINARY " run --sim --name a -- " TERMINAL_PROGRAM
                    "; echo job $?; fg; echo ended $?; read",
                    environment);
  ASSERT_TRUE(terminal.shows("is ready")) << terminal.screen();
  terminal.type("\x1a");
  ASSERT_TRUE(terminal.shows("job 1")) << terminal.screen();  // 128 + the signal that stopped it
  terminal.type("one\n");
  ASSERT_TRUE(terminal.shows("got one")) << terminal.screen();
  terminal.type("\x03");
  ASSERT_TRUE(terminal.shows("interrupted\r\n")) << terminal.screen();
  terminal.type("two\n");
  ASSERT_TRUE(terminal.shows("got two")) << terminal.screen();
  const size_t first = terminal.screen().find("interrupted\r\n");
  EXPECT_EQ(terminal.screen().find("interrupted\r\n", first + 1), std::string::npos)
      << "twice: " << terminal.screen();
  terminal.type("end\n");
  ASSERT_TRUE(terminal.shows("ended 5")) << terminal.screen();
  EXPECT_TRUE(region_files().empty());
}

TEST_F(JobControl, WhenTheTerminalGoesTheProgramGoesAndItsSliceToo) {
  for (const char* script : {"echo here $$; exec sleep 500", "sleep 500 & echo here $!; wait"}) {
    SCOPED_TRACE(script);
    Terminal terminal(
        std::vector<std::string>{ALLOT_BINARY, "run", "--sim", "--name", "a", "--", "sh", "-c", script},
        environment);
    ASSERT_TRUE(terminal.shows("here ")) << terminal.screen();
    ASSERT_TRUE(terminal.shows("\r\n")) << terminal.screen();
    const int sleeper = std::atoi(terminal.screen().c_str() + terminal.screen().rfind("here ") + 5);
    ASSERT_GT(sleeper, 1);
    EXPECT_EQ(terminal.hang_up(), 128 + SIGHUP);
    EXPECT_TRUE(wait_until([&] { return !runs(sleeper); })) << "the program lives on";
    // The kernel may end the program after its launcher.
    EXPECT_TRUE(wait_until([&] { return allot({"ps"}).status == 0 && region_files().empty(); }));
  }
}

}  // namespace
}  // namespace allot::e2e
