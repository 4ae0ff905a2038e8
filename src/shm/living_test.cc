// Alive is who holds the lock of its slot: in any pid namespace, whatever it does to its
// descriptors, and until its end or exec.
#include "shm/living.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <fstream>

#include "abi/env.h"
#include "shm/slice_file.h"
#include "shm/test_region.h"

namespace allot::shm {
namespace {

class LivingTest : public OneSliceTest {
 protected:
  bool in_use_without_me() { return slice_in_use(slice_, static_cast<uint32_t>(getpid())); }

  // Joins and holds `bytes`; ends this process if it cannot.
  Joined join(uint64_t bytes) {
    auto joined = join_slice(path("t").c_str());
    if (!joined) _exit(11);
    if (!core::Ledger(joined->slice.file).reserve(joined->slot, 0, ALLOT_KIND_LINEAR, bytes))
      _exit(12);
    return *joined;
  }

  // Runs `body` as process 1 of a new pid namespace; the Child itself is the helper that waits for
  // it. When the helper is killed, so is the namespace.
  std::function<void()> elsewhere(std::function<void()> body) {
    return [body] {
      if (unshare(CLONE_NEWPID) != 0) _exit(13);
      int ready[2];
      if (pipe(ready) != 0) _exit(14);
      if (fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        body();
        if (write(ready[1], "r", 1) != 1) _exit(15);
        for (;;) pause();
      }
      char byte;
      if (read(ready[0], &byte, 1) != 1) _exit(16);
    };
  }
};

// A mapping in overlayfs holds the file below and not the opening that has the lock: the lock would
// be gone at once, and the process with it.
TEST(Overlay, PidsDecideWhereAMappingHoldsNoLock) {
  const int got = in_child(0, [] {
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
      return 77;
    char text[] = "/dev/shm/allot-test-XXXXXX";
    const std::string base = mkdtemp(text);
    for (const char* part : {"/l", "/u", "/w", "/m"}) mkdir((base + part).c_str(), 0700);
    const std::string options =
        "lowerdir=" + base + "/l,upperdir=" + base + "/u,workdir=" + base + "/w";
    const std::string folder = base + "/m";
    if (mount("overlay", folder.c_str(), "overlay", 0, options.c_str()) != 0) return 77;
    auto made = create_slice(folder.c_str(), {"t", 0, 0, 0, 0});
    if (!made) return 1;
    auto joined = join_slice((folder + "/t.slice").c_str());
    if (!joined) return 2;
    int result = 0;
    if (!Living(*made).slot(joined->slot.index)) result = 3;
    if (reclaim_dead(*made) != 0) result = 4;
    if (!slice_in_use(*made)) result = 5;
    umount2(folder.c_str(), MNT_DETACH);
    std::filesystem::remove_all(base);
    return result;
  });
  if (got == 77) GTEST_SKIP() << "this user may not mount an overlay";
  EXPECT_EQ(got, 0);
}

bool may_make_namespaces() {
  return in_child(0, [] { return unshare(CLONE_NEWPID) == 0 ? 0 : 1; }) == 0;
}

TEST_F(LivingTest, AKilledProcessOfAnotherNamespaceGivesItsChargesBack) {
  if (!may_make_namespaces()) GTEST_SKIP() << "this user may not make a pid namespace";
  for (int round = 0; round < 5; ++round) {  // a container that restarts
    Child container(elsewhere([this] { join(900); }));
    ASSERT_TRUE(container.ready());
    EXPECT_EQ(reclaim_dead(slice_), 0u);
    EXPECT_EQ(used(), 900u);
    EXPECT_TRUE(in_use_without_me());
    container.kill();
    ASSERT_TRUE(eventually([&] { return reclaim_dead(slice_) == 1; })) << round;
    EXPECT_EQ(used(), 0u);
  }
  EXPECT_FALSE(in_use_without_me());
}

TEST_F(LivingTest, AProcessThatClosesEveryDescriptorLives) {
  const auto closes_all = [this] {
    join(300);
    for (int fd = 0; fd < 1100; ++fd) {
      if (fcntl(fd, F_GETFD) >= 0 && lseek(fd, 0, SEEK_CUR) >= 0) close(fd);  // pipes stay
    }
  };
  Child here(closes_all);
  ASSERT_TRUE(here.ready());
  EXPECT_EQ(reclaim_dead(slice_), 0u);
  EXPECT_EQ(used(), 300u);
  EXPECT_TRUE(in_use_without_me());
  if (!may_make_namespaces()) return;
  Child there(elsewhere(closes_all));
  ASSERT_TRUE(there.ready());
  EXPECT_EQ(reclaim_dead(slice_), 0u);
  EXPECT_EQ(used(), 600u);
}

TEST_F(LivingTest, AForkedChildDoesNotHoldItsParentsSlot) {
  if (!may_make_namespaces()) GTEST_SKIP() << "this user may not make a pid namespace";
  int pids[2];
  ASSERT_EQ(pipe(pids), 0);
  // The parent of the fork is not process 1 there, so its child outlives it.
  Child container(elsewhere([&] {
    if (fork() == 0) {
      join(300);
      if (fork() == 0) {
        if (write(pids[1], "c", 1) != 1) _exit(1);
        for (;;) pause();
      }
      _exit(0);
    }
  }));
  ASSERT_TRUE(container.ready());
  char byte;
  ASSERT_EQ(read(pids[0], &byte, 1), 1);
  EXPECT_TRUE(eventually([&] { return reclaim_dead(slice_) == 1; }));
  EXPECT_EQ(used(), 0u);
  close(pids[0]);
  close(pids[1]);
}

// By the system call itself, which nothing of ours sees.
TEST_F(LivingTest, AnUnseenExecEndsTheSlot) {
  const pid_t pid = fork();
  if (pid == 0) {
    join(300);
    const char* const argv[] = {"sleep", "60", nullptr};
    const char* const none[] = {nullptr};
    syscall(SYS_execve, "/bin/sleep", argv, none);
    _exit(1);
  }
  EXPECT_TRUE(eventually([&] { return used() == 300 || reclaim_dead(slice_) == 1; }));
  EXPECT_TRUE(eventually([&] { return reclaim_dead(slice_) == 1 || used() == 0; }));
  EXPECT_EQ(::kill(pid, 0), 0);
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
}

TEST_F(LivingTest, AnotherClockOfTheSameProcessesMakesNobodyDead) {
  Child a([this] { join(300); });
  ASSERT_TRUE(a.ready());
  slice_.file->slots[0].start_time += 1000;  // as a time namespace shows it
  EXPECT_EQ(reclaim_dead(slice_), 0u);
  EXPECT_EQ(used(), 300u);
}

TEST_F(LivingTest, ACopySaysWhatTheLocksSaidThen) {
  Child a([this] { join(300); });
  ASSERT_TRUE(a.ready());
  auto before = open_slice(path("t").c_str(), false);
  ASSERT_TRUE(before);
  a.kill();
  auto after = open_slice(path("t").c_str(), false);
  ASSERT_TRUE(after);
  EXPECT_TRUE(Living(*before).slot(0));
  EXPECT_FALSE(Living(*after).slot(0));
  unmap(*before);
  unmap(*after);
}

TEST_F(LivingTest, WhoeverInheritedTheLaunchersDescriptorHoldsTheSlice) {
  auto held = hold_slice(slice_);
  ASSERT_TRUE(held);
  EXPECT_GE(held->get(), 20);
  EXPECT_TRUE(in_use_without_me());
  Child heir([&] { fcntl(held->get(), F_SETFD, 0); });
  ASSERT_TRUE(heir.ready());
  held->close();
  EXPECT_TRUE(in_use_without_me());
  EXPECT_EQ(remove_slice(path("t").c_str(), static_cast<uint32_t>(getpid())).error().code,
            Errc::kExists);
  heir.kill();
  EXPECT_FALSE(in_use_without_me());
}

TEST_F(LivingTest, WhoeverWasStartedInTheSliceHoldsItWithoutADescriptor) {
  const std::string entry = ALLOT_ENV_SLICE "=" + path("t");
  const std::string longer = entry + "x";
  for (const std::string& variable : {entry, longer}) {
    int ready[2];
    ASSERT_EQ(pipe2(ready, O_CLOEXEC), 0);
    const pid_t pid = fork();
    if (pid == 0) {
      const std::string much(9000, 'm');  // so that it does not come in one part
      const char* const argv[] = {"sleep", "60", nullptr};
      const char* const env[] = {much.c_str(), variable.c_str(), nullptr};
      execve("/bin/sleep", const_cast<char**>(argv), const_cast<char**>(env));
      _exit(1);
    }
    close(ready[1]);
    char byte;
    EXPECT_EQ(read(ready[0], &byte, 1), 0);  // the program runs
    close(ready[0]);
    const std::string shown = "/proc/" + std::to_string(pid) + "/environ";
    EXPECT_TRUE(eventually([&] {  // the kernel shows it a moment later
      std::ifstream file(shown);
      return std::string(std::istreambuf_iterator<char>(file), {}).size() > 9000;
    }));
    EXPECT_EQ(in_use_without_me(), variable == entry) << variable;
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  EXPECT_FALSE(in_use_without_me());
}

TEST_F(LivingTest, AnAbandonedTakingFromAnotherNamespaceIsSeenByItsLock) {
  slice_.file->header.held = ALLOT_HELD_BY_LOCK;
  slice_.file->header.slots_high = 1;
  slice_.file->slot_words[0] = ALLOT_SLOT_WORD(ALLOT_SLOT_TAKING, 5, 0);
  EXPECT_FALSE(in_use_without_me());
  reclaim_dead(slice_);
  EXPECT_EQ(ALLOT_SLOT_STATE(slice_.file->slot_words[0]), ALLOT_SLOT_FREE);
}

}  // namespace
}  // namespace allot::shm
