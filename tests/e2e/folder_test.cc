// The region's folder as others may leave it: a full disk, and a user who wants to change another
// user's slice. One line each, and nothing has changed.
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "tests/e2e/machine.h"

namespace allot::e2e {
namespace {

using Words = std::vector<std::string>;

constexpr unsigned kNobody = 65534;

class Folder : public Machine {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root to mount, and to act as two users";
  }

  void expect_one_line(const Outcome& got, const Words& must_say) {
    EXPECT_EQ(got.status, 125) << got.err;
    EXPECT_EQ(std::count(got.err.begin(), got.err.end(), '\n'), 1) << got.err;
    for (const std::string& text : must_say)
      EXPECT_NE(got.err.find(text), std::string::npos) << got.err;
  }

  // The command with its libraries where others may read them: a checkout may lie in a home that is
  // closed to them.
  const std::string& open_binary() {
    namespace fs = std::filesystem;
    if (!open_binary_.empty()) return open_binary_;
    const fs::path from = fs::path(ALLOT_BINARY).parent_path().parent_path();
    const fs::path to = folder() + "/open";
    fs::create_directories(to / "bin");
    fs::copy_file(ALLOT_BINARY, to / "bin/allot");
    fs::copy(from / "lib", to / "lib",
             fs::copy_options::recursive | fs::copy_options::copy_symlinks);
    return open_binary_ = (to / "bin/allot").string();
  }

  Outcome as_nobody(Words words) {
    const std::string id = std::to_string(kNobody);
    words.insert(words.begin(),
                 {"setpriv", "--reuid", id, "--regid", id, "--clear-groups", open_binary()});
    std::map<std::string, std::string> changes = environment;
    changes["ALLOT_SIM_DIR"] = folder() + "/sim of nobody";
    Command command(std::move(words), changes);
    command.close_input();
    const int status = command.wait();
    return {status, command.out(), command.err()};
  }

 private:
  std::string open_binary_;
};

TEST_F(Folder, AFullDiskIsOneLineAndNothingHalfMadeStays) {
  if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      mount("tmpfs", region().c_str(), "tmpfs", 0, "size=16k,mode=0700") != 0) {
    GTEST_SKIP() << "no permission to mount a file system here";
  }
  expect_one_line(allot({"run", "--sim", "--name", "a", "--", "true"}), {"no room left"});
  EXPECT_TRUE(region_files().empty());
  ASSERT_EQ(umount(region().c_str()), 0);
  EXPECT_EQ(allot({"run", "--sim", "--name", "a", "--", "true"}).status, 0);
}

TEST_F(Folder, AnotherUsersSliceCannotBeChanged) {
  ASSERT_EQ(chown(region().c_str(), 0, kNobody), 0);
  ASSERT_EQ(chmod(region().c_str(), 03770), 0);
  ASSERT_EQ(chmod(folder().c_str(), 0755), 0);
  const std::string sim = folder() + "/sim of nobody";  // each user has a software GPU of their own
  ASSERT_EQ(mkdir(sim.c_str(), 0700), 0);
  ASSERT_EQ(chown(sim.c_str(), kNobody, kNobody), 0);
  const auto program = start_gpu_program({"--name", "a", "--gpu-mem", "2G"});
  if (as_nobody({"--version"}).status != 0) GTEST_SKIP() << "another user cannot run the command";
  for (const Words& words :
       {Words{"set", "a", "--gpu-mem", "1G"}, Words{"set", "a", "--priority", "high"},
        Words{"freeze", "a"}, Words{"thaw", "a"}, Words{"evict", "a"}, Words{"restore", "a"}}) {
    SCOPED_TRACE(words[0]);
    expect_one_line(as_nobody(words), {"'a' is another user's slice, root's", "only its owner"});
  }
  // Not by a link of their own either.
  std::filesystem::create_symlink(region() + "/a.slice", region() + "/b.slice");
  ASSERT_EQ(lchown((region() + "/b.slice").c_str(), kNobody, kNobody), 0);
  expect_one_line(as_nobody({"freeze", "b"}), {"b.slice is a link"});
  // Nor does it become theirs because they ask for it.
  expect_one_line(as_nobody({"run", "--sim", "--name", "a", "--", "true"}),
                  {"'a' is root's; choose another name"});
  const auto slice = json_of({"ps", "--json"})["slices"][0];
  EXPECT_EQ(slice["gpus"][0]["limit_bytes"], 2 * kGiB);
  EXPECT_EQ(slice["frozen"], false);
  EXPECT_EQ(slice["evicted"], false);
  EXPECT_EQ(slice["priority"], "normal");
  EXPECT_EQ(ask(*program, "alloc 1048576"), "ok");
}

}  // namespace
}  // namespace allot::e2e
