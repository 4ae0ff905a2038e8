// A process finds its slice without the environment: by the folder's file `self`, or by its cgroup.
// The library comes by /etc/ld.so.preload then.
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/e2e/users.h"

namespace allot::e2e {
namespace {

namespace fs = std::filesystem;

class Found : public Users {
 protected:
  void SetUp() override {
    Users::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    lib_ = fs::path(open_allot()).parent_path().parent_path().string() + "/lib/";
  }

  void TearDown() override {
    if (!group_.empty()) rmdir(group_.c_str());
    Users::TearDown();
  }

  // A program with nothing in its environment but what the software GPU needs, and our library.
  std::unique_ptr<Command> bare_program(unsigned user, const std::string& before) {
    const std::string script =
        before + "exec env -i \"LD_PRELOAD=$LD_PRELOAD " + lib_ +
        "allot/libcuda.so.1\" ALLOT_SIM_DIR=" + folder() + "/sim ALLOT_REAL_CUDA=" + lib_ +
        "allot-sim/libcuda.so.1 ALLOT_REAL_NVML=" + lib_ +
        "allot-sim/libnvidia-ml.so.1 setpriv --reuid " + std::to_string(user) + " --regid " +
        std::to_string(user) + " --clear-groups " + open_gpu_program();
    return std::make_unique<Command>(Words{"/bin/sh", "-c", script}, environment);
  }

  // A slice of 1 GiB of the user's, which a program outside holds.
  std::unique_ptr<Command> holder(unsigned user, const std::string& name, Words flags) {
    Words words = {"run", "--sim", "--name", name, "--gpu-mem", "1G"};
    words.insert(words.end(), flags.begin(), flags.end());
    words.insert(words.end(), {"--", "cat"});
    auto command = start_as(user, words);
    EXPECT_TRUE(wait_until([&] { return fs::exists("/run/allot/" + name + ".slice"); }));
    return command;
  }

  static bool is_held(Command& program) {
    return program.line() == "ready" && ask(program, "alloc " + std::to_string(2 * kGiB)) == "2" &&
           ask(program, "alloc 1048576") == "ok";
  }
  static bool is_free(Command& program) {
    return program.line() == "ready" && ask(program, "alloc " + std::to_string(2 * kGiB)) == "ok";
  }

  // A cgroup that this test may make, where a launcher looks first; false where there is none.
  bool make_group() {
    std::map<std::string, std::string> found;  // where, by kind
    std::ifstream mounts("/proc/self/mounts");
    for (std::string device, where, type, options, rest;
         mounts >> device >> where >> type >> options && std::getline(mounts, rest);) {
      if (type == "cgroup2") found["a"] = where;
      if (type != "cgroup") continue;
      if (options.find("name=systemd") != std::string::npos) found["b"] = where;
      if (options.find("freezer") != std::string::npos) found["c"] = where;
    }
    for (const auto& [kind, where] : found) {
      group_ = where + "/allot-test-" + std::to_string(getpid());
      if (mkdir(group_.c_str(), 0755) == 0) return true;
    }
    group_.clear();
    return false;
  }
  const std::string& group() const { return group_; }

 private:
  std::string lib_, group_;
};

TEST_F(Found, ByTheFileSelf) {
  const auto ann = holder(kAnn, "job", {});
  {
    const auto before = bare_program(kAnn, "");
    EXPECT_TRUE(is_free(*before));
  }
  std::ofstream("/run/allot/self") << "job\n";
  {
    const auto inside = bare_program(kAnn, "");
    EXPECT_TRUE(is_held(*inside));
  }
  // Another user's process cannot be in it, and does not run free.
  const auto other = bare_program(kBob, "");
  other->close_input();
  other->wait();
  EXPECT_NE(other->err().find("cannot be joined"), std::string::npos) << other->err();
  std::ofstream("/run/allot/self") << "/run/allot/job.slice\n";
  const auto by_path = bare_program(kAnn, "");
  EXPECT_TRUE(is_held(*by_path));
}

// Everybody may make files in the folder: only the word of the folder's owner counts.
TEST_F(Found, AFileSelfOfAnotherUserDrawsNobodyIn) {
  const auto bob = holder(kBob, "job", {});
  std::ofstream("/run/allot/self") << "job\n";
  ASSERT_EQ(chown("/run/allot/self", kBob, kBob), 0);
  const auto ann = bare_program(kAnn, "");
  ann->line();
  EXPECT_EQ(json_as(kBob, {"ps", "--json"})["slices"][0]["processes"].size(), 0u);
}

TEST_F(Found, ByTheCgroupThatItsSliceClaims) {
  if (!make_group()) GTEST_SKIP() << "no cgroup may be made here";
  const std::string enter = "echo $$ >" + group() + "/cgroup.procs; ";
  // The launcher claims the group in which it is.
  Command launcher({"sh", "-c",
                    enter + "exec setpriv --reuid 64101 --regid 64101 --clear-groups " +
                        open_allot() + " run --sim --cgroup --name job --gpu-mem 1G -- cat"},
                   environment);
  ASSERT_TRUE(wait_until([] { return fs::exists("/run/allot/job.slice"); }));
  const auto inside = bare_program(kAnn, enter);
  EXPECT_TRUE(is_held(*inside));
  const auto outside = bare_program(kAnn, "");
  EXPECT_TRUE(is_free(*outside));
  const auto other = bare_program(kBob, enter);  // in the job's group, but not its user
  EXPECT_TRUE(is_free(*other));
  for (Command* one : {inside.get(), outside.get(), other.get(), &launcher}) {
    one->close_input();
    one->wait();
  }
}

TEST_F(Found, TheRootCgroupIsNobodys) {
  std::ifstream own("/proc/self/cgroup");
  for (std::string line; std::getline(own, line);) {
    if (!line.ends_with(":/")) GTEST_SKIP() << "this test is not in the root cgroup";
  }
  expect_refused(as(kAnn, {"run", "--sim", "--cgroup", "--", "true"}), {"--cgroup: ", "--unit"});
  EXPECT_TRUE(fs::is_empty("/run/allot"));
}

// As an administrator may set it up: every program of the machine loads the library.
TEST_F(Found, WithThePreloadOfTheMachineNothingIsLost) {
  fs::create_directories("/run/etc/upper");
  fs::create_directories("/run/etc/work");
  if (!mount_over("overlay", "/etc", "overlay", 0,
                  "lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work")) {
    GTEST_SKIP() << "no permission to mount an overlay here";
  }
  if (std::string(ALLOT_SANITIZER_PRELOAD) != "")
    GTEST_SKIP() << "a sanitizer must be loaded first";
  const std::string lib = fs::path(open_allot()).parent_path().parent_path().string() + "/lib/";
  std::ofstream("/etc/ld.so.preload") << lib << "allot/libcuda.so.1\n";
  const auto ann = holder(kAnn, "job", {});
  std::ofstream("/run/allot/self") << "job\n";
  Command inside({"env", "-i", "ALLOT_SIM_DIR=" + folder() + "/sim",
                  "ALLOT_REAL_CUDA=" + lib + "allot-sim/libcuda.so.1", "setpriv", "--reuid",
                  "64101", "--regid", "64101", "--clear-groups", open_gpu_program()},
                 {});
  EXPECT_TRUE(is_held(inside));
  inside.close_input();
  EXPECT_EQ(inside.wait(), 0);
  EXPECT_EQ(inside.err(), "");
}

}  // namespace
}  // namespace allot::e2e
