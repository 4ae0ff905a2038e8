// The program that terminal_test.cc runs in a slice: says what it was typed, and each Ctrl-C at
// once.
//
// The handler itself writes. A program that looks at a flag (a shell's trap) misses a signal that
// comes between its last look and its read(), and says nothing until the next line is typed.
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <string>

namespace {

void say(const char* text) {
  const ssize_t ignored = write(STDOUT_FILENO, text, strlen(text));
  static_cast<void>(ignored);
}

void interrupted(int) {
  say("interrupted\n");
}

}  // namespace

int main() {
  struct sigaction action = {};
  action.sa_handler = interrupted;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  say("is ready\n");
  std::string line;
  char c;
  while (read(STDIN_FILENO, &c, 1) == 1) {
    if (c != '\n') {
      line += c;
      continue;
    }
    say(("got " + line + "\n").c_str());
    if (line == "end") return 5;
    line.clear();
  }
  return 6;
}
