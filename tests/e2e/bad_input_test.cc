// What a user can get wrong, and a machine: one line that says what was wrong, what was found and
// what to do; exit 2 or 125 (126, 127); nothing half-made stays.
#include <fcntl.h>
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

class BadInput : public Machine {
 protected:
  // Every refusal has this form; returns its line.
  std::string refused(const Words& words, int status, const Words& must_say) {
    const std::vector<std::string> before = region_files();
    const Outcome got = allot(words);
    EXPECT_EQ(got.status, status) << got.err;
    EXPECT_EQ(got.out, "");
    EXPECT_TRUE(got.err.starts_with("allot: ")) << got.err;
    EXPECT_EQ(std::count(got.err.begin(), got.err.end(), '\n'), 1) << got.err;
    for (const std::string& text : must_say)
      EXPECT_NE(got.err.find(text), std::string::npos) << got.err;
    EXPECT_EQ(region_files(), before) << "nothing half-made stays";
    return got.err;
  }
  Words run(Words flags, const std::string& program = "true") {
    flags.insert(flags.begin(), {"run", "--sim"});
    flags.insert(flags.end(), {"--", program});
    return flags;
  }
};

TEST_F(BadInput, ASizeThatIsNone) {
  refused(run({"--gpu-mem", "8X"}), 2, {"--gpu-mem", "'8X'", "such as 8G"});
  refused(run({"--gpu-mem", "0"}), 2, {"--gpu-mem", "'0'"});
  refused(run({"--gpu-mem", "0:"}), 2, {"--gpu-mem", "''"});
}

TEST_F(BadInput, AShareOf0And101) {
  refused(run({"--gpu-share", "0"}), 2, {"--gpu-share", "'0'", "0.1 to 100"});
  refused(run({"--gpu-share", "101"}), 2, {"--gpu-share", "'101'", "0.1 to 100"});
  refused(run({"--gpu-max", "101"}), 2, {"--gpu-max", "'101'"});
  refused(run({"--gpu-share", "0.25"}), 2, {"'0.25'", "steps of 0.1"});
  refused(run({"--gpu-share", "30", "--gpu-max", "20"}), 2, {"--gpu-max", "below the share"});
  refused(run({"--priority", "urgent"}), 2, {"--priority", "'urgent'", "high, normal or low"});
  refused(run({"--level", "gpu"}), 2, {"--level", "'gpu'", "channel"});
}

TEST_F(BadInput, AnUnknownGpu) {
  refused(run({"--gpu", "7"}), 125, {"--gpu", "'7'", "0 (GPU-", "allot gpus"});
  refused(run({"--gpu", "GPU-ffffffff"}), 125, {"--gpu", "GPU-ffffffff"});
  refused(run({"--gpu-mem", "7:1G"}), 125, {"--gpu-mem", "'7'"});
  refused(run({"--gpu", ""}), 2, {"--gpu"});
}

TEST_F(BadInput, ALimitAboveTheCard) {
  refused(run({"--gpu-mem", "17G"}), 125,
          {"--gpu-mem", "17 GiB", "16 GiB", std::to_string(17 * kGiB), std::to_string(16 * kGiB)});
}

TEST_F(BadInput, ANameInUse) {
  const auto first = start_gpu_program({"--name", "a"});
  refused(run({"--name", "a"}), 125, {"'a'", "in use", "allot ps"});
}

TEST_F(BadInput, ABadName) {
  for (const char* name : {"", ".a", "-a", "a/b", "a b"}) {
    refused(run({"--name=" + std::string(name)}), 2, {"--name"});
  }
  refused({"set", "../x", "--gpu-mem", "1G"}, 2, {"../x"});
}

