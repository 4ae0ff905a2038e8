// Where a program's words begin, and how the command line complains.
#include <gtest/gtest.h>

#include <algorithm>

#include "cli/commands.h"
#include "cli/failure.h"

namespace allot::cli {
namespace {

using Words = std::vector<std::string>;

struct Split {
  Words flags, program;
};

Split split(const Words& words) {
  CLI::App app;
  const Words none;
  int exit_status = 0;
  add_run(app, none, &exit_status);
  Split out;
  split_program(*app.get_subcommand("run"), words, &out.flags, &out.program);
  return out;
}

TEST(SplitProgram, AfterTwoDashesEverythingIsTheProgram) {
  const Split got = split({"--gpu-mem", "8G", "--", "ls", "--name", "--", "x"});
  EXPECT_EQ(got.flags, (Words{"--gpu-mem", "8G"}));
  EXPECT_EQ(got.program, (Words{"ls", "--name", "--", "x"}));
}

TEST(SplitProgram, TheFirstWordThatIsNoFlagBeginsTheProgram) {
  const Split got = split({"--name", "a", "--exec", "--gpu-mem=1G", "python", "--gpu", "1"});
  EXPECT_EQ(got.flags, (Words{"--name", "a", "--exec", "--gpu-mem=1G"}));
  EXPECT_EQ(got.program, (Words{"python", "--gpu", "1"}));
}

TEST(SplitProgram, ALoneSimTakesNoWord) {
  const Split got = split({"--sim", "ls"});
  EXPECT_EQ(got.flags, (Words{"--sim"}));
  EXPECT_EQ(got.program, (Words{"ls"}));
  EXPECT_EQ(split({"--sim=2x80G", "ls"}).program, (Words{"ls"}));
}

TEST(SplitProgram, AFlagWithoutItsValueStaysAlone) {
  const Split got = split({"--name", "--", "ls"});
  EXPECT_EQ(got.flags, (Words{"--name"}));
  EXPECT_EQ(got.program, (Words{"ls"}));
}

struct Outcome {
  int status;
  std::string error;
};

Outcome allot_says(std::vector<const char*> words) {
  words.insert(words.begin(), "allot");
  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();
  const int status = run_command(static_cast<int>(words.size()), words.data());
  testing::internal::GetCapturedStdout();
  return {status, testing::internal::GetCapturedStderr()};
}

TEST(CommandLine, WrongUsageIsOneLineAndExit2) {
  for (const std::vector<const char*>& words : std::vector<std::vector<const char*>>{
           {"frobnicate"},
           {"--frobnicate"},
           {"ps", "--frobnicate"},
           {"gpus", "extra"},
           {"run"},
           {"run", "--"},
           {"run", "--frobnicate", "--", "true"},
           {"run", "--name"},
           {"run", "--gpu-mem", "8X", "--", "true"},
           {"run", "--gpu-share", "101", "--", "true"},
           {"run", "--gpu-share", "50", "--gpu-max", "40", "true"},
           {"set"},
           {"set", "a"},
           {"set", "a/b", "--gpu-mem", "1G"},
           {"set", "a", "--gpu-mem", "1Q"},
           {"set", "a", "--gpu-share", "0.25"},
           {"set", "a", "--gpu-max", "0"},
           {"set", "a", "--priority", "urgent"},
           {"set", "a", "--level", "gpu"},
           {"set", "a", "--gpu", "0"},
           {"freeze"},
           {"freeze", "a/b"},
           {"freeze", "a", "--timeout", "-1"},
           {"thaw", "a", "--timeout", "soon"}}) {
    const Outcome got = allot_says(words);
    EXPECT_EQ(got.status, kExitUsage) << got.error;
    EXPECT_TRUE(got.error.starts_with("allot: ")) << got.error;
    EXPECT_EQ(std::count(got.error.begin(), got.error.end(), '\n'), 1) << got.error;
  }
}

TEST(CommandLine, HelpAndVersionAreNoErrors) {
  for (const char* command :
       {"run", "ps", "gpus", "set", "freeze", "thaw", "stop", "doctor", "demo"}) {
    EXPECT_EQ(allot_says({command, "--help"}).status, 0) << command;
  }
  EXPECT_EQ(allot_says({"--help"}).status, 0);
  EXPECT_EQ(allot_says({"--version"}).status, 0);
}

}  // namespace
}  // namespace allot::cli
