// What a new user tries on the first day, and what once went wrong with it.
#include "tests/e2e/machine.h"

namespace allot::e2e {
namespace {

using Words = std::vector<std::string>;

class FirstDay : public Machine {};

TEST_F(FirstDay, EveryBenchTakesTheSoftwareGpuAndPrintsUnits) {
  const std::vector<std::pair<Words, std::string>> benches = {
      {{"load", "--seconds", "0.2"}, " us\n"},
      {{"latency", "--seconds", "0.2"}, " us\n"},
      {{"alloc", "--step", "1G"}, " GiB\n"},
      {{"share", "--seconds", "1", "--slice", "full:50"}, "OF-ALONE%"}};
  for (const auto& [words, unit] : benches) {
    SCOPED_TRACE(words[0]);
    Words line = {"bench"};
    line.insert(line.end(), words.begin(), words.end());
    line.insert(line.begin() + 2, "--sim");
    const Outcome got = allot(line);
    EXPECT_EQ(got.status, 0) << got.err;
    EXPECT_NE(got.out.find(unit), std::string::npos) << got.out;
  }
  // Hooks are measured in a slice.
  const Outcome hooks = allot({"bench", "hooks", "--sim"});
  EXPECT_EQ(hooks.err.find("was not expected"), std::string::npos) << hooks.err;
}

TEST_F(FirstDay, CpusNearASoftwareGpuAreAllCpusAndANoteSaysSo) {
  const Outcome got = allot({"run", "--sim", "--gpu", "0", "--cpus", "gpu", "--", "true"});
  EXPECT_EQ(got.status, 0) << got.err;
  EXPECT_NE(got.err.find("all allowed CPUs are taken"), std::string::npos) << got.err;
}

TEST_F(FirstDay, ASliceWhoseProgramMadeAPidNamespaceGoesWithIt) {
  Command probe({"unshare", "-Urpf", "--mount-proc", "true"}, {});
  if (probe.wait() != 0) GTEST_SKIP() << "no pid namespaces here";
  const auto program = start({"run", "--sim", "--gpu-share", "80", "--name", "a", "--", "unshare",
                              "-Urpf", "--mount-proc", GPU_PROGRAM});
  ASSERT_EQ(program->line(), "ready");
  program->write("exit 0\n");
  // A sanitizer's own look at the end may fail in a pid namespace.
  const bool sanitized = !std::string(ALLOT_SANITIZER_PRELOAD).empty();
  const int status = program->wait();
  EXPECT_TRUE(status == 0 || sanitized) << status << program->err();
  EXPECT_TRUE(region_files().empty());
  EXPECT_EQ(allot({"run", "--sim", "--gpu-share", "80", "--", "true"}).status, 0)
      << "its share is free again";
}

// As the first process of a container it has the children of all who have ended.
TEST_F(FirstDay, TheFirstProcessOfAContainerReapsWhatEndsBelowIt) {
  Command probe({"unshare", "-Urpf", "--mount-proc", "true"}, {});
  if (probe.wait() != 0) GTEST_SKIP() << "no pid namespaces here";
  const std::string program =
      "for n in 1 2 3; do ( true & ); done; i=0; "
      "while grep -qs ') Z' /proc/[0-9]*/stat && [ $i -lt 2000 ]; do i=$((i+1)); done; "
      "! grep -s ') Z' /proc/[0-9]*/stat";
  Command container({"unshare", "-Urpf", "--mount-proc", ALLOT_BINARY, "run", "--sim", "--name",
                     "a", "--", "sh", "-c", program},
                    environment);
  EXPECT_EQ(container.wait(), 0) << container.out() << container.err();
}

}  // namespace
}  // namespace allot::e2e
