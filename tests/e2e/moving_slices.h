// Slices whose memory is evicted and restored, for the tests of both ways: what they hold, and
// whether it was kept.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <fstream>

#include "tests/e2e/machine.h"

namespace allot::e2e {

inline constexpr int kRefused = 125;

class MovingSlices : public Machine {
 protected:
  // `flags` go to every slice's run; `last_bytes` is the last of a holder's three blocks.
  MovingSlices(std::vector<std::string> flags, uint64_t last_bytes)
      : flags_(std::move(flags)), last_bytes_(last_bytes) {}

  // The `cat` of a pair waits for somebody to open its pipe, also when its reader was killed.
  ~MovingSlices() override {
    close(open((folder() + "/second.in").c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
  }

  nlohmann::json slice(const std::string& name) {
    const nlohmann::json all = json_of({"ps", "--json"});
    for (const nlohmann::json& one : all["slices"]) {
      if (one["name"] == name) return one;
    }
    return nlohmann::json::object();
  }

  bool evicted(const std::string& name) { return slice(name).value("evicted", false); }

  // A program with 100 MiB in three blocks that hold `value`, `value` + 1, `value` + 2; one is
  // small.
  std::unique_ptr<Command> holder(const std::string& name, int value,
                                  const std::vector<std::string>& more = {}) {
    std::vector<std::string> flags = {"--name", name};
    flags.insert(flags.end(), flags_.begin(), flags_.end());
    flags.insert(flags.end(), more.begin(), more.end());
    auto program = start_gpu_program(flags);
    for (const uint64_t bytes : {64 * kMiB, uint64_t{4096}, last_bytes_}) {
      EXPECT_EQ(ask(*program, "alloc " + std::to_string(bytes)), "ok");
    }
    EXPECT_EQ(ask(*program, "fill " + std::to_string(value)), "ok");
    return program;
  }

  // A slice of two processes: the first talks to the test and holds 64 MiB of 5, the second holds
  // 32 MiB of 9 and checks them when the test opens its pipe. `faults` are the second's.
  std::unique_ptr<Command> pair(const std::string& name, const std::string& faults) {
    const std::string second = folder() + "/second";
    EXPECT_EQ(system(("mkfifo " + second + ".in").c_str()), 0);
    const std::string script = "(echo alloc 33554432; echo fill 9; cat " + second +
                               ".in) | ALLOT_SIM_FAULTS='" + faults + "' " GPU_PROGRAM " >" +
                               second + ".out & exec " GPU_PROGRAM;
    std::vector<std::string> words = {"run", "--sim", "--name", name};
    words.insert(words.end(), flags_.begin(), flags_.end());
    words.insert(words.end(), {"--", "sh", "-c", script});
    auto program = start(words);
    EXPECT_EQ(program->line(), "ready");
    EXPECT_EQ(ask(*program, "alloc 67108864"), "ok");
    EXPECT_EQ(ask(*program, "fill 5"), "ok");
    expect_second_said("ready\nok\nok\n");
    return program;
  }

  void expect_second_kept() {
    std::ofstream(folder() + "/second.in") << "check 9\n";
    expect_second_said("ready\nok\nok\nok\n");
  }

 private:
  std::string second_output() const {
    std::ifstream file(folder() + "/second.out");
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

  void expect_second_said(const std::string& wanted) {
    EXPECT_TRUE(wait_until([&] { return second_output() == wanted; })) << second_output();
  }

  std::vector<std::string> flags_;
  uint64_t last_bytes_;
};

}  // namespace allot::e2e