TEST_F(BadInput, NoPermissionOnTheRegionsFolder) {
  if (geteuid() == 0) {
    // Root may write everywhere; but a folder that anybody may write is refused to root as well.
    ASSERT_EQ(chmod(region().c_str(), 0777), 0);
    refused(run({"--name", "a"}), 125, {region(), "mode 0777", "chmod 0700", "ALLOT_DIR"});
  } else {
    ASSERT_EQ(chmod(region().c_str(), 0500), 0);
    refused(run({"--name", "a"}), 125, {region(), "permission", "ALLOT_DIR"});
  }
  chmod(region().c_str(), 0700);
  const std::string link = folder() + "/link";
  std::filesystem::create_symlink(region(), link);
  environment["ALLOT_DIR"] = link;
  refused(run({"--name", "a"}), 125, {link, "a link"});
  environment["ALLOT_DIR"] = "relative";
  refused(run({"--name", "a"}), 125, {"relative"});
}

TEST_F(BadInput, ARegionFileOfAnotherVersion) {
  {
    const auto maker =
        start({"run", "--sim", "--name", "a", "--", "sh", "-c", "echo ready; read x"});
    ASSERT_EQ(maker->line(), "ready");
    std::filesystem::copy_file(region() + "/a.slice", folder() + "/copy");
  }
  const std::string path = region() + "/a.slice";
  std::filesystem::rename(folder() + "/copy", path);
  const int file = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  const uint32_t other = ALLOT_REGION_MAJOR + 1;
  ASSERT_EQ(pwrite(file, &other, sizeof other, offsetof(AllotHeader, major)),
            static_cast<ssize_t>(sizeof other));
  close(file);
  refused(run({"--name", "a"}), 125, {"'a'", "another version", path});
  refused({"set", "a", "--gpu-mem", "1G"}, 125, {"another version", path});
  // Listings and other slices keep working.
  const auto listing = json_of({"ps", "--json"});
  ASSERT_EQ(listing["unreadable"].size(), 1u);
  EXPECT_EQ(listing["unreadable"][0]["path"], path);
  EXPECT_EQ(allot(run({"--name", "b"})).status, 0);
  EXPECT_EQ(region_files(), Words{"a.slice"}) << "and the foreign file is left alone";
}

TEST_F(BadInput, ADamagedRegionFileIsReplaced) {
  std::ofstream(region() + "/a.slice") << "not a region";
  EXPECT_EQ(json_of({"ps", "--json"})["unreadable"].size(), 1u);
  EXPECT_EQ(allot(run({"--name", "a"})).status, 0);
  EXPECT_TRUE(region_files().empty());
}

TEST_F(BadInput, NoLibcuda) {
  environment["ALLOT_REAL_CUDA"] = "/nonexistent/libcuda.so.1";
  environment["ALLOT_REAL_NVML"] = "/nonexistent/libnvidia-ml.so.1";
  refused({"run", "--gpu-mem", "1G", "--", "true"}, 125, {"libcuda.so.1 was not found", "--sim"});
  refused({"gpus"}, 125, {"no NVIDIA driver", "--sim"});
  // Open: it runs, says so, and limits nothing.
  const Outcome open = allot({"run", "--fail", "open", "--", "echo", "ran"});
  EXPECT_EQ(open.status, 0) << open.err;
  EXPECT_EQ(open.out, "ran\n");
  EXPECT_NE(open.err.find("no GPU is limited"), std::string::npos) << open.err;
}

TEST_F(BadInput, NoProgramAndAMissingOne) {
  refused({"run", "--sim"}, 2, {"no program"});
  refused(run({"--name", "a"}, "/nonexistent/program"), 127, {"/nonexistent/program"});
  refused(run({"--name", "a"}, "no-such-program-anywhere"), 127, {"PATH"});
  refused(run({"--name", "a"}, "/etc/passwd"), 126, {"/etc/passwd", "cannot be executed"});
  const std::string script = folder() + "/script";
  std::ofstream(script) << "#!/nonexistent/interpreter\n";
  chmod(script.c_str(), 0755);
  refused(run({"--name", "a"}, script), 127, {script, "interpreter"});
  refused(run({"--name", "a", "--exec"}, script), 127, {script});
}

TEST_F(BadInput, UnknownCommandsAndFlags) {
  refused({"frobnicate"}, 2,
          {"'frobnicate'", "run, ps, gpus, set, freeze, thaw, stop, evict, restore, log, doctor, demo"});
  refused({"ps", "--frobnicate"}, 2, {"--frobnicate", "allot ps --help"});
  refused({"run", "--frobnicate", "--", "true"}, 2, {"--frobnicate", "allot run --help"});
  refused(run({"--fail", "maybe"}), 2, {"--fail", "'maybe'"});
}

