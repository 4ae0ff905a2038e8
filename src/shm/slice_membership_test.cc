// Inside a slice: who counts as alive, GPUs added by many at once, and strays that find their way.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/prctl.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <thread>
#include <vector>

#include "shm/living.h"
#include "shm/slice_file.h"
#include "shm/test_region.h"
#include "sys/process.h"

namespace allot::shm {
namespace {

class SliceTest : public OneSliceTest {
 protected:
  // What a program of the slice does: join and hold `bytes`.
  std::function<void()> program(uint64_t bytes) {
    return [this, bytes] {
      auto joined = join_slice(path("t").c_str());
      if (!joined) _exit(1);
      core::Ledger ledger(joined->slice.file);
      if (!ledger.reserve(joined->slot, 0, ALLOT_KIND_LINEAR, bytes)) _exit(2);
    };
  }
};

TEST_F(SliceTest, AKilledProcessGivesItsChargesBack) {
  Child a(program(300)), b(program(200));
  ASSERT_TRUE(a.ready() && b.ready());
  EXPECT_EQ(used(), 500u);
  EXPECT_EQ(reclaim_dead(slice_), 0u);
  a.kill_only();  // not reaped: what it held is free all the same
  EXPECT_TRUE(eventually([&] { return reclaim_dead(slice_) == 1; }));
  EXPECT_EQ(used(), 200u);
  a.kill();
  b.kill();
  EXPECT_EQ(reclaim_dead(slice_), 1u);
  EXPECT_EQ(used(), 0u);
}

TEST_F(SliceTest, WhoJoinsClearsTheDead) {
  {
    Child a(program(900));
    ASSERT_TRUE(a.ready());
  }
  EXPECT_EQ(used(), 900u);
  Child b(program(800));
  ASSERT_TRUE(b.ready());
  EXPECT_EQ(used(), 800u);
}

TEST_F(SliceTest, APidUsedAgainIsToldApartByItsStartTime) {
  Child a(program(300));
  ASSERT_TRUE(a.ready());
  slice_.file->slots[0].held = ALLOT_HELD_BY_PID;
  slice_.file->slots[0].start_time -= 1;  // the slot is of an earlier process of this number
  EXPECT_EQ(reclaim_dead(slice_), 1u);
  EXPECT_EQ(used(), 0u);
}

// As region 1.2 wrote slots, and where the file system has no locks.
TEST_F(SliceTest, WithoutALockProcessesOfAnotherNamespaceCannotBeAskedAndLive) {
  const Living living(slice_);
  void* context = const_cast<Living*>(&living);
  AllotSlot slot = {};
  slot.pid_namespace = 1;
  EXPECT_TRUE(Living::alive(context, 0, 0x3fffffff, slot));
  slot.pid_namespace = *sys::pid_namespace(sys::Root{}, 0);
  EXPECT_FALSE(Living::alive(context, 0, 0x3fffffff, slot));
  const uint32_t me = static_cast<uint32_t>(getpid());
  EXPECT_TRUE(Living::alive(context, 0, me, slot));  // start not known
  slot.start_time = 1;
  EXPECT_FALSE(Living::alive(context, 0, me, slot));
}

// A process that execs a program without the library gives its charges back; one whose exec failed,
// or has not happened yet, keeps them.
TEST_F(SliceTest, AnExecedProcessIsGoneOnceItsImageIs) {
  int hold[2];
  ASSERT_EQ(pipe(hold), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    auto joined = join_slice(path("t").c_str());
    core::Ledger ledger(joined->slice.file);
    if (!ledger.reserve(joined->slot, 0, ALLOT_KIND_LINEAR, 300)) _exit(1);
    set_execing(joined->slice, joined->slot, true);
    execl("/nowhere", "nowhere", nullptr);
    set_execing(joined->slice, joined->slot, false);
    core::Ledger(joined->slice.file).charge(joined->slot, 0, ALLOT_KIND_DRIVER, 1);
    char byte;
    if (read(hold[0], &byte, 1) != 1) _exit(2);
    set_execing(joined->slice, joined->slot, true);
    core::Ledger(joined->slice.file).charge(joined->slot, 0, ALLOT_KIND_DRIVER, 1);
    if (read(hold[0], &byte, 1) != 1) _exit(3);
    execl("/bin/sleep", "sleep", "60", nullptr);
    _exit(4);
  }
  ASSERT_TRUE(eventually([&] { return used() == 301; }));
  EXPECT_EQ(reclaim_dead(slice_), 0u);
  ASSERT_EQ(write(hold[1], "x", 1), 1);
  ASSERT_TRUE(eventually([&] { return used() == 302; }));
  EXPECT_EQ(slice_.file->slots[0].execing, 1u);
  EXPECT_EQ(reclaim_dead(slice_), 0u);  // says so, but still runs our image
  ASSERT_EQ(write(hold[1], "x", 1), 1);
  EXPECT_TRUE(eventually([&] { return reclaim_dead(slice_) == 1; }));
  EXPECT_EQ(used(), 0u);
  EXPECT_EQ(::kill(pid, 0), 0);  // the process itself lives on
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
  close(hold[0]);
  close(hold[1]);
}

TEST_F(SliceTest, AVforkChildDoesNotSpeakForItsParent) {
  auto joined = join_slice(path("t").c_str());
  ASSERT_TRUE(joined);
  EXPECT_EQ(in_child(0,
                     [&] {
                       set_execing(joined->slice, joined->slot, true);
                       return 0;
                     }),
            0);
  EXPECT_EQ(slice_.file->slots[joined->slot.index].execing, 0u);
}

TEST_F(SliceTest, TheSameProcessAgainStartsFromNothing) {
  auto first = join_slice(path("t").c_str());
  core::Ledger ledger(first->slice.file);
  ASSERT_TRUE(ledger.reserve(first->slot, 0, ALLOT_KIND_LINEAR, 700));
  set_execing(first->slice, first->slot, true);
  auto second = join_slice(path("t").c_str());  // as after exec
  ASSERT_TRUE(second);
  EXPECT_EQ(used(), 0u);
  EXPECT_FALSE(ledger.live(first->slot));
  ledger.end_slot(second->slot);
}

TEST_F(SliceTest, SlotsSayWhoStandsInThem) {
  auto joined = join_slice(path("t").c_str());
  ASSERT_TRUE(joined);
  const AllotSlot& slot = slice_.file->slots[joined->slot.index];
  const sys::Process self = *sys::read_process(sys::Root{}, 0);
  EXPECT_EQ(slot.start_time, self.start_time);
  EXPECT_EQ(slot.pid_namespace, *sys::pid_namespace(sys::Root{}, 0));
  EXPECT_STREQ(slot.command, self.command);
  EXPECT_GT(slot.joined_unix_ns, 0u);
}

TEST_F(SliceTest, InUseMeansLauncherOrProcess) {
  const uint32_t me = static_cast<uint32_t>(getpid());
  EXPECT_TRUE(slice_in_use(slice_));
  EXPECT_FALSE(slice_in_use(slice_, me));
  Child a(program(1));
  ASSERT_TRUE(a.ready());
  EXPECT_TRUE(slice_in_use(slice_, me));
  a.kill();
  EXPECT_FALSE(slice_in_use(slice_, me));
  slice_.file->header.launcher_start += 1;
  EXPECT_FALSE(slice_in_use(slice_));
}

TEST_F(SliceTest, ManyAddTheSameGpusAndGetOneEntryEach) {
  const int status = in_child(0, [&] {
    std::vector<pid_t> children;
    for (int c = 0; c < 8; ++c) {
      const pid_t pid = fork();
      if (pid == 0) {
        for (uint8_t i = 0; i < 15; ++i) {
          uint8_t uuid[16] = {};
          uuid[15] = static_cast<uint8_t>((i * 7 + c) % 15 + 1);  // each in another order
          auto gpu = find_or_add_gpu(slice_, uuid, 100u * uuid[15], 5000);
          if (!gpu || std::memcmp(slice_.file->gpus[*gpu].uuid, uuid, 16) != 0) _exit(1);
          if (slice_.file->gpus[*gpu].limit_bytes != 100u * uuid[15]) _exit(2);
          if (slice_.file->header.gpu_count <= *gpu) _exit(3);
        }
        _exit(0);
      }
      children.push_back(pid);
    }
    int worst = 0;
    for (pid_t pid : children) {
      int s = 0;
      waitpid(pid, &s, 0);
      if (s != 0) worst = WEXITSTATUS(s) + 10;
    }
    return worst;
  });
  EXPECT_EQ(status, 0);
  EXPECT_EQ(slice_.file->header.gpu_count, 16u);  // 15 and the one of SetUp
  uint8_t one_more[16] = {9, 9};
  EXPECT_EQ(find_or_add_gpu(slice_, one_more, 1, 1).error().code, Errc::kFull);
  const uint8_t first[16] = {7};
  EXPECT_EQ(*find_or_add_gpu(slice_, first, 77, 5000), 0u);
  EXPECT_EQ(slice_.file->gpus[0].limit_bytes, 1000u);  // the limit that stands stays
  const uint8_t zero[16] = {};
  EXPECT_EQ(find_or_add_gpu(slice_, zero, 1, 1).error().code, Errc::kBadValue);
  EXPECT_EQ(find_or_add_gpu(slice_, first, 0, 1).error().code, Errc::kBadValue);
}

TEST_F(SliceTest, AClaimedGpuWhoseProcessDiedIsFinishedByTheNext) {
  uint8_t uuid[16] = {8};
  std::memcpy(slice_.file->gpus[1].uuid, uuid, 16);  // killed right after the claim
  auto gpu = find_or_add_gpu(slice_, uuid, 500, 5000);
  ASSERT_TRUE(gpu);
  EXPECT_EQ(*gpu, 1u);
  EXPECT_EQ(slice_.file->gpus[1].limit_bytes, 500u);
  EXPECT_EQ(slice_.file->header.gpu_count, 2u);
}

TEST_F(SliceTest, AStrayFindsTheSliceOfItsNearestAncestor) {
  char out[kPathBytes];
  const uint32_t me = static_cast<uint32_t>(getpid());
  ASSERT_TRUE(find_slice_of_ancestors(folder_.c_str(), me, out));  // launched by this process
  EXPECT_EQ(out, path("t"));
  const int status = in_child(0, [&] {
    if (!find_slice_of_ancestors(folder_.c_str(), sys::current_pid(), out)) return 1;
    if (path("t") != out) return 2;
    // A nearer one wins: the child has a slice of its own, and its child asks.
    auto own = create_slice(folder_.c_str(), mine("near"));
    if (!own) return 3;
    return in_child(0, [&] {
      char deep[kPathBytes];
      if (!find_slice_of_ancestors(folder_.c_str(), sys::current_pid(), deep)) return 4;
      return path("near") == deep ? 0 : 5;
    });
  });
  EXPECT_EQ(status, 0);
  slice_.file->header.launcher_start += 1;  // not this process any more
  EXPECT_EQ(find_slice_of_ancestors(folder_.c_str(), me, out).error().code, Errc::kNotFound);
  auto joined = join_slice(path("t").c_str());
  ASSERT_TRUE(joined);
  EXPECT_EQ(
      in_child(0,
               [&] {
                 char deep[kPathBytes];
                 return find_slice_of_ancestors(folder_.c_str(), sys::current_pid(), deep) ? 0 : 1;
               }),
      0);
  core::Ledger(joined->slice.file).end_slot(joined->slot);
  EXPECT_FALSE(find_slice_of_ancestors(folder_.c_str(), me, out));
}

// A chain of children of which the last asks.
int asked_at_depth(const std::string& folder, const std::string& wanted, int depth) {
  char out[kPathBytes];
  if (depth > 0) return in_child(0, [&] { return asked_at_depth(folder, wanted, depth - 1); });
  if (!find_slice_of_ancestors(folder.c_str(), sys::current_pid(), out)) return 1;
  return wanted == out ? 0 : 2;
}

TEST_F(SliceTest, AStrayFindsItsSliceHoweverDeepItIs) {
  EXPECT_EQ(asked_at_depth(folder_, path("t"), 100), 0);
}

TEST_F(SliceTest, TheDefaultSliceTakesStrays) {
  char out[kPathBytes];
  EXPECT_EQ(find_default_slice(folder_.c_str(), out).error().code, Errc::kNotFound);
  NewSlice wanted = mine("d");
  wanted.flags = ALLOT_SLICE_DEFAULT;
  ASSERT_TRUE(create_slice(folder_.c_str(), wanted));
  ASSERT_TRUE(find_default_slice(folder_.c_str(), out));
  EXPECT_EQ(out, path("d"));
  wanted = orphan("d2");  // marked, but nobody uses it
  wanted.flags = ALLOT_SLICE_DEFAULT;
  ASSERT_TRUE(remove_slice(path("d").c_str(), static_cast<uint32_t>(getpid())));
  ASSERT_TRUE(create_slice(folder_.c_str(), wanted));
  EXPECT_FALSE(find_default_slice(folder_.c_str(), out));
}

}  // namespace
}  // namespace allot::shm
