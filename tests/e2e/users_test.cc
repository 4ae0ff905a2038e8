// Two users and more on one machine: what one is promised counts for the others, and nobody sees or
// changes what is another's.
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/e2e/users.h"

namespace allot::e2e {
namespace {

using Words = std::vector<std::string>;
namespace fs = std::filesystem;

std::string file_with(const std::string& folder, const std::string& beginning,
                      const std::string& ending) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    if (name.starts_with(beginning) && name.ends_with(ending)) return entry.path();
  }
  return "";
}

TEST_F(Users, SharesOfAllUsersAreCountedTogether) {
  const auto ann = gpu_program_as(kAnn, {"--name", "a", "--gpu-share", "30"});
  expect_refused(as(kBob, {"run", "--sim", "--gpu-share", "80", "--", "true"}),
                 {"80%", "70%", "a of 64101 has 30%"});
  EXPECT_EQ(as(kBob, {"run", "--sim", "--gpu-share", "70", "--", "true"}).status, 0);
  EXPECT_EQ(as(kBob, {"run", "--sim", "--gpu-share", "80", "--overcommit", "--", "true"}).status,
            0);
  const auto bob = gpu_program_as(kBob, {"--name", "b", "--gpu-share", "10"});
  expect_refused(as(kBob, {"set", "b", "--gpu-share", "71"}), {"71%", "a of 64101 has 30%"});
  EXPECT_EQ(as(kBob, {"set", "b", "--gpu-share", "70"}).status, 0);
}

// The law behind the rows: whoever asks in whatever order, at once, the sum stays within the card,
// and what is left can be had.
TEST_F(Users, ManyUsersAtOnceNeverGetMoreThanTheCard) {
  std::vector<std::unique_ptr<Command>> asked;
  std::vector<unsigned> shares;
  for (unsigned i = 0; i < 9; ++i) {
    shares.push_back(7 + 13 * i % 40);
    asked.push_back(
        start_as(kAnn + i % 4, {"run", "--sim", "--name", "n" + std::to_string(i), "--gpu-share",
                                std::to_string(shares.back()), "--", open_gpu_program()}));
  }
  unsigned sum = 0;
  for (unsigned i = 0; i < asked.size(); ++i) {
    if (asked[i]->line() == "ready") {
      sum += shares[i];
    } else {
      EXPECT_EQ(asked[i]->wait(), 125);
      EXPECT_NE(asked[i]->err().find("unreserved"), std::string::npos) << asked[i]->err();
    }
  }
  EXPECT_LE(sum, 100u);
  EXPECT_GT(sum, 100u - 47u);  // the largest that was asked for did not fit beside the rest
  const std::string left = std::to_string(100 - sum);
  if (sum < 100) {
    EXPECT_EQ(as(kBob, {"run", "--sim", "--gpu-share", left, "--", "true"}).status, 0);
  }
  const std::string more = std::to_string(101 - sum);
  expect_refused(as(kAnn, {"run", "--sim", "--gpu-share", more, "--", "true"}), {"unreserved"});
}

