// Files of the region: made whole, checked, refused when anything is wrong, replaced when stale.
#include "shm/slice_file.h"
#include "shm/living.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "shm/test_region.h"

namespace allot::shm {
namespace {

constexpr uint32_t kNobody = 65534;
const uint8_t kUuid[16] = {1, 2, 3};

template <class T>
void poke(const std::string& path, size_t offset, T value) {
  const int fd = open(path.c_str(), O_WRONLY);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(pwrite(fd, &value, sizeof(value), static_cast<off_t>(offset)),
            static_cast<ssize_t>(sizeof(value)));
  close(fd);
}

template <class T>
Errc code_of(const Result<T>& result) {
  return result ? Errc{} : result.error().code;
}

TEST_F(RegionTest, ANewSliceIsWhole) {
  NewSlice wanted{"alice", ALLOT_SLICE_FAIL_CLOSED | ALLOT_SLICE_LEAVING,
                  static_cast<int32_t>(getpid()), ALLOT_PRIORITY_HIGH, ALLOT_LEVEL_LAUNCH};
  errno = 55;
  auto slice = create_slice(folder_.c_str(), wanted);
  ASSERT_TRUE(slice);
  EXPECT_EQ(errno, 55);
  const AllotHeader& header = slice->file->header;
  EXPECT_EQ(header.magic, ALLOT_REGION_MAGIC);
  EXPECT_STREQ(header.name, "alice");
  EXPECT_EQ(header.flags, ALLOT_SLICE_FAIL_CLOSED);
  EXPECT_EQ(header.launcher_pid, getpid());
  EXPECT_GT(header.launcher_start, 0u);
  EXPECT_EQ(header.uid, geteuid());
  EXPECT_EQ(header.priority, static_cast<uint32_t>(ALLOT_PRIORITY_HIGH));
  EXPECT_EQ(header.level, static_cast<uint32_t>(ALLOT_LEVEL_LAUNCH));
  struct stat st;
  ASSERT_EQ(stat(path("alice").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0600u);
  EXPECT_EQ(static_cast<size_t>(st.st_size), sizeof(AllotSliceFile));
  EXPECT_LE(st.st_blocks * 512, 80 * 1024);  // sparse: slots take space when they are taken
  EXPECT_EQ(files(), 1u);
  unmap(*slice);
  EXPECT_FALSE(*slice);
}

TEST_F(RegionTest, JoinChargeLookRemove) {
  auto slice = create_slice(folder_.c_str(), mine("alice"));
  ASSERT_TRUE(slice);
  ASSERT_TRUE(find_or_add_gpu(*slice, kUuid, 1000, 5000));
  auto joined = join_slice(path("alice").c_str());
  ASSERT_TRUE(joined);
  core::Ledger ledger(joined->slice.file);
  EXPECT_TRUE(ledger.reserve(joined->slot, 0, ALLOT_KIND_LINEAR, 1000));
  EXPECT_FALSE(ledger.reserve(joined->slot, 0, ALLOT_KIND_LINEAR, 1));
  auto look = open_slice(path("alice").c_str(), false);
  ASSERT_TRUE(look);
  EXPECT_FALSE(look->writable);
  EXPECT_EQ(look->owner_uid, geteuid());
  EXPECT_EQ(core::Ledger(look->file).used(0), 1000u);
  Living living(*look);
  EXPECT_EQ(core::Ledger(look->file).used_by_living(0, Living::alive, &living), 1000u);
  EXPECT_TRUE(slice_in_use(*look));
  EXPECT_EQ(code_of(create_slice(folder_.c_str(), mine("alice"))), Errc::kExists);
  EXPECT_EQ(code_of(remove_slice(path("alice").c_str(), 0)), Errc::kExists);
  EXPECT_EQ(slice->file->header.flags, 0u);  // not left as LEAVING
  EXPECT_TRUE(remove_slice(path("alice").c_str(), static_cast<uint32_t>(getpid())));
  EXPECT_EQ(files(), 0u);
  EXPECT_EQ(code_of(open_slice(path("alice").c_str(), false)), Errc::kNotFound);
  EXPECT_EQ(code_of(join_slice(path("alice").c_str())), Errc::kNotFound);
  EXPECT_EQ(code_of(remove_slice(path("alice").c_str(), 0)), Errc::kNotFound);
}

TEST_F(RegionTest, NoDescriptorStaysOpen) {
  auto count = [] {
    size_t n = 0;
    for ([[maybe_unused]] auto& e : std::filesystem::directory_iterator("/proc/self/fd")) ++n;
    return n;
  };
  const size_t before = count();
  auto slice = create_slice(folder_.c_str(), mine("alice"));
  auto joined = join_slice(path("alice").c_str());
  auto look = open_slice(path("alice").c_str(), false);
  ASSERT_TRUE(slice && joined && look);
  EXPECT_EQ(count(), before);
}

TEST_F(RegionTest, NamesThatAreNoNames) {
  const std::string longest(63, 'a'), too_long(64, 'a');
  for (const char* good : {"a", "A.b_c-1", "1", "_", longest.c_str()}) {
    EXPECT_TRUE(valid_name(good)) << good;
    EXPECT_TRUE(create_slice(folder_.c_str(), mine(good))) << good;
  }
  const size_t before = files();
  for (const char* bad :
       {"", ".", "..", ".a", "-a", "a/b", "../a", "a b", "a\n", "ü", "a:b", too_long.c_str()}) {
    EXPECT_FALSE(valid_name(bad)) << bad;
    EXPECT_EQ(code_of(create_slice(folder_.c_str(), mine(bad))), Errc::kBadValue) << bad;
  }
  EXPECT_FALSE(valid_name(nullptr));
  EXPECT_EQ(files(), before);
  NewSlice dead_launcher = mine("x");
  dead_launcher.launcher_pid = 0x3fffffff;
  EXPECT_EQ(code_of(create_slice(folder_.c_str(), dead_launcher)), Errc::kBadValue);
  EXPECT_EQ(files(), before);
}

TEST_F(RegionTest, AForeignOrDamagedFileIsRefusedByWhatIsWrong) {
  const std::string file = path("alice");
  auto fresh = [&] {
    std::filesystem::remove(file);
    auto slice = create_slice(folder_.c_str(), mine("alice"));
    ASSERT_TRUE(slice);
    unmap(*slice);
  };
  auto expect = [&](Errc code) {
    EXPECT_EQ(code_of(open_slice(file.c_str(), false)), code);
    EXPECT_EQ(code_of(open_slice(file.c_str(), true)), code);
    EXPECT_EQ(code_of(join_slice(file.c_str())), code);
  };
  fresh();
  poke(file, offsetof(AllotHeader, major), ALLOT_REGION_MAJOR + 1);
  expect(Errc::kWrongVersion);
  ASSERT_EQ(truncate(file.c_str(), 16), 0);  // another version may have another size
  expect(Errc::kWrongVersion);
  fresh();
  poke(file, offsetof(AllotHeader, minor), ALLOT_REGION_MINOR + 1);
  EXPECT_TRUE(open_slice(file.c_str(), true));
  fresh();
  poke(file, offsetof(AllotHeader, magic), uint64_t{0});
  expect(Errc::kDamaged);
  for (off_t size : {off_t{0}, off_t{8}, off_t{4096}, off_t{sizeof(AllotSliceFile)} - 1,
                     off_t{sizeof(AllotSliceFile)} + 1}) {
    fresh();
    ASSERT_EQ(truncate(file.c_str(), size), 0);
    expect(Errc::kDamaged);
  }
  const std::pair<size_t, uint32_t> numbers[] = {
      {offsetof(AllotHeader, header_bytes), 1},   {offsetof(AllotHeader, gpu_bytes), 1},
      {offsetof(AllotHeader, slot_bytes), 1},     {offsetof(AllotHeader, slot_count), 4097},
      {offsetof(AllotHeader, gpu_count), 17},     {offsetof(AllotHeader, slots_high), 4097},
      {offsetof(AllotHeader, file_bytes), 12345},
  };
  for (auto [offset, value] : numbers) {
    fresh();
    poke(file, offset, value);
    expect(Errc::kDamaged);
  }
  fresh();
  poke(file, offsetof(AllotHeader, name), 'A');  // names itself otherwise than its file
  expect(Errc::kDamaged);
  fresh();
  std::array<char, ALLOT_NAME_BYTES> unclosed;
  unclosed.fill('a');
  poke(file, offsetof(AllotHeader, name), unclosed);
  expect(Errc::kDamaged);
  fresh();
  poke(file, offsetof(AllotHeader, boot_id), uint64_t{0});
  expect(Errc::kNotFound);  // of an earlier boot
  EXPECT_TRUE(remove_slice(file.c_str(), 0));
  EXPECT_EQ(files(), 0u);
}

TEST_F(RegionTest, StaleFilesAreReplaced) {
  const std::string file = path("alice");
  auto replace = [&](const char* why) {
    auto slice = create_slice(folder_.c_str(), mine("alice"));
    EXPECT_TRUE(slice) << why;
    if (slice) unmap(*slice);
    EXPECT_EQ(files(), 1u) << why;
  };
  ASSERT_TRUE(create_slice(folder_.c_str(), orphan("alice")));
  replace("nobody in it");
  poke(file, offsetof(AllotHeader, launcher_start), uint64_t{1});
  replace("launcher's pid used again");
  poke(file, offsetof(AllotHeader, boot_id), uint64_t{0});
  replace("earlier boot");
  poke(file, offsetof(AllotHeader, magic), uint64_t{0});
  replace("damaged");
  poke(file, offsetof(AllotHeader, major), uint32_t{9});
  replace("other version");
  ASSERT_EQ(truncate(file.c_str(), 0), 0);
  replace("empty");
  {
    Child child([&] {
      std::filesystem::remove(file);
      if (!join_or_create(folder_.c_str(), orphan("alice"))) _exit(1);
    });
    ASSERT_TRUE(child.ready());
    EXPECT_EQ(code_of(create_slice(folder_.c_str(), mine("alice"))), Errc::kExists);
    child.kill_only();  // a zombie has no memory any more
    EXPECT_TRUE(eventually([&] {
      auto slice = create_slice(folder_.c_str(), mine("alice"));
      return bool(slice);
    }));
  }
}

TEST_F(RegionTest, LinksAndOddFilesAreNotFollowed) {
  auto slice = create_slice(folder_.c_str(), mine("real"));
  ASSERT_TRUE(slice);
  std::filesystem::create_symlink(path("real"), path("link"));
  EXPECT_EQ(code_of(open_slice(path("link").c_str(), false)), Errc::kNotAFile);
  EXPECT_EQ(code_of(open_slice(path("link").c_str(), true)), Errc::kNotAFile);
  EXPECT_EQ(code_of(create_slice(folder_.c_str(), mine("link"))), Errc::kNotAFile);
  EXPECT_EQ(code_of(remove_slice(path("link").c_str(), 0)), Errc::kNotAFile);
  std::filesystem::create_symlink("/nowhere", path("dangling"));
  EXPECT_EQ(code_of(create_slice(folder_.c_str(), mine("dangling"))), Errc::kNotAFile);
  std::filesystem::create_directory(path("folder"));
  EXPECT_EQ(code_of(open_slice(path("folder").c_str(), false)), Errc::kNotAFile);
  ASSERT_EQ(mkfifo(path("fifo").c_str(), 0600), 0);
  EXPECT_EQ(code_of(open_slice(path("fifo").c_str(), false)), Errc::kNotAFile);
  std::filesystem::create_symlink(folder_, folder_ + "-link");
  EXPECT_EQ(code_of(open_slice((folder_ + "-link/real.slice").c_str(), false)),
            Errc::kNoPermission);
  char out[kPathBytes];
  EXPECT_EQ(code_of(region_folder((folder_ + "-link").c_str(), true, out)), Errc::kNoPermission);
  std::filesystem::remove(folder_ + "-link");
  for (const char* bad : {"", "x", "x.slice", "/"}) {
    EXPECT_FALSE(open_slice(bad, false)) << bad;
  }
}

TEST_F(RegionTest, TheFolderIsMadeAndJudged) {
  char out[kPathBytes];
  const std::string made = folder_ + "/made";
  EXPECT_EQ(code_of(region_folder(made.c_str(), false, out)), Errc::kNotFound);
  const mode_t mask = umask(0);
  ASSERT_TRUE(region_folder(made.c_str(), true, out));
  umask(mask);
  EXPECT_EQ(out, made);
  struct stat st;
  ASSERT_EQ(stat(made.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0700u);
  EXPECT_TRUE(region_folder(made.c_str(), true, out));
  EXPECT_EQ(code_of(region_folder("relative", true, out)), Errc::kBadValue);
  EXPECT_EQ(code_of(region_folder(("/" + std::string(600, 'a')).c_str(), true, out)),
            Errc::kBadValue);
  for (mode_t mode : {0777, 0770, 0722}) {
    ASSERT_EQ(chmod(made.c_str(), mode), 0);
    EXPECT_EQ(code_of(region_folder(made.c_str(), true, out)), Errc::kNoPermission) << mode;
    EXPECT_EQ(code_of(create_slice(made.c_str(), mine("a"))), Errc::kNoPermission);
    ASSERT_EQ(chmod(made.c_str(), mode | S_ISVTX), 0);
    EXPECT_TRUE(region_folder(made.c_str(), true, out)) << mode;
  }
  std::ofstream(folder_ + "/file") << "x";
  EXPECT_EQ(code_of(region_folder((folder_ + "/file").c_str(), true, out)), Errc::kNoPermission);
}

TEST_F(RegionTest, WithoutADirTheFolderIsTheUsersOwn) {
  struct stat st;
  if (stat("/run/allot", &st) == 0) GTEST_SKIP() << "this machine has a system folder /run/allot";
  char out[kPathBytes];
  auto found = region_folder(nullptr, false, out);
  EXPECT_EQ(std::string(out), "/dev/shm/allot-" + std::to_string(geteuid()));
  if (!found) {
    EXPECT_EQ(found.error().code, Errc::kNotFound);
  }
}

class OtherUsers : public RegionTest {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root to act as two users";
    RegionTest::SetUp();
  }
};

TEST_F(OtherUsers, AFolderOfSomebodyElseIsRefused) {
  ASSERT_EQ(chown(folder_.c_str(), kNobody, kNobody), 0);
  char out[kPathBytes];
  EXPECT_EQ(code_of(region_folder(folder_.c_str(), true, out)), Errc::kNoPermission);
  EXPECT_EQ(in_child(kNobody, [&] { return region_folder(folder_.c_str(), true, out) ? 0 : 1; }),
            0);
  EXPECT_EQ(
      in_child(
          1, [&] { return static_cast<int>(code_of(region_folder(folder_.c_str(), true, out))); }),
      static_cast<int>(Errc::kNoPermission));
}

TEST_F(OtherUsers, InTheSystemFolderEachChangesOnlyHisOwn) {
  ASSERT_EQ(chown(folder_.c_str(), 0, kNobody), 0);
  ASSERT_EQ(chmod(folder_.c_str(), 03770), 0);
  auto roots = create_slice(folder_.c_str(), mine("roots"));
  ASSERT_TRUE(roots);
  struct stat st;
  ASSERT_EQ(stat(path("roots").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0640u);
  EXPECT_EQ(st.st_gid, kNobody);
  const std::string theirs = path("roots");
  // 1: reading is allowed, 2: nothing else is, 3: a name in use by another cannot be had.
  EXPECT_EQ(in_child(kNobody,
                     [&] {
                       if (!open_slice(theirs.c_str(), false)) return 1;
                       if (code_of(open_slice(theirs.c_str(), true)) != Errc::kNoPermission)
                         return 2;
                       if (code_of(join_slice(theirs.c_str())) != Errc::kNoPermission) return 3;
                       if (code_of(remove_slice(theirs.c_str(), 0)) != Errc::kNoPermission)
                         return 4;
                       auto taken = create_slice(folder_.c_str(), mine("roots"));
                       if (code_of(taken) != Errc::kNoPermission) return 5;
                       if (!create_slice(folder_.c_str(), mine("own"))) return 6;
                       return 0;
                     }),
            0);
  EXPECT_EQ(files(), 2u);
  // A slice of another user that names this process as its launcher does not draw it in.
  poke(path("own"), offsetof(AllotHeader, launcher_pid), getpid());
  poke(path("own"), offsetof(AllotHeader, launcher_start), roots->file->header.launcher_start);
  ASSERT_TRUE(remove_slice(theirs.c_str(), static_cast<uint32_t>(getpid())));
  char found[kPathBytes];
  EXPECT_EQ(
      code_of(find_slice_of_ancestors(folder_.c_str(), static_cast<uint32_t>(getpid()), found)),
      Errc::kNotFound);
  auto look = open_slice(path("own").c_str(), false);
  ASSERT_TRUE(look);
  EXPECT_EQ(look->owner_uid, kNobody);
}

TEST_F(OtherUsers, AFileOfSomebodyElseInOnesOwnFolderIsNotWritten) {
  ASSERT_EQ(chown(folder_.c_str(), kNobody, kNobody), 0);
  ASSERT_EQ(in_child(kNobody, [&] { return create_slice(folder_.c_str(), mine("a")) ? 0 : 1; }), 0);
  ASSERT_EQ(chown(path("a").c_str(), 1, 1), 0);
  ASSERT_EQ(chmod(path("a").c_str(), 0666), 0);
  EXPECT_EQ(
      in_child(kNobody,
               [&] { return static_cast<int>(code_of(open_slice(path("a").c_str(), true))); }),
      static_cast<int>(Errc::kNoPermission));
}

TEST_F(RegionTest, ACopyIsNotHurtByItsOwner) {
  auto slice = create_slice(folder_.c_str(), mine("alice"));
  ASSERT_TRUE(slice);
  auto look = open_slice(path("alice").c_str(), false);
  ASSERT_TRUE(look);
  ASSERT_EQ(truncate(path("alice").c_str(), 0), 0);
  EXPECT_STREQ(look->file->header.name, "alice");  // no SIGBUS
  EXPECT_EQ(core::Ledger(look->file).used_by_living(0, nullptr, nullptr), 0u);
}

// Many processes make a slice of the same name at once, where a stale file stands: exactly one gets
// it, and its file is the one with the name.
TEST_F(RegionTest, OfManyCreatorsExactlyOneWins) {
  constexpr int kProcesses = 64, kRounds = 5;
  for (int round = 0; round < kRounds; ++round) {
    std::filesystem::remove(path("prize"));
    ASSERT_TRUE(create_slice(folder_.c_str(), orphan("prize")));  // stale at once
    auto* shared = static_cast<std::atomic<int>*>(
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(shared, MAP_FAILED);
    std::atomic<int>&arrived = shared[0], &won = shared[1], &lost = shared[2], &winner = shared[3];
    std::vector<pid_t> children;
    for (int i = 0; i < kProcesses; ++i) {
      const pid_t pid = fork();
      if (pid == 0) {
        arrived.fetch_add(1);
        while (arrived.load() < kProcesses) sched_yield();
        auto slice = create_slice(folder_.c_str(), mine("prize"));
        if (slice) {
          won.fetch_add(1);
          winner = getpid();
        } else if (slice.error().code == Errc::kExists) {
          lost.fetch_add(1);
        }
        while (won.load() + lost.load() < kProcesses)
          usleep(500);  // stay alive till all have tried
        _exit(0);
      }
      children.push_back(pid);
    }
    EXPECT_TRUE(eventually([&] { return won.load() + lost.load() >= kProcesses; }))
        << won << " won, " << lost << " lost";
    auto slice = open_slice(path("prize").c_str(), false);
    ASSERT_TRUE(slice);
    EXPECT_EQ(slice->file->header.launcher_pid, winner.load());
    unmap(*slice);
    for (pid_t pid : children) {
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
    EXPECT_EQ(won.load(), 1);
    EXPECT_EQ(lost.load(), kProcesses - 1);
    EXPECT_EQ(files(), 1u);
    munmap(shared, 4096);
  }
}

// Programs without a launcher start at once where nothing or something stale stands: all of them
// end up in one slice.
TEST_F(RegionTest, ManyWhoJoinOrCreateMeetInOneSlice) {
  constexpr int kProcesses = 32, kRounds = 5;
  for (int round = 0; round < kRounds; ++round) {
    std::vector<std::unique_ptr<Child>> children;
    children.resize(kProcesses);
    for (auto& child : children) {
      child = std::make_unique<Child>([&] {
        auto joined = join_or_create(folder_.c_str(), orphan("default"));
        if (!joined) _exit(1);
        find_or_add_gpu(joined->slice, kUuid, 1000, 5000);
        core::Ledger ledger(joined->slice.file);
        if (!ledger.reserve(joined->slot, 0, ALLOT_KIND_LINEAR, 1)) _exit(2);
      });
      ASSERT_TRUE(child->ready());
    }
    auto look = open_slice(path("default").c_str(), true);
    ASSERT_TRUE(look);
    EXPECT_EQ(core::Ledger(look->file).used(0), static_cast<uint64_t>(kProcesses));
    EXPECT_EQ(look->file->header.gpu_count, 1u);
    children.clear();
    EXPECT_EQ(reclaim_dead(*look), static_cast<uint32_t>(kProcesses));
    EXPECT_EQ(core::Ledger(look->file).used(0), 0u);
    EXPECT_FALSE(slice_in_use(*look));
    unmap(*look);
  }
}

TEST_F(RegionTest, AStaleSliceDoesNotKeepItsLimits) {
  for (uint64_t limit : {uint64_t{1000}, uint64_t{2000}}) {
    EXPECT_EQ(in_child(0,
                       [&] {
                         auto joined = join_or_create(folder_.c_str(), orphan("default"));
                         if (!joined) return 1;
                         if (!find_or_add_gpu(joined->slice, kUuid, limit, 5000)) return 2;
                         return joined->slice.file->gpus[0].limit_bytes == limit ? 0 : 3;
                       }),
              0)
        << limit;
  }
}

TEST_F(RegionTest, WhoJoinsWhileItIsRemovedIsToldSo) {
  auto slice = create_slice(folder_.c_str(), mine("alice"));
  ASSERT_TRUE(slice);
  slice->file->header.flags |= ALLOT_SLICE_LEAVING;
  EXPECT_EQ(code_of(join_slice(path("alice").c_str())), Errc::kNotFound);
  EXPECT_FALSE(slice_in_use(*slice, static_cast<uint32_t>(getpid())));
}

// Joining and removing at the same time, many times: a process that got a slot is in the file that
// has the name.
TEST_F(RegionTest, AJoinedSliceKeepsItsName) {
  std::atomic<bool>* stop = static_cast<std::atomic<bool>*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  const pid_t remover = fork();
  if (remover == 0) {
    while (!stop->load()) (void)remove_slice(path("t").c_str(), 0);
    _exit(0);
  }
  int wrong = 0;
  for (int i = 0; i < 300; ++i) {
    const int status = in_child(0, [&] {
      auto joined = join_or_create(folder_.c_str(), orphan("t"));
      if (!joined) return joined.error().code == Errc::kExists ? 0 : 1;
      joined->slice.file->header.created_unix_ns = static_cast<uint64_t>(getpid());
      auto look = open_slice(path("t").c_str(), false);
      if (!look) return 2;
      return look->file->header.created_unix_ns == static_cast<uint64_t>(getpid()) ? 0 : 3;
    });
    if (status != 0) ++wrong;
  }
  stop->store(true);
  waitpid(remover, nullptr, 0);
  munmap(stop, 4096);
  EXPECT_EQ(wrong, 0);
}

TEST_F(RegionTest, AFullDiskIsAnErrorAndNotASignal) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to mount a small file system";
  const int status = in_child(0, [&] {
    if (unshare(CLONE_NEWNS) != 0) return 77;
    if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return 77;
    if (mount("tmpfs", folder_.c_str(), "tmpfs", 0, "size=80k,mode=0700") != 0) return 77;
    auto slice = create_slice(folder_.c_str(), mine("a"));  // 72 KiB fit
    if (!slice) return 1;
    auto second = create_slice(folder_.c_str(), mine("b"));
    if (second || second.error().code != Errc::kFull) return 2;
    if (files() != 1) return 3;
    // 8 KiB are left: some seven slots, as long as their processes live.
    std::vector<std::unique_ptr<Child>> children;
    std::array<int, 2> code;
    for (size_t joined = 0; joined < 40; ++joined) {
      if (pipe(code.data()) != 0) return 4;
      children.push_back(std::make_unique<Child>([&] {
        auto j = join_slice(path("a").c_str());
        const char answer = j ? 'j' : j.error().code == Errc::kFull ? 'f' : 'x';
        if (write(code[1], &answer, 1) != 1) _exit(1);
      }));
      char answer = 0;
      if (!children.back()->ready() || read(code[0], &answer, 1) != 1) return 5;
      close(code[0]);
      close(code[1]);
      if (answer == 'f') return joined >= 3 ? 0 : 6;
      if (answer != 'j') return 7;
    }
    return 8;
  });
  if (status == 77) GTEST_SKIP() << "no permission to mount a file system here";
  EXPECT_EQ(status, 0);
}

TEST_F(RegionTest, AFileSystemThatCannotAllocateWillDo) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to mount a small file system";
  const int status = in_child(0, [&] {
    if (unshare(CLONE_NEWNS) != 0) return 77;
    if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return 77;
    if (mount("ramfs", folder_.c_str(), "ramfs", 0, "mode=0700") != 0) return 77;
    auto slice = create_slice(folder_.c_str(), mine("a"));
    if (!slice) return 1;
    if (!find_or_add_gpu(*slice, kUuid, 1000, 5000)) return 2;
    Child child([&] {
      if (!join_slice(path("a").c_str())) _exit(1);
    });
    auto joined = join_slice(path("a").c_str());
    if (!child.ready() || !joined) return 3;
    core::Ledger ledger(joined->slice.file);
    if (!ledger.reserve(joined->slot, 0, ALLOT_KIND_LINEAR, 1000)) return 4;
    return ledger.reserve(joined->slot, 0, ALLOT_KIND_LINEAR, 1) ? 5 : 0;
  });
  if (status == 77) GTEST_SKIP() << "no permission to mount a file system here";
  EXPECT_EQ(status, 0);
}

TEST_F(RegionTest, SlicesAreListed) {
  ASSERT_TRUE(create_slice(folder_.c_str(), mine("a")));
  ASSERT_TRUE(create_slice(folder_.c_str(), mine("b")));
  std::ofstream(folder_ + "/.hidden.slice") << "x";
  std::ofstream(folder_ + "/other.txt") << "x";
  std::ofstream(folder_ + "/.slice") << "x";
  std::vector<std::string> seen;
  auto note = [](void* context, const char* p) {
    static_cast<std::vector<std::string>*>(context)->push_back(p);
  };
  EXPECT_EQ(list_slices(folder_.c_str(), note, &seen), 2u);
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(seen, (std::vector<std::string>{path("a"), path("b")}));
  EXPECT_EQ(list_slices("/none", note, &seen), 0u);
}

}  // namespace
}  // namespace allot::shm