TEST_F(BadInput, SettingWhatIsNotThere) {
  refused({"set", "nobody", "--gpu-mem", "1G"}, 125, {"'nobody'", "allot ps"});
  const auto program = start_gpu_program({"--name", "a", "--gpu-mem", "1G"});
  refused({"set", "a", "--gpu-mem", "17G"}, 125, {"17 GiB", "16 GiB"});
  refused({"set", "a", "--gpu-mem", "3:1G"}, 125, {"GPU 3"});
  refused({"set", "a", "--gpu-mem", "1Z"}, 2, {"'1Z'"});
  EXPECT_EQ(json_of({"ps", "--json"})["slices"][0]["gpus"][0]["limit_bytes"], kGiB);
}

TEST_F(BadInput, SharesThatSumToMoreThanAGpu) {
  environment["ALLOT_SIM_GPUS"] = "2x16G";
  const auto alice = start_gpu_program({"--gpu", "0", "--gpu-share", "40", "--name", "alice"});
  const auto bob = start_gpu_program({"--gpu", "0", "--gpu-share", "30", "--name", "bob"});
  const Words wanted = {"--gpu-share", "GPU 0",
                        "more than the 30% that is unreserved (alice has 40%, bob has 30%)",
                        "--overcommit"};
  refused(run({"--gpu-share", "30.1", "--name", "c"}), 125, wanted);
  refused({"set", "bob", "--gpu-share", "61"}, 125,
          {"--gpu-share", "more than the 60% that is unreserved (alice has 40%)"});
  EXPECT_EQ(allot(run({"--gpu", "1", "--gpu-share", "100"})).status, 0) << "the other GPU is free";
  EXPECT_EQ(allot(run({"--gpu-share", "30"})).status, 0) << "up to the whole";
  EXPECT_EQ(allot(run({})).status, 0) << "who asks for no share fits always";
  EXPECT_EQ(allot(run({"--gpu-share", "90", "--overcommit"})).status, 0);
  EXPECT_EQ(allot({"set", "bob", "--gpu-share", "60"}).status, 0);
  EXPECT_EQ(allot({"set", "bob", "--gpu-share", "61", "--overcommit"}).status, 0);
  EXPECT_EQ(allot({"set", "bob", "--gpu-share", "60.5"}).status, 0) << "less is always allowed";
  bob->write("exit 0\n");
  bob->wait();
  EXPECT_EQ(allot(run({"--gpu", "0", "--gpu-share", "60"})).status, 0) << "what ended has none";
}

TEST_F(BadInput, GpuTimeThatCannotBeSet) {
  const auto program = start_gpu_program({"--name", "a", "--gpu-share", "30", "--gpu-max", "50"});
  refused({"set", "a"}, 2, {"nothing to change"});
  refused({"set", "a", "--gpu-share", "0"}, 2, {"'0'"});
  refused({"set", "a", "--gpu-share", "60"}, 125, {"50%", "below the share of 60%", "both"});
  refused({"set", "a", "--gpu-max", "20"}, 125, {"--gpu-max", "20%", "30%"});
  // Nothing of a command that is refused is done.
  refused({"set", "a", "--priority", "low", "--gpu-mem", "17G"}, 125, {"17 GiB"});
  const auto slice = json_of({"ps", "--json"})["slices"][0];
  EXPECT_EQ(slice["priority"], "normal");
  EXPECT_EQ(slice["gpus"][0]["share_percent"], 30.0);
  EXPECT_EQ(slice["gpus"][0]["max_percent"], 50.0);
}

TEST_F(BadInput, FreezingWhatIsNotThere) {
  refused({"freeze", "nobody"}, 125, {"freeze", "'nobody'", "allot ps"});
  refused({"thaw", "nobody"}, 125, {"thaw", "'nobody'"});
  refused({"freeze", ".a"}, 2, {"'.a'"});
}

}  // namespace
}  // namespace allot::e2e