TEST_F(Users, SharesFromTheEnvironmentAreCountedToo) {
  const auto ann = gpu_program_as(kAnn, {"--name", "a", "--gpu-share", "30"});
  const std::string lib = fs::path(open_allot()).parent_path().parent_path().string() + "/lib/";
  environment["LD_PRELOAD"] = environment["LD_PRELOAD"] + " " + lib + "allot/libcuda.so.1";
  environment["ALLOT_REAL_CUDA"] = lib + "allot-sim/libcuda.so.1";
  environment["ALLOT_REAL_NVML"] = lib + "allot-sim/libnvidia-ml.so.1";
  environment["ALLOT_GPU_SHARE"] = "80";
  environment["ALLOT_FAIL"] = "closed";
  const Outcome closed = program_as(kBob, {open_gpu_program()});
  EXPECT_NE(closed.err.find("share of GPU time that it asks for is not free"), std::string::npos)
      << closed.err;
  environment["ALLOT_FAIL"] = "open";
  auto open = start_program_as(kBob, {open_gpu_program()});
  EXPECT_EQ(open->line(), "ready");
  environment["ALLOT_GPU_SHARE"] = "70";
  auto fits = start_program_as(kBob, {open_gpu_program()});
  auto another = start_program_as(kAnn + 2, {open_gpu_program()});
  EXPECT_EQ(fits->line(), "ready");
  EXPECT_EQ(another->line(), "ready");
  environment["LD_PRELOAD"] = ALLOT_SANITIZER_PRELOAD;
  double sum = 0;
  const auto seen = json_as(kAnn, {"ps", "--json"})["slices"];
  for (const auto& slice : seen) {
    const auto& share = slice["gpus"][0]["share_percent"];
    sum += share.is_null() ? 0 : share.get<double>();
  }
  EXPECT_LE(sum, 100);
}

