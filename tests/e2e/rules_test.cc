// The administrator's rules: what users may have, whatever way they ask.
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/e2e/users.h"

namespace allot::e2e {
namespace {

namespace fs = std::filesystem;

// /etc of the test's own, over the machine's.
class RulesOf : public Users {
 protected:
  void SetUp() override {
    Users::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    fs::create_directories("/run/etc/upper");
    fs::create_directories("/run/etc/work");
    if (!mount_over("overlay", "/etc", "overlay", 0,
                    "lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work")) {
      GTEST_SKIP() << "no permission to mount an overlay here";
    }
    fs::remove_all("/etc/allot");
    fs::create_directories("/etc/allot/limits.d");
  }

  static void write(const std::string& name, const std::string& text) {
    std::ofstream("/etc/allot/" + name) << text;
  }

  Outcome run(unsigned user, Words flags) {
    Words words = {"run", "--sim"};
    words.insert(words.end(), flags.begin(), flags.end());
    words.insert(words.end(), {"--", "true"});
    return as(user, words);
  }

  // What a slice without any flag has.
  nlohmann::json usual(unsigned user) {
    const auto program = gpu_program_as(user, {"--name", "u"});
    return json_as(user, {"ps", "--json"})["slices"][0];
  }

  void preload() {
    const std::string lib = fs::path(open_allot()).parent_path().parent_path().string() + "/lib/";
    environment["LD_PRELOAD"] = environment["LD_PRELOAD"] + " " + lib + "allot/libcuda.so.1";
    environment["ALLOT_REAL_CUDA"] = lib + "allot-sim/libcuda.so.1";
    environment["ALLOT_REAL_NVML"] = lib + "allot-sim/libnvidia-ml.so.1";
    environment["ALLOT_FAIL"] = "closed";
  }
};

TEST_F(RulesOf, BoundsHoldForRunAndSetAndNameTheirLine) {
  write("allot.conf",
        "[all]\nmost-gpu-mem = 8G\nmost-gpu-share = 30\nmost-gpu-max = 50%\n"
        "most-priority = normal\n");
  expect_refused(run(kAnn, {"--gpu-mem", "9G"}), {"9 GiB", "8 GiB", "/etc/allot/allot.conf:2"});
  expect_refused(run(kAnn, {"--gpu-mem", "none"}), {"none is more", "allot.conf:2"});
  expect_refused(run(kAnn, {"--gpu-share", "31"}), {"31%", "30%", "allot.conf:3"});
  expect_refused(run(kAnn, {"--gpu-max", "51"}), {"51%", "50%", "allot.conf:4"});
  expect_refused(run(kAnn, {"--priority", "high"}), {"high", "normal", "allot.conf:5"});
  const auto program = gpu_program_as(
      kAnn, {"--name", "a", "--gpu-mem", "4G", "--gpu-share", "20", "--gpu-max", "40"});
  expect_refused(as(kAnn, {"set", "a", "--gpu-mem", "9G"}), {"allot.conf:2"});
  expect_refused(as(kAnn, {"set", "a", "--gpu-share", "31"}), {"allot.conf:3"});
  expect_refused(as(kAnn, {"set", "a", "--gpu-max", "none"}), {"allot.conf:4"});
  expect_refused(as(kAnn, {"set", "a", "--priority", "high"}), {"allot.conf:5"});
  EXPECT_EQ(
      as(kAnn, {"set", "a", "--gpu-mem", "8G", "--gpu-share", "30", "--gpu-max", "50"}).status, 0);
  // Root is who makes the rules.
  EXPECT_EQ(as(0, {"set", "a", "--gpu-mem", "9G"}).status, 0);
  EXPECT_EQ(run(0, {"--gpu-mem", "9G"}).status, 0);
}

TEST_F(RulesOf, DefaultsAndBoundsAreTheLimitsOfASliceWithoutFlags) {
  write("allot.conf",
        "[all]\nmost-gpu-mem = 8G\ngpu-share = 10\nmost-gpu-max = 50\npriority = low\n");
  auto slice = usual(kAnn);
  EXPECT_EQ(slice["gpus"][0]["limit_bytes"], 8 * kGiB);
  EXPECT_EQ(slice["gpus"][0]["share_percent"], 10);
  EXPECT_EQ(slice["gpus"][0]["max_percent"], 50);
  EXPECT_EQ(slice["priority"], "low");
  write("limits.d/a.conf", "[all]\ngpu-mem = 2G\n");
  EXPECT_EQ(usual(kAnn)["gpus"][0]["limit_bytes"], 2 * kGiB);
}

TEST_F(RulesOf, AUsersOwnSectionCountsBeforeTheGroupsAndThatBeforeAll) {
  write("allot.conf",
        "[user 64101]\nmost-gpu-share = 40\n[group 64101]\nmost-gpu-share = 30\n"
        "[group 64102]\nmost-gpu-share = 30\n[all]\nmost-gpu-share = 20\n");
  write("limits.d/90.conf", "[group 64102]\nmost-gpu-share = 25 # the last of equals\n");
  EXPECT_EQ(run(kAnn, {"--gpu-share", "40"}).status, 0);
  expect_refused(run(kAnn, {"--gpu-share", "41"}), {"allot.conf:2"});
  expect_refused(run(kBob, {"--gpu-share", "26"}), {"limits.d/90.conf:2"});
  EXPECT_EQ(run(kBob, {"--gpu-share", "25"}).status, 0);
  expect_refused(run(kAnn + 5, {"--gpu-share", "21"}), {"allot.conf:8"});
}

TEST_F(RulesOf, NumberOfSlices) {
  write("limits.d/few.conf", "[all]\nmost-slices = 1\n");
  const auto program = gpu_program_as(kAnn, {"--name", "a"});
  expect_refused(run(kAnn, {}), {"you have 1 slice", "few.conf:2", "allows 1"});
  EXPECT_EQ(run(kBob, {}).status, 0);
}

TEST_F(RulesOf, ProgramsWithoutTheCommandAreBoundToo) {
  write("allot.conf", "[all]\nmost-gpu-mem = 2G\nmost-gpu-max = 50\n");
  preload();
  environment["ALLOT_GPU_MEM"] = "12G";
  {
    const auto asks = start_program_as(kAnn, {open_gpu_program()});
    ASSERT_EQ(asks->line(), "ready");
    EXPECT_EQ(ask(*asks, "alloc " + std::to_string(3 * kGiB)), "2");
    EXPECT_EQ(ask(*asks, "alloc " + std::to_string(kGiB)), "ok");
  }
  // Also where nothing at all is asked for.
  environment["ALLOT_GPU_MEM"] = "";
  const auto silent = start_program_as(kAnn, {open_gpu_program()});
  ASSERT_EQ(silent->line(), "ready");
  EXPECT_EQ(ask(*silent, "alloc " + std::to_string(3 * kGiB)), "2");
  EXPECT_EQ(ask(*silent, "alloc " + std::to_string(kGiB)), "ok");
  environment["LD_PRELOAD"] = ALLOT_SANITIZER_PRELOAD;
  EXPECT_EQ(json_as(kAnn, {"ps", "--json"})["slices"][0]["gpus"][0]["max_percent"], 50);
}

// Whatever cannot be understood is no permission; the line says where it stands.
TEST_F(RulesOf, AFileThatCannotBeUnderstoodAllowsNothing) {
  const std::pair<const char*, const char*> kWrong[] = {
      {"[all]\nmost-gpu-mem = 8\n", "allot.conf:2: 'most-gpu-mem = 8' cannot be read"},
      {"[all]\nmost-gpu-mme = 8G\n", "allot.conf:2: 'most-gpu-mme' is no setting"},
      {"most-gpu-mem = 8G\n", "allot.conf:1: 'most-gpu-mem = 8G' is in no section"},
      {"[every]\n", "allot.conf:1: '[every]' is no section"},
      {"[all\n", "allot.conf:1: '[all' is no section"},
      {"[all]\n\ngpu-share\n", "allot.conf:3: 'gpu-share' sets nothing"},
      {"[all]\npriority = highest\n", "allot.conf:2: 'priority = highest' cannot be read"},
      {"[all]\nmost-slices = -1\n", "allot.conf:2: 'most-slices = -1' cannot be read"}};
  for (const auto& [text, said] : kWrong) {
    SCOPED_TRACE(text);
    write("allot.conf", text);
    expect_refused(run(kAnn, {}), {said});
    expect_refused(run(0, {}), {said});
  }
  write("allot.conf", "[all]\nmost-gpu-mem = 8\n");
  const Outcome doctor = as(kAnn, {"doctor", "--sim"});
  EXPECT_NE(doctor.out.find("allot.conf:2"), std::string::npos) << doctor.out;
  preload();
  const Outcome closed = program_as(kAnn, {open_gpu_program()});
  EXPECT_NE(closed.err.find("allot.conf:2: 'most-gpu-mem = 8' cannot be read"), std::string::npos)
      << closed.err;
  environment["LD_PRELOAD"] = ALLOT_SANITIZER_PRELOAD;
  write("allot.conf", "[all]\nmost-gpu-mem = 8G\n");
  ASSERT_EQ(chmod("/etc/allot/allot.conf", 0666), 0);
  expect_refused(run(kAnn, {}), {"/etc/allot/allot.conf: must be root's"});
  ASSERT_EQ(chmod("/etc/allot/allot.conf", 0600), 0);
  expect_refused(run(kAnn, {}), {"/etc/allot/allot.conf: cannot be opened"});
}

TEST_F(RulesOf, DoctorSaysWhatAppliesToWhomAndWhy) {
  write("allot.conf", "[all]\nmost-gpu-mem = 8G\n[user 64101]\nmost-gpu-share = 40\n");
  const Outcome ann = as(kAnn, {"doctor", "--sim"});
  EXPECT_NE(ann.out.find("64101: most-gpu-mem 8 GiB, by /etc/allot/allot.conf:2"),
            std::string::npos)
      << ann.out;
  EXPECT_NE(ann.out.find("64101: most-gpu-share 40%, by /etc/allot/allot.conf:4"),
            std::string::npos)
      << ann.out;
  const Outcome root = as(0, {"doctor", "--sim"});
  EXPECT_NE(root.out.find("[user 64101] most-gpu-share = 40 (/etc/allot/allot.conf:4)"),
            std::string::npos)
      << root.out;
}

TEST_F(RulesOf, AUserNamespaceIsNoWayAroundThem) {
  write("allot.conf", "[all]\nmost-gpu-mem = 8G\n");
  if (program_as(kBob, {"unshare", "-Ur", "true"}).status != 0) GTEST_SKIP() << "no namespaces";
  expect_refused(program_as(kBob, {"unshare", "-Ur", open_allot(), "run", "--sim", "--gpu-mem",
                                   "9G", "--", "true"}),
                 {"allot.conf:2"});
}

TEST_F(RulesOf, ASealedSliceIsLoweredAndNeverRaised) {
  const auto program = gpu_program_as(
      kAnn, {"--name", "a", "--gpu-mem", "4G", "--gpu-share", "30", "--gpu-max", "50"});
  expect_refused(as(kAnn, {"set", "a", "--seal"}), {"only root may"});
  EXPECT_EQ(as(0, {"set", "a", "--seal"}).status, 0);
  EXPECT_EQ(json_as(kAnn, {"ps", "--json"})["slices"][0]["sealed"], true);
  for (const Words& raise :
       {Words{"--gpu-mem", "5G"}, Words{"--gpu-mem", "none"}, Words{"--gpu-share", "31"},
        Words{"--gpu-max", "51"}, Words{"--gpu-max", "none"}, Words{"--priority", "high"},
        Words{"--level", "observe"}}) {
    SCOPED_TRACE(raise[0] + " " + raise[1]);
    Words words = {"set", "a"};
    words.insert(words.end(), raise.begin(), raise.end());
    expect_refused(as(kAnn, words), {"root has sealed"});
  }
  expect_refused(as(kAnn, {"set", "a", "--unseal"}), {"only root may"});
  // Root of a user namespace is who made it.
  if (program_as(kAnn, {"unshare", "-Ur", "true"}).status == 0) {
    expect_refused(program_as(kAnn, {"unshare", "-Ur", open_allot(), "set", "a", "--unseal"}),
                   {"only root may"});
    expect_refused(
        program_as(kAnn, {"unshare", "-Ur", open_allot(), "set", "a", "--gpu-mem", "none"}),
        {"root has sealed"});
  }
  // Lower, and back up to the seal.
  EXPECT_EQ(as(kAnn, {"set", "a", "--gpu-mem", "2G", "--gpu-share", "10", "--gpu-max", "20",
                      "--priority", "low"})
                .status,
            0);
  EXPECT_EQ(as(kAnn, {"set", "a", "--gpu-mem", "4G", "--gpu-share", "30", "--gpu-max", "50",
                      "--priority", "normal"})
                .status,
            0);
  EXPECT_EQ(as(0, {"set", "a", "--gpu-mem", "6G", "--unseal"}).status, 0);
  EXPECT_EQ(as(kAnn, {"set", "a", "--gpu-mem", "8G"}).status, 0);
}

}  // namespace
}  // namespace allot::e2e
