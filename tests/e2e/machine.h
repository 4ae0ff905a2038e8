// A machine of its own for each test: a private region folder and a private software GPU.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/e2e/command.h"

namespace allot::e2e {

inline constexpr uint64_t kMiB = uint64_t{1} << 20;
inline constexpr uint64_t kGiB = uint64_t{1} << 30;

struct Outcome {
  int status;
  std::string out;
  std::string err;
};

class Machine : public testing::Test {
 protected:
  Machine();
  ~Machine() override;

  // `allot` with these words, to its end.
  Outcome allot(std::vector<std::string> words);

  // The same beside the test.
  std::unique_ptr<Command> start(std::vector<std::string> words);

  // `allot run --sim FLAGS -- gpu_program`, once it says that it is ready.
  std::unique_ptr<Command> start_gpu_program(std::vector<std::string> flags);

  // A command that must succeed, parsed.
  nlohmann::json json_of(std::vector<std::string> words);

  // The names of all files in the region's folder, temporary ones too.
  std::vector<std::string> region_files() const;
  std::string region() const { return folder_ + "/region"; }
  const std::string& folder() const { return folder_; }

  // Changes to the environment of every later command; "" takes a variable away.
  std::map<std::string, std::string> environment;

 private:
  std::map<pid_t, std::string> left_behind() const;
  std::string folder_;
};

// Sends one line to a gpu_program and gives back its answer.
std::string ask(Command& program, const std::string& line);

// Whether `condition` comes true within kPatienceSeconds.
template <class Condition>
bool wait_until(Condition condition);
bool pause_before(double deadline);
double deadline_from_now();

template <class Condition>
bool wait_until(Condition condition) {
  const double deadline = deadline_from_now();
  do {
    if (condition()) return true;
  } while (pause_before(deadline));
  return condition();
}

}  // namespace allot::e2e