TEST_F(Users, NobodySeesWhatAnothersProcessesHold) {
  const auto ann = gpu_program_as(kAnn, {"--name", "a", "--gpu-mem", "2G", "--gpu-share", "30"});
  EXPECT_EQ(ask(*ann, "alloc 104857600"), "ok");
  const auto mine = json_as(kAnn, {"ps", "--json"})["slices"][0];
  EXPECT_EQ(mine["processes"].size(), 1u);
  const auto theirs = json_as(kBob, {"ps", "--json"})["slices"][0];
  EXPECT_EQ(theirs["name"], "a");
  EXPECT_EQ(theirs["gpus"][0]["limit_bytes"], 2 * kGiB);
  EXPECT_EQ(theirs["gpus"][0]["share_percent"], 30);
  EXPECT_EQ(theirs["gpus"][0]["used_bytes"], mine["gpus"][0]["used_bytes"]);
  EXPECT_EQ(theirs["processes"].size(), 0u);
  const std::string body = file_with("/run/allot", ".a-", ".body");
  ASSERT_FALSE(body.empty());
  EXPECT_NE(program_as(kBob, {"cat", body}).status, 0);
  struct stat about = {};
  ASSERT_EQ(stat(body.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0600u);
  // Of the head, which is all that they can read, nothing names a process or its memory by kind.
  EXPECT_EQ(fs::file_size("/run/allot/a.slice"), 24576u);
}

TEST_F(Users, NothingOfASliceStaysBehind) {
  EXPECT_EQ(as(kAnn, {"run", "--sim", "--name", "a", "--", "true"}).status, 0);
  EXPECT_TRUE(fs::is_empty("/run/allot"));
  // A launcher that is killed leaves both files; the next command of the owner clears them.
  const auto ann = gpu_program_as(kAnn, {"--name", "k"});
  ann->signal(SIGKILL);
  ann->close_input();
  ann->wait();
  EXPECT_TRUE(wait_until([&] {
    as(kAnn, {"ps"});
    return fs::is_empty("/run/allot");
  }));
  // A creator that was killed between its two files leaves a body alone.
  std::ofstream("/run/allot/.x-0123456789abcdef.body") << "x";
  ASSERT_EQ(chown("/run/allot/.x-0123456789abcdef.body", kAnn, kAnn), 0);
  EXPECT_EQ(as(kBob, {"ps"}).status, 0);
  EXPECT_FALSE(fs::is_empty("/run/allot"));
  EXPECT_EQ(as(kAnn, {"ps"}).status, 0);
  EXPECT_TRUE(fs::is_empty("/run/allot"));
}

TEST_F(Users, ANameInUseIsSaidToBeAnothers) {
  const auto ann = gpu_program_as(kAnn, {"--name", "train"});
  expect_refused(as(kBob, {"run", "--sim", "--name", "train", "--", "true"}),
                 {"'train' is 64101's; choose another name"});
  expect_refused(as(kBob, {"set", "train", "--gpu-mem", "1G"}), {"another user's slice"});
  expect_refused(as(kBob, {"freeze", "train"}), {"another user's slice"});
  expect_refused(as(kBob, {"stop", "train"}), {"another user's slice"});
  EXPECT_EQ(ask(*ann, "alloc 1048576"), "ok");
}

TEST_F(Users, AFolderOfAnotherModeIsRefusedWithTheCommandThatMendsIt) {
  for (const unsigned mode : {0755u, 0777u, 01755u, 01770u, 02775u, 0700u}) {
    SCOPED_TRACE(mode);
    make_folder(mode);
    expect_refused(as(kAnn, {"run", "--sim", "--", "true"}),
                   {"/run/allot: ", "chmod 1777 /run/allot"});
    ASSERT_EQ(chmod("/run/allot", 01777), 0);
    EXPECT_EQ(as(kAnn, {"run", "--sim", "--", "true"}).status, 0);
  }
  ASSERT_EQ(chown("/run/allot", kAnn, 0), 0);
  for (const unsigned user : {kAnn, kBob}) {
    expect_refused(as(user, {"run", "--sim", "--", "true"}),
                   {"/run/allot: ", "chown root:root /run/allot"});
  }
  fs::remove_all("/run/allot");
  fs::create_symlink("/tmp", "/run/allot");
  expect_refused(as(kAnn, {"run", "--sim", "--", "true"}), {"/run/allot: ", "a link"});
  fs::remove("/run/allot");
}

TEST_F(Users, AFolderOfAGroupSaysHowToJoin) {
  make_folder(03770, 64500);
  expect_refused(as(kAnn, {"run", "--sim", "--", "true"}),
                 {"members of the group '64500'", "adduser 64101 64500"});
  const auto bob = gpu_program_as(kBob, {"--name", "b", "--gpu-share", "30"}, {"64500"});
  // Its members see everything, and share the card.
  const Outcome seen = as(kAnn, {"ps", "--json"}, {"64500"});
  EXPECT_EQ(nlohmann::json::parse(seen.out)["slices"][0]["processes"].size(), 1u) << seen.out;
  expect_refused(as(kAnn, {"run", "--sim", "--gpu-share", "80", "--", "true"}, {"64500"}),
                 {"70%", "b of 64102"});
}

// Its share cannot be read, so no other share may be promised beside it.
TEST_F(Users, ASliceThatCannotBeReadCounts) {
  const auto ann = gpu_program_as(kAnn, {"--name", "a", "--gpu-share", "30"});
  ASSERT_EQ(chmod("/run/allot/a.slice", 0600), 0);
  expect_refused(as(kBob, {"run", "--sim", "--gpu-share", "10", "--", "true"}),
                 {"a.slice cannot be counted", "64101"});
  EXPECT_EQ(as(kBob, {"run", "--sim", "--gpu-mem", "1G", "--", "true"}).status, 0);
  EXPECT_EQ(as(kBob, {"run", "--sim", "--gpu-share", "10", "--overcommit", "--", "true"}).status,
            0);
}

// After an upgrade to another major version: what runs holds its share, and nobody knows how much.
TEST_F(Users, ASliceOfAnotherVersionCountsWhileItRuns) {
  const auto ann = gpu_program_as(kAnn, {"--name", "a", "--gpu-share", "30"});
  {
    std::fstream file("/run/allot/a.slice", std::ios::binary | std::ios::in | std::ios::out);
    const uint32_t other = 77;
    file.seekp(8);
    file.write(reinterpret_cast<const char*>(&other), 4);
  }
  expect_refused(as(kBob, {"run", "--sim", "--gpu-share", "10", "--", "true"}),
                 {"a.slice cannot be counted", "another version"});
  ann->signal(SIGKILL);
  ann->close_input();
  ann->wait();
  EXPECT_TRUE(wait_until([&] {
    return as(kBob, {"run", "--sim", "--gpu-share", "100", "--", "true"}).status == 0;
  }));
}

// Who writes what is not so promises at most what a slice can be promised, and breaks nobody.
TEST_F(Users, HostileNumbersCountAsOneCardAtMost) {
  const auto ann = gpu_program_as(kAnn, {"--name", "a", "--gpu-share", "30"});
  {
    // share_permille and max_permille of gpus[0], and the number of GPUs.
    std::fstream file("/run/allot/a.slice", std::ios::binary | std::ios::in | std::ios::out);
    const uint32_t huge = 0xffffffff;
    file.seekp(4096 + 72);
    file.write(reinterpret_cast<const char*>(&huge), 4);
  }
  expect_refused(as(kBob, {"run", "--sim", "--gpu-share", "10", "--", "true"}),
                 {"a of 64101 has 100%"});
  EXPECT_EQ(as(kBob, {"ps"}).status, 0);
  EXPECT_EQ(as(kBob, {"run", "--sim", "--gpu-mem", "1G", "--", "true"}).status, 0);
  // Not a slice at all: nothing runs in it.
  std::ofstream("/run/allot/junk.slice") << std::string(30000, 'x');
  ASSERT_EQ(chown("/run/allot/junk.slice", kAnn, kAnn), 0);
  ann->close_input();
  ann->wait();
  EXPECT_EQ(as(kBob, {"run", "--sim", "--gpu-share", "100", "--", "true"}).status, 0);
}

TEST_F(Users, AUserNamespaceHasTheSameFolder) {
  const auto ann = gpu_program_as(kAnn, {"--name", "a", "--gpu-share", "30"});
  const Outcome probe = program_as(kBob, {"unshare", "-Ur", "true"});
  if (probe.status != 0) GTEST_SKIP() << "no user namespaces here: " << probe.err;
  const Outcome seen = program_as(kBob, {"unshare", "-Ur", open_allot(), "ps", "--json"});
  ASSERT_EQ(seen.status, 0) << seen.err;
  EXPECT_EQ(nlohmann::json::parse(seen.out)["slices"][0]["name"], "a");
  expect_refused(program_as(kBob, {"unshare", "-Ur", open_allot(), "run", "--sim", "--gpu-share",
                                   "80", "--", "true"}),
                 {"70%"});
  const auto inside =
      start_program_as(kBob, {"unshare", "-Ur", open_allot(), "run", "--sim", "--name", "in",
                              "--gpu-share", "60", "--", open_gpu_program()});
  EXPECT_EQ(inside->line(), "ready");
  EXPECT_EQ(ask(*inside, "alloc 1048576"), "ok");
  expect_refused(as(kAnn, {"run", "--sim", "--gpu-share", "11", "--", "true"}), {"in of 64102"});
}

// The folder is read-only, as in a container, but for the slice's own two files.
TEST_F(Users, AReadOnlyFolderWithOnesOwnFilesIsEnough) {
  const auto bob = gpu_program_as(kBob, {"--name", "b", "--gpu-share", "30"});
  const auto holder =
      start_as(kAnn, {"run", "--sim", "--name", "a", "--gpu-mem", "1G", "--", "cat"});
  const auto held = [&] { return json_as(kAnn, {"ps", "--json"})["slices"].size() == 2u; };
  ASSERT_TRUE(wait_until(held));
  const std::string lib = fs::path(open_allot()).parent_path().parent_path().string() + "/lib/";
  const std::string script =
      "set -e; mkdir /run/rw; mount --bind /run/allot /run/rw; mount --bind /run/allot /run/allot; "
      "mount -o remount,bind,ro /run/allot; cd /run/rw; "
      "for f in a.slice .a-*.body; do mount --bind $f /run/allot/$f; done; "
      "! touch /run/allot/x 2>/dev/null; "
      "exec setpriv --reuid 64101 --regid 64101 --clear-groups env ALLOT_TENANT=/run/allot/a.slice "
      "\"LD_PRELOAD=$LD_PRELOAD " +
      lib + "allot/libcuda.so.1\" ALLOT_REAL_CUDA=" + lib +
      "allot-sim/libcuda.so.1 ALLOT_REAL_NVML=" + lib + "allot-sim/libnvidia-ml.so.1 " +
      open_gpu_program();
  Command inside({"unshare", "-m", "sh", "-c", script}, environment);
  ASSERT_EQ(inside.line(), "ready") << inside.err();
  EXPECT_EQ(ask(inside, "alloc " + std::to_string(2 * kGiB)), "2");
  EXPECT_EQ(ask(inside, "alloc 1048576"), "ok");
  const auto seen = json_as(kAnn, {"ps", "--json"})["slices"];
  for (const auto& slice : seen) {
    EXPECT_EQ(slice["processes"].size(), slice["name"] == "a" ? 1u : 0u);
  }
  inside.close_input();
  EXPECT_EQ(inside.wait(), 0);
}

// hidepid=2: /proc shows a user nobody else's processes.
TEST_F(Users, WhoIsHiddenInProcCountsAsAlive) {
  const auto ann = gpu_program_as(kAnn, {"--name", "a", "--gpu-share", "30"});
  if (!mount_over("proc", "/proc", "proc", 0, "hidepid=2")) GTEST_SKIP() << "no hidepid here";
  const std::string pid = "/proc/" + std::to_string(ann->pid());
  ASSERT_NE(program_as(kBob, {"test", "-e", pid}).status, 0);
  const auto seen = json_as(kBob, {"ps", "--json"})["slices"];
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(seen[0]["name"], "a");
  expect_refused(as(kBob, {"run", "--sim", "--gpu-share", "80", "--", "true"}), {"a of 64101"});
  expect_refused(as(kBob, {"run", "--sim", "--name", "a", "--", "true"}), {"'a' is 64101's"});
  ann->close_input();
  EXPECT_EQ(ann->wait(), 0);
  EXPECT_EQ(json_as(kBob, {"ps", "--json"})["slices"].size(), 0u);
  EXPECT_EQ(as(kBob, {"run", "--sim", "--gpu-share", "80", "--", "true"}).status, 0);
}

// Seen from another pid namespace, and gone when the first process of its own was killed.
TEST_F(Users, APidNamespaceHidesNobody) {
  if (program_as(kBob, {"unshare", "-Urpf", "true"}).status != 0) GTEST_SKIP() << "no namespaces";
  const auto ann =
      start_as(kAnn, {"run", "--exec", "--sim", "--name", "a", "--gpu-share", "30", "--", "unshare",
                      "-Urpf", "--mount-proc", "sh", "-c", "\"$0\"; exit", open_gpu_program()});
  ASSERT_EQ(ann->line(), "ready");
  const Outcome seen =
      program_as(kBob, {"unshare", "-Urpf", "--mount-proc", open_allot(), "ps", "--json"});
  ASSERT_EQ(seen.status, 0) << seen.err;
  EXPECT_EQ(nlohmann::json::parse(seen.out)["slices"].size(), 1u) << seen.out;
  expect_refused(as(kBob, {"run", "--sim", "--gpu-share", "80", "--", "true"}), {"a of 64101"});
  // The namespace's first process: the kernel ends the rest.
  const std::string launcher = std::to_string(ann->pid());
  std::ifstream children("/proc/" + launcher + "/task/" + launcher + "/children");
  pid_t first = 0;
  ASSERT_TRUE(children >> first);
  ASSERT_EQ(kill(first, SIGKILL), 0);
  ann->wait();
  EXPECT_TRUE(wait_until([&] { return json_as(kBob, {"ps", "--json"})["slices"].empty(); }));
  EXPECT_EQ(as(kBob, {"run", "--sim", "--gpu-share", "80", "--", "true"}).status, 0);
}

// Whatever the umask of the one who came first was.
TEST_F(Users, LeasesOfCpusOfAllUsersAreSeen) {
  const auto ann = start_program_as(
      kAnn, {"sh", "-c", "umask 077; exec \"$0\" run --cpus 1 --name a -- cat", open_allot()});
  const auto leases = [&](unsigned user) {
    return json_as(user, {"cpus", "show", "--json"})["leases"].size();
  };
  EXPECT_TRUE(wait_until([&] { return leases(kAnn) == 1u; }));
  EXPECT_EQ(leases(kBob), 1u);
  const Outcome run = as(kBob, {"run", "--cpus", "1", "--name", "b", "--", "true"});
  EXPECT_EQ(run.status, 0) << run.err;
  ann->close_input();
  EXPECT_EQ(ann->wait(), 0);
  EXPECT_EQ(leases(kBob), 0u);
}

TEST_F(Users, OneSoftwareGpuServesAll) {
  const auto ann = gpu_program_as(kAnn, {"--name", "a", "--gpu-mem", "12G"});
  const auto bob = gpu_program_as(kBob, {"--name", "b"});
  EXPECT_EQ(ask(*ann, "devices"), ask(*bob, "devices"));
  EXPECT_EQ(ask(*ann, "alloc " + std::to_string(10 * kGiB)), "ok");
  // The card has 16 GiB.
  EXPECT_EQ(ask(*bob, "alloc " + std::to_string(10 * kGiB)), "2");
  ann->close_input();
  ann->wait();
  EXPECT_TRUE(wait_until([&] { return ask(*bob, "alloc " + std::to_string(10 * kGiB)) == "ok"; }));
}

TEST_F(Users, ARenamedFileComesBack) {
  const auto ann = gpu_program_as(kAnn, {"--name", "a", "--gpu-share", "30"});
  ASSERT_EQ(program_as(kAnn, {"mv", "/run/allot/a.slice", "/run/allot/z.slice"}).status, 0);
  EXPECT_TRUE(wait_until([] { return fs::exists("/run/allot/a.slice"); }));
  EXPECT_EQ(as(kAnn, {"set", "a", "--gpu-mem", "1G"}).status, 0);
  EXPECT_EQ(ask(*ann, "alloc " + std::to_string(2 * kGiB)), "2");
  ann->close_input();
  ann->wait();
  EXPECT_NE(ann->err().find("was moved to /run/allot/z.slice; it is back"), std::string::npos)
      << ann->err();
}

TEST_F(Users, ARenamedFileOfALauncherThatIsGoneCountsAndIsNamed) {
  const auto ann = start_as(kAnn, {"run", "--exec", "--sim", "--name", "a", "--gpu-share", "30",
                                   "--", open_gpu_program()});
  ASSERT_EQ(ann->line(), "ready");
  ASSERT_EQ(program_as(kAnn, {"mv", "/run/allot/a.slice", "/run/allot/z.slice"}).status, 0);
  expect_refused(as(kBob, {"run", "--sim", "--gpu-share", "80", "--", "true"}),
                 {"z.slice cannot be counted", "slice 'a' was renamed",
                  "mv '/run/allot/z.slice' "
                  "'/run/allot/a.slice'"});
}

TEST_F(Users, ARemovedFileIsSaid) {
  const auto ann =
      start_program_as(kAnn, {"sh", "-c", "exec 2>\"$1\"; exec \"$0\" run --sim --name a -- \"$2\"",
                              open_allot(), "/run/allot/said", open_gpu_program()});
  ASSERT_EQ(ann->line(), "ready");
  ASSERT_EQ(program_as(kAnn, {"rm", "/run/allot/a.slice"}).status, 0);
  const auto text = [] {
    std::ifstream file("/run/allot/said");
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  EXPECT_TRUE(wait_until([&] {
    return text().find("/run/allot/a.slice was removed") != std::string::npos;
  })) << text();
  EXPECT_EQ(ask(*ann, "alloc 1048576"), "ok");  // what runs is held on
  ann->close_input();
  EXPECT_EQ(ann->wait(), 0);
}

}  // namespace
}  // namespace allot::e2e
