// What is wrong with a line of words, and numbers that are none.
#include "cli/usage.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "cli/failure.h"
#include "cli/screen.h"

namespace allot::cli {
namespace {

using Words = std::vector<std::string>;

// An application with a bit of everything.
class CheckWords : public testing::Test {
 protected:
  CheckWords() {
    app_.name("allot");
    app_.require_subcommand(1);
    CLI::App* one = app_.add_subcommand("freeze", "f");
    one->add_option("name", name_)->required()->type_name("NAME");
    one->add_option("--timeout", seconds_)->check(seconds_up_to(3600))->type_name("SECONDS");
    CLI::Option* wait = one->add_flag("--wait", wait_);
    one->add_flag("--soon", soon_)->needs(wait);
    one->add_flag("--later", later_)->excludes(wait);
    CLI::App* group = app_.add_subcommand("cpus", "c");
    group->require_subcommand(1);
    group->add_subcommand("show", "s")->add_flag("--json", json_);
  }

  std::string complaint(const Words& words) {
    try {
      check_words(app_, words);
    } catch (const Failure& failure) {
      EXPECT_EQ(failure.exit_status(), kExitUsage);
      return failure.line();
    }
    return "";
  }

  CLI::App app_;
  std::string name_;
  double seconds_ = 0;
  bool wait_ = false, soon_ = false, later_ = false, json_ = false;
};

TEST_F(CheckWords, NamesWhatIsWrongAndTheNearestRightWord) {
  const std::pair<Words, const char*> kCases[] = {
      {{"freez", "a"}, "'freez' is not a command of allot; did you mean 'freeze'?"},
      {{"pause", "a"}, "did you mean 'freeze'?"},
      {{"cpus", "shwo"}, "'shwo' is not a command of allot cpus; did you mean 'show'?"},
      {{"cpus"}, "cpus: a command is missing; the commands are show"},
      {{"--foo"}, "no flag '--foo'; see 'allot --help'"},
      {{"-v"}, "did you mean '--version'?"},
      {{"--json", "cpus"}, "no flag '--json'"},
      {{"freeze", "a", "--timout", "3"}, "freeze: no flag '--timout'; did you mean '--timeout'?"},
      {{"freeze", "a", "--timeout"},
       "freeze: --timeout: its value is missing; write --timeout SECONDS"},
      {{"freeze", "a", "--timeout", "--wait"}, "its value is missing"},
      {{"freeze", "a", "--timeout", ""}, "freeze: --timeout: its value is empty; write --timeout"},
      {{"freeze", "a", "--timeout="}, "freeze: --timeout: its value is empty; write --timeout"},
      {{"freeze", "a", "--timeout", "3", "--timeout=4"}, "freeze: --timeout: given twice"},
      {{"freeze", "a", "--wait=yes"}, "freeze: --wait: takes no value"},
      {{"freeze"}, "freeze: NAME is missing; usage: allot freeze NAME [FLAGS]"},
      {{"freeze", "a", "b"}, "freeze: unexpected 'b'"},
      {{"freeze", "a", "--soon"}, "--soon has no effect without --wait"},
      {{"freeze", "a", "--later", "--wait"}, "cannot be used together"},
      {{"freeze", "a", "--"}, ""},
      {{"freeze", "--", "--wait"}, ""},
      {{"freeze", "a", "--soon", "--wait", "--timeout", "-1"}, ""},
      {{"freeze", "--help"}, ""},
      {{"cpus", "show", "--json"}, ""},
      {{""}, "'' is not a command"},
      {{"a\x1b[2J\nb"}, "'a\\x1b[2J\\nb' is not a command"},
  };
  for (const auto& [words, text] : kCases) {
    const std::string said = complaint(words);
    EXPECT_NE(said.find(text), std::string::npos) << said << " | wanted: " << text;
    if (*text == '\0') {
      EXPECT_EQ(said, "");
    }
    EXPECT_EQ(said.find('\n'), std::string::npos);
  }
  EXPECT_LT(complaint({std::string(100000, 'x')}).size(), 200u);
}

TEST(NumberFrom, RefusesWhatIsNoNumberInAShortLine) {
  const CLI::Validator check = seconds_up_to(3600);
  for (std::string good : {"0", "3600", "0.5", "1e3"}) EXPECT_EQ(check(good), "") << good;
  for (std::string bad : {"nan", "inf", "-1", "3600.1", "3601", "", "abc", "1s", " 1", "0x10",
                          "1e400", "-nan", "+1"}) {
    const std::string said = check(bad);
    EXPECT_NE(said.find("'" + bad + "' is not a number of seconds from 0 to 3600"),
              std::string::npos)
        << said;
    EXPECT_LT(said.size(), 120u);
  }
}

TEST(Help, FitsTheScreen) {
  CLI::App app("what it does");
  app.name("allot");
  std::string value;
  app.add_option("--a-flag", value,
                 "a meaning that continues until no line could hold it whole, "
                 "and then some more of it")
      ->type_name("VALUE");
  app.footer(
      "A paragraph that is written in one piece here, and has to be broken where it is shown.\n\n"
      "Examples:\n  allot --a-flag x");
  for (const char* columns : {"40", "80", "500"}) {
    setenv("COLUMNS", columns, 1);
    const std::string text = help_of(app);
    size_t begin = 0;
    for (size_t end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
      EXPECT_LE(end - begin, std::min(100ul, std::strtoul(columns, nullptr, 10))) << text;
    }
    EXPECT_NE(text.find("\nExamples:\n  allot --a-flag x\n"), std::string::npos) << text;
  }
  unsetenv("COLUMNS");
}

}  // namespace
}  // namespace allot::cli
