// See machine.h. What must not happen: a test that sees the machine's real region, or another
// test's.
#include "tests/e2e/machine.h"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace allot::e2e {

double deadline_from_now() {
  return now() + kPatienceSeconds;
}

bool pause_before(double deadline) {
  poll(nullptr, 0, 2);
  return now() < deadline;
}

Machine::Machine() {
  ::signal(SIGPIPE,
           SIG_IGN);  // a program that ended early must fail its test, not the test program
  std::string pattern = testing::TempDir() + "/allot-e2e-XXXXXX";
  folder_ = mkdtemp(pattern.data());
  for (const char* part : {"/region", "/sim"}) mkdir((folder_ + part).c_str(), 0700);
  environment = {{"ALLOT_DIR", region()},
                 {"ALLOT_SIM_DIR", folder_ + "/sim"},
                 {"ALLOT_SIM_GPUS", "1x16G"},
                 {"ALLOT_TENANT", ""},
                 {"ALLOT_REAL_CUDA", ""},
                 {"ALLOT_REAL_NVML", ""},
                 {"ALLOT_JOURNAL", "off"},
                 {"CUDA_VISIBLE_DEVICES", ""},
                 {"LD_PRELOAD", ALLOT_SANITIZER_PRELOAD}};
}

// Whoever a test has started and left, by the folder in its environment: "cat (4711)".
std::map<pid_t, std::string> Machine::left_behind() const {
  std::map<pid_t, std::string> left;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const pid_t pid = std::atoi(entry.path().filename().c_str());
    if (pid <= 0 || pid == getpid()) continue;
    const auto text = [&](const char* file) {
      std::ifstream stream(entry.path() / file, std::ios::binary);
      return std::string((std::istreambuf_iterator<char>(stream)),
                         std::istreambuf_iterator<char>());
    };
    if (text("environ").find(folder_) != std::string::npos) left[pid] = text("comm");
  }
  return left;
}

Machine::~Machine() {
  // What is being killed may take a moment.
  if (!wait_until([this] { return left_behind().empty(); })) {
    for (const auto& [pid, name] : left_behind()) {
      ADD_FAILURE() << "the test left process " << pid << " behind: " << name;
      kill(pid, SIGKILL);
    }
  }
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

std::unique_ptr<Command> Machine::start(std::vector<std::string> words) {
  words.insert(words.begin(), ALLOT_BINARY);
  return std::make_unique<Command>(std::move(words), environment);
}

Outcome Machine::allot(std::vector<std::string> words) {
  const auto command = start(std::move(words));
  command->close_input();
  const int status = command->wait();
  return {status, command->out(), command->err()};
}

std::unique_ptr<Command> Machine::start_gpu_program(std::vector<std::string> flags) {
  std::vector<std::string> words = {"run", "--sim"};
  words.insert(words.end(), flags.begin(), flags.end());
  words.insert(words.end(), {"--", GPU_PROGRAM});
  auto command = start(std::move(words));
  const std::string first = command->line();
  if (first != "ready") {
    command->wait();
    ADD_FAILURE() << "the program said " << first << "; " << command->out() << command->err();
  }
  return command;
}

nlohmann::json Machine::json_of(std::vector<std::string> words) {
  const Outcome got = allot(std::move(words));
  EXPECT_EQ(got.status, 0) << got.err;
  auto json = nlohmann::json::parse(got.out, nullptr, false);
  EXPECT_FALSE(json.is_discarded()) << got.out;
  return json;
}

std::vector<std::string> Machine::region_files() const {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(region())) {
    names.push_back(entry.path().filename());
  }
  return names;
}

std::string ask(Command& program, const std::string& line) {
  program.write(line + "\n");
  return program.line();
}

}  // namespace allot::e2e
