// The command line as people mistype it: what is wrong, in one short line without a byte that harms
// a terminal; and what becomes of outputs that cannot be written.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "tests/e2e/machine.h"

namespace allot::e2e {
namespace {

using Words = std::vector<std::string>;

class CommandLine : public Machine {
 protected:
  // One line, short, plain; exit 2 unless said otherwise.
  void refused(const Words& words, const Words& must_say, int status = 2) {
    std::string line;
    for (const std::string& word : words) line += word + " ";
    SCOPED_TRACE(line.substr(0, 200));
    const std::vector<std::string> before = region_files();
    const Outcome got = allot(words);
    EXPECT_EQ(got.status, status) << got.err;
    EXPECT_EQ(got.out, "");
    EXPECT_TRUE(got.err.starts_with("allot: ")) << got.err;
    EXPECT_LT(got.err.size(), 320u) << got.err;
    ASSERT_EQ(std::count(got.err.begin(), got.err.end(), '\n'), 1) << got.err;
    for (const char c : got.err.substr(0, got.err.size() - 1))
      EXPECT_FALSE(c >= 0 && c < ' ') << got.err;
    for (const std::string& text : must_say)
      EXPECT_NE(got.err.find(text), std::string::npos) << got.err;
    EXPECT_EQ(region_files(), before);
  }
  Words run(Words flags) {
    flags.insert(flags.begin(), {"run", "--sim"});
    flags.insert(flags.end(), {"--", "true"});
    return flags;
  }
  // `sh -c` with the command as $A.
  Outcome shell(const std::string& script) {
    auto changed = environment;
    changed["A"] = ALLOT_BINARY;
    Command command({"bash", "-c", script}, changed);
    command.close_input();
    const int status = command.wait();
    return {status, command.out(), command.err()};
  }
};

TEST_F(CommandLine, ANumberOfBytesWithoutAUnitIsAskedBack) {
  refused(run({"--gpu-mem", "8"}), {"--gpu-mem", "'8' is 8 bytes", "8G"});
  refused(run({"--gpu-mem", "0:16"}), {"'16' is 16 bytes", "16G"});
  refused(run({"--gpu-mem", "1048575"}), {"1048575"});
  refused({"set", "a", "--gpu-mem", "24"}, {"24G"});
  EXPECT_EQ(allot(run({"--gpu-mem", "8589934592"})).status, 0)
      << "plain bytes work where somebody may mean them";
}

TEST_F(CommandLine, WhatCannotNameASliceCannotBeStopped) {
  for (const char* name : {"a*", "", "../x", "-", "a\nb"}) {
    refused({"stop", "--timeout", "0", "--", name}, {"stop: '", "cannot name a slice"});
  }
}

TEST_F(CommandLine, WatchingEndsAfterANumberOfSeconds) {
  for (const char* seconds : {"nan", "-1", "inf", "1e400", "x"}) {
    refused({"cpus", "watch", std::string("--for=") + seconds}, {"--for"});
  }
}

TEST_F(CommandLine, ALimitBelowAContextIsHintedAt) {
  const Outcome small = allot(run({"--gpu-mem", "100M"}));
  EXPECT_EQ(small.status, 0);
  EXPECT_NE(small.err.find("100 MiB on GPU 0 is less than a CUDA context takes"), std::string::npos)
      << small.err;
  EXPECT_NE(small.err.find("512 MiB"), std::string::npos) << small.err;
  EXPECT_EQ(allot(run({"--gpu-mem", "1G"})).err, "");
}

TEST_F(CommandLine, ASpecificationOfTheSoftwareGpuThatIsNoneIsWrongUsage) {
  for (const char* spec :
       {"banana", "80", "x", "0x80G", "33x80G", "1000000T", "80G,,24G", "80G,", ",", "1x", "-1x80G",
        "2x80G,31x80G", "127M", "257G", "99999999999999999999x80G", "2x 80G x", "\x1b[2J"}) {
    for (const char* command : {"run", "gpus", "doctor"}) {
      refused({command, std::string("--sim=") + spec}, {"--sim: '", "2x80G"});
      refused({"bench", "load", std::string("--sim=") + spec}, {"--sim: '", "2x80G"});
    }
  }
  environment["ALLOT_SIM_GPUS"] = "80";
  refused({"gpus", "--sim"}, {"ALLOT_SIM_GPUS: '80'"});
}

TEST_F(CommandLine, ASpecificationBehindABlankIsHintedAt) {
  refused({"run", "--sim", "2x80G", "--", "true"}, {"--sim=2x80G"});
  refused({"gpus", "--sim", "80G,24G"}, {"--sim=80G,24G"});
  EXPECT_EQ(allot({"run", "--help"}).out.find("--sim ["), std::string::npos)
      << "help shows no blank";
  EXPECT_NE(allot({"run", "--help"}).out.find("--sim[=SPEC]"), std::string::npos);
}

TEST_F(CommandLine, NumbersThatAreNoneGetOneShortLine) {
  for (const char* number : {"x", "nan", "inf", "-1", "1e400", "", "1s"}) {
    refused({"run", "--sim", "--wait", std::string("--wait-timeout=") + number, "--", "true"},
            {"--wait-timeout"});
    refused({"run", "--sim", std::string("--evict-idle=") + number, "--", "true"},
            {"--evict-idle"});
    refused({"freeze", "a", std::string("--timeout=") + number}, {"--timeout"});
    refused({"evict", "a", std::string("--timeout=") + number}, {"--timeout"});
    refused({"run", "--cpus", "1", std::string("--near-gpu=") + number, "--", "true"},
            {"--near-gpu"});
    refused({"cpus", "attach", number, "--cpus", "1"}, {"'" + std::string(number)});
  }
}

TEST_F(CommandLine, FlagsWithoutEffectAreRefused) {
  refused(run({"--wait-timeout", "3"}), {"--wait-timeout has no effect without --wait"});
  refused(run({"--cores"}), {"--cores", "--cpus"});
  refused({"set", "a", "--gpu", "0", "--priority", "low"}, {"--gpu has no effect"});
  refused({"evict", "nobody", "--swap", "x"}, {"--swap: 'x'"});
  refused({"evict", "nobody", "--swap", ""}, {"--swap: its value is empty"});
  const Outcome nothing = allot(run({"--wait"}));
  EXPECT_NE(nothing.err.find("nothing to wait for"), std::string::npos) << nothing.err;
}

TEST_F(CommandLine, UnknownWordsAreNamedWithTheNearest) {
  refused({"--foo"}, {"'--foo'"});
  refused({"-v"}, {"'-v'", "--version"});
  refused({"pss"}, {"'pss'", "'ps'"});
  refused({"list"}, {"'list'", "'ps'"});
  refused({"cpus", "foo"}, {"'foo'", "allot cpus", "show, plan"});
  refused({"bench", "foo"}, {"'foo'", "allot bench", "load"});
  refused({"bench"}, {"bench", "load"});
  refused({"help", "foo"}, {"'foo'"});
  refused(run({"--gpu-men", "8G"}), {"'--gpu-men'", "'--gpu-mem'"});
  refused({"--json", "ps"}, {"allot ps --json"});
  refused(run({"--priority", "hihg"}), {"'hihg'", "'high'"});
  const auto program = start_gpu_program({"--name", "train"});
  refused({"freeze", "trian"}, {"'trian'", "'train'"}, 125);
}

TEST_F(CommandLine, ControlBytesAreEscaped) {
  const std::string evil = "a\nb\x1b[2J\x7f\xff\xe2\x80\xae";
  refused(run({"--name", evil}), {R"(a\nb\x1b[2J\x7f\xff\u202e)"});
  refused({evil}, {R"(a\nb\x1b)"});
  refused({"ps", "--" + evil}, {R"(a\nb\x1b)"});
  refused({"freeze", evil}, {R"(a\nb\x1b)"});
  refused(run({"--gpu", evil}), {R"(a\nb\x1b)"}, 125);
  refused(run({"--gpu-mem", evil}), {R"(a\nb\x1b)"});
  refused({"run", "--sim", "--", evil}, {R"(a\nb\x1b)"}, 127);
  environment["ALLOT_DIR"] = "/" + evil + "/x";
  refused({"ps"}, {R"(a\nb\x1b)"}, 125);
}

TEST_F(CommandLine, AFolderThatIsNotThereIsNamedAsItsVariable) {
  for (const Words& words : {Words{"ps"}, Words{"freeze", "a"}, run({}), Words{"cpus", "show"}}) {
    environment["ALLOT_DIR"] = "/nonexistent/x";
    refused(words, {"ALLOT_DIR=/nonexistent/x", "no folder /nonexistent"}, 125);
    environment["ALLOT_DIR"] = "rel";
    refused(words, {"ALLOT_DIR=rel", "absolute"}, 125);
    environment["ALLOT_DIR"] = "/" + std::string(5000, 'x');
    refused(words, {"ALLOT_DIR=/xxx", "too long"}, 125);
  }
  environment["ALLOT_DIR"] = region();
  environment["ALLOT_SWAP"] = "x";
  refused(run({}), {"ALLOT_SWAP: 'x'"});
}

TEST_F(CommandLine, EachCommandHasHelpInTwoWaysWithExamples) {
  const std::string all = allot({"help"}).out;
  EXPECT_EQ(all, allot({"--help"}).out);
  for (const Words& words : {Words{"run"},
                             Words{"ps"},
                             Words{"gpus"},
                             Words{"set"},
                             Words{"freeze"},
                             Words{"thaw"},
                             Words{"evict"},
                             Words{"restore"},
                             Words{"doctor"},
                             Words{"demo"},
                             Words{"version"},
                             Words{"cpus"},
                             Words{"cpus", "show"},
                             Words{"cpus", "plan"},
                             Words{"cpus", "attach"},
                             Words{"cpus", "explain"},
                             Words{"cpus", "watch"},
                             Words{"cpus", "sim"},
                             Words{"bench"},
                             Words{"bench", "load"},
                             Words{"bench", "alloc"},
                             Words{"bench", "latency"},
                             Words{"bench", "hooks"},
                             Words{"bench", "share"}}) {
    SCOPED_TRACE(words.back());
    Words asked = {"help"};
    asked.insert(asked.end(), words.begin(), words.end());
    Words flag = words;
    flag.push_back("--help");
    const Outcome help = allot(asked);
    EXPECT_EQ(help.status, 0);
    EXPECT_EQ(help.out, allot(flag).out);
    EXPECT_NE(help.out.find("Example"), std::string::npos) << help.out;
    EXPECT_NE(help.out.find("Usage: allot " + words[0]), std::string::npos);
    for (size_t begin = 0, end; (end = help.out.find('\n', begin)) != std::string::npos;
         begin = end + 1) {
      EXPECT_LE(end - begin, 80u) << help.out.substr(begin, end - begin);
    }
  }
}

TEST_F(CommandLine, VersionSaysCommitAndBuild) {
  const nlohmann::json version = json_of({"version", "--json"});
  for (const char* field :
       {"version", "commit", "build", "compiler", "machine", "region_version"}) {
    EXPECT_FALSE(version[field].get<std::string>().empty()) << field;
  }
  const Outcome text = allot({"version"});
  EXPECT_NE(text.out.find(version["commit"].get<std::string>()), std::string::npos);
  EXPECT_NE(text.out.find("build " + version["build"].get<std::string>()), std::string::npos);
  EXPECT_TRUE(text.out.starts_with(allot({"--version"}).out.substr(0, 12)));
}

TEST_F(CommandLine, OutputsThatCannotBeWrittenAreSaidAndAPipeThatIsClosedIsNot) {
  for (const char* command : {"ps", "help", "version", "--version", "ps --json", "run --help"}) {
    SCOPED_TRACE(command);
    const std::string allot = std::string("$A ") + command;
    const Outcome full = shell(allot + " > /dev/full");
    EXPECT_EQ(full.status, 125);
    EXPECT_NE(full.err.find("standard output: cannot write: no space left"), std::string::npos)
        << full.err;
    const Outcome closed = shell(allot + " >&-");
    EXPECT_EQ(closed.status, 125);
    EXPECT_NE(closed.err.find("standard output"), std::string::npos) << closed.err;
    // The reader is gone before anything is written.
    const Outcome pipe = shell(
        "trap '' PIPE; { while ! [ -s $ALLOT_DIR/../gone ]; do :; done; " + allot +
        "; echo $? >&2; } | { exec 0<&-; echo x > $ALLOT_DIR/../gone; }; rm $ALLOT_DIR/../gone");
    EXPECT_EQ(pipe.err, "141\n");
  }
}

// One more is there, by which the program holds its slice, and with a number of its own.
TEST_F(CommandLine, ClosedDescriptorsOfTheCommandAreClosedInTheProgram) {
  const std::string list = "ls /proc/self/fd | sort -n | grep -v 1000 | tr \"\\n\" \" \" >&2";
  const Outcome got = shell("$A run --sim -- sh -c '" + list + "' >&- <&-");
  EXPECT_EQ(got.status, 0) << got.err;
  EXPECT_EQ(got.err, shell("ls /proc/self/fd >/dev/null; sh -c '" + list + "' >&- <&-").err);
}

}  // namespace
}  // namespace allot::e2e
