// See unit.h.
#include "cli/launch/unit.h"

#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <iterator>
#include <vector>

#include "cli/failure.h"
#include "cli/gpus/libraries.h"

namespace allot::cli {
namespace {

// The words of this command, with --cgroup for the first --unit.
std::vector<std::string> own_words() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<std::string> words;
  for (size_t at = 0; at < text.size();) {
    words.emplace_back(text.c_str() + at);
    at += words.back().size() + 1;
  }
  if (!words.empty()) words[0] = own_executable();
  for (std::string& word : words) {
    if (word != "--unit") continue;
    word = "--cgroup";
    break;
  }
  return words;
}

}  // namespace

void become_unit(const std::string& name) {
  std::vector<std::string> words = {
      "systemd-run",         "--scope", "--quiet", "--collect", "--property=Delegate=yes",
      "--unit=allot-" + name};
  if (geteuid() != 0) words.emplace_back("--user");
  words.emplace_back("--");
  for (std::string& word : own_words()) words.push_back(std::move(word));
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  execvp(pointers[0], pointers.data());
  refuse("--unit: systemd-run: {}; it needs systemd", describe_errno(errno));
}

}  // namespace allot::cli
