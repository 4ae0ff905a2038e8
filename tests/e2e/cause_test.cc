// What is in the way is named as it is, and the advice fits it.
#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>

#include "abi/region.h"
#include "tests/e2e/machine.h"

namespace allot::e2e {
namespace {

using Words = std::vector<std::string>;

class Cause : public Machine {
 protected:
  // One line on standard error with all of these.
  void says(const Outcome& got, const Words& must, const Words& must_not = {}) {
    EXPECT_EQ(got.status, 125) << got.err;
    EXPECT_EQ(std::count(got.err.begin(), got.err.end(), '\n'), 1) << got.err;
    for (const std::string& text : must)
      EXPECT_NE(got.err.find(text), std::string::npos) << text << "\n" << got.err;
    for (const std::string& text : must_not)
      EXPECT_EQ(got.err.find(text), std::string::npos) << text << "\n" << got.err;
  }
  Outcome under_shell(const std::string& before, const Words& words) {
    std::string line = before + "; exec " ALLOT_BINARY;
    for (const std::string& word : words) line += " " + word;
    Command command({"sh", "-c", line}, environment);
    command.close_input();
    const int status = command.wait();
    return {status, command.out(), command.err()};
  }
  Outcome run(const std::string& name = "a") {
    return allot({"run", "--sim", "--name", name, "--", "true"});
  }
};

TEST_F(Cause, WhatIsNoFileOfASliceIsCalledByItsKind) {
  ASSERT_EQ(mkfifo((region() + "/pipe.slice").c_str(), 0600), 0);
  std::filesystem::create_symlink("/etc/passwd", region() + "/link.slice");
  std::filesystem::create_symlink("/nowhere", region() + "/lost.slice");
  std::filesystem::create_directory(region() + "/folder.slice");
  const std::vector<std::pair<std::string, std::string>> kinds = {{"pipe", "a pipe"},
                                                                  {"link", "a link to /etc/passwd"},
                                                                  {"lost", "a link to /nowhere"},
                                                                  {"folder", "a folder"}};
  for (const auto& [name, kind] : kinds) {
    for (const char* command : {"freeze", "stop", "evict"})
      says(allot({command, name}), {kind, "not a slice's file", "remove it"}, {"another user"});
    says(run(name), {"'" + name + "' is taken", kind, "choose another name"}, {"permission"});
    EXPECT_NE(allot({"ps"}).err.find(kind + ", not a slice's file"), std::string::npos);
  }
}

TEST_F(Cause, AFolderThatIsNotTakenSaysWhy) {
  const std::string made = folder() + "/made";
  environment["ALLOT_DIR"] = made;
  ASSERT_EQ(mkdir(made.c_str(), 0777), 0);
  ASSERT_EQ(chmod(made.c_str(), 0777), 0);
  says(run(), {"others may remove files in it (mode 0777)", "chmod 0700 " + made});
  says(allot({"ps"}), {"mode 0777"});
  ASSERT_EQ(chmod(made.c_str(), 0700), 0);
  environment["ALLOT_DIR"] = folder() + "/link";
  std::filesystem::create_directory_symlink(made, folder() + "/link");
  says(run(), {folder() + "/link: it is a link"});
  environment["ALLOT_DIR"] = folder() + "/file";
  std::ofstream(folder() + "/file") << "x";
  says(run(), {"it is not a folder"});
  if (geteuid() != 0) return;
  environment["ALLOT_DIR"] = made;
  ASSERT_EQ(chown(made.c_str(), 65534, 65534), 0);
  says(run(), {"'s; it must be root's"});
}

TEST_F(Cause, TheAdviceFitsTheErrno) {
  // A sanitizer opens files of its own.
  const bool sanitized = !std::string(ALLOT_SANITIZER_PRELOAD).empty();
  if (!sanitized)
    for (const char* files : {"5", "6"})
      says(under_shell(std::string("ulimit -n ") + files,
                       {"run", "--sim", "--name", "a", "--", "true"}),
           {"too many open files", "ulimit -n"}, {"shared memory", "write permission"});
  environment["ALLOT_DIR"] = "/proc/self";
  says(run(), {"/proc/self", "ALLOT_DIR"}, {"shared memory", "give yourself"});
  environment["ALLOT_DIR"] = region();
  if (geteuid() != 0) return;
  // Of a mount of its own: read-only.
  const std::string mount =
      "mount --bind " + region() + " " + region() + " && mount -o remount,bind,ro " + region();
  Command command({"unshare", "-m", "sh", "-c",
                   mount + " || exit 77; exec " ALLOT_BINARY " run --sim --name a -- true"},
                  environment);
  const int status = command.wait();
  if (status == 77 || status == 1) GTEST_SKIP() << "no mounts here: " << command.err();
  says({status, command.out(), command.err()}, {"read-only", "mounted read-only"},
       {"shared memory", "permission on that folder"});
}

TEST_F(Cause, NewSizesOfTheSoftwareGpuAreSaid) {
  environment["ALLOT_SIM_GPUS"] = "";
  const Outcome first = allot({"run", "--sim=2x4G", "--", "true"});
  EXPECT_EQ(first.status, 0);
  EXPECT_NE(first.err.find("the software GPU is 2x4G from now on"), std::string::npos) << first.err;
  EXPECT_EQ(allot({"run", "--sim=2x4G", "--", "true"}).err, "") << "nothing changes";
  EXPECT_EQ(allot({"run", "--sim", "--", "true"}).err, "");
  EXPECT_EQ(json_of({"gpus", "--sim", "--json"})["gpus"].size(), 2u);
  const Outcome other = allot({"run", "--sim=8G", "--", "true"});
  EXPECT_NE(other.err.find("is 1x8G from now on, also for --sim without sizes; it was 2x4G"),
            std::string::npos)
      << other.err;
}

TEST_F(Cause, AProcessOfAnotherPidNamespaceIsNotTakenForOneOfOurs) {
  Command probe({"unshare", "-Urpf", "--mount-proc", "true"}, {});
  if (probe.wait() != 0) GTEST_SKIP() << "no pid namespaces here";
  // Process 1 there starts the slice; here 1 is something else.
  Command container({"unshare", "-Urpf", "--mount-proc", "sh", "-c",
                     "exec " ALLOT_BINARY " run --sim --name a -- " GPU_PROGRAM},
                    environment);
  ASSERT_EQ(container.line(), "ready");
  const nlohmann::json slice = json_of({"ps", "--json"})["slices"].at(0);
  EXPECT_EQ(slice["launcher_foreign"], true);
  EXPECT_EQ(slice["launcher_pid"], 1);
  ASSERT_EQ(slice["processes"].size(), 1u);
  EXPECT_EQ(slice["processes"][0]["foreign"], true);
  EXPECT_TRUE(slice["processes"][0]["command"].get<std::string>().starts_with("e2e_gpu"))
      << slice["processes"][0];
  EXPECT_NE(allot({"ps"}).out.find("in another container"), std::string::npos);
}

// As a program that finds all places of the slice's table of clients taken.
TEST_F(Cause, AFreezeOfWorkThatNobodyHoldsIsRefusedWithOrWithoutALimitOfTime) {
  const std::vector<Words> kinds = {
      {"--fail", "closed"}, {"--fail", "open"}, {"--fail", "open", "--gpu-max", "50"}};
  for (const Words& flags : kinds) {
    SCOPED_TRACE(flags.back());
    Words all = {"--name", "a"};
    all.insert(all.end(), flags.begin(), flags.end());
    const auto program = start_gpu_program(all);
    const int file = open((region() + "/a.slice").c_str(), O_RDWR | O_CLOEXEC);
    const uint32_t unheld = 1;
    const size_t at = offsetof(AllotSliceFile, slots) + offsetof(AllotSlot, unheld_gpus);
    ASSERT_EQ(pwrite(file, &unheld, sizeof unheld, static_cast<off_t>(at)), 4);
    close(file);
    says(allot({"freeze", "a"}), {"is not held", "nothing was changed"});
    EXPECT_EQ(json_of({"ps", "--json"})["slices"][0]["frozen"], false);
    EXPECT_NE(allot({"ps", "--wide"}).out.find("not held: more than 256"), std::string::npos);
    program->write("exit 0\n");
    EXPECT_EQ(program->wait(), 0);
  }
}

TEST_F(Cause, WordsOfAFrozenAndEvictedSliceSayBoth) {
  const auto program = start_gpu_program({"--name", "a"});
  ASSERT_EQ(ask(*program, "alloc 1048576"), "ok");
  const auto line = [&](const char* command) {
    const Outcome got = allot({command, "a"});
    EXPECT_EQ(got.status, 0) << got.err;
    return got.out;
  };
  EXPECT_TRUE(line("restore").starts_with("a: was not evicted ("));
  EXPECT_NE(line("evict").find("a: evicted ("), std::string::npos);
  EXPECT_NE(line("evict").find("a: was evicted already ("), std::string::npos);
  EXPECT_NE(line("thaw").find("but it is evicted and does not run: 'allot restore a'"),
            std::string::npos);
  const std::string frozen = line("freeze");
  EXPECT_TRUE(frozen.starts_with("a: frozen (its memory is on the host); it is evicted, too"))
      << frozen;
  const std::string back = line("restore");
  EXPECT_NE(back.find("a: restored ("), std::string::npos) << back;
  EXPECT_NE(back.find("it is frozen: 'allot thaw a' lets it run"), std::string::npos) << back;
  EXPECT_TRUE(line("thaw").starts_with("a: thawed ("));
}

TEST_F(Cause, ARateIsShownOnlyWhereThereWasTimeToMeasureIt) {
  const auto program = start_gpu_program({"--name", "a"});
  ASSERT_EQ(ask(*program, "alloc 1048576"), "ok");
  for (const char* command : {"evict", "restore"}) {
    const Outcome got = allot({command, "a"});
    EXPECT_EQ(got.out.find("in 0.00 s"), std::string::npos) << got.out;
    // "in 0.52 s, 9.80 GB/s": no rate over less than 0.05 s.
    if (const size_t rate = got.out.find(" s, "); rate != std::string::npos) {
      const size_t begin = got.out.rfind(' ', rate - 1);
      EXPECT_GE(std::stod(got.out.substr(begin)), 0.05) << got.out;
    }
  }
}

}  // namespace
}  // namespace allot::e2e
