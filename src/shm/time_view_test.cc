// GPU clients and wake-ups in the node region, between real processes.
#include "shm/time_view.h"

#include <unistd.h>

#include <filesystem>
#include <set>

#include "shm/test_region.h"
#include "sys/clock.h"

namespace allot::shm {
namespace {

class TimeViewTest : public RegionTest {
 protected:
  Joined join(const char* name) {
    auto joined = join_or_create(folder_.c_str(), orphan(name));
    EXPECT_TRUE(joined);
    return joined ? *joined : Joined{};
  }
  TimeView view;
};

TEST_F(TimeViewTest, AProcessHasOneClientPerGpu) {
  Joined me = join("t");
  auto first = take_client(me.slice, me.slot, 0);
  auto second = take_client(me.slice, me.slot, 3);
  ASSERT_TRUE(first && second);
  EXPECT_NE(*first, *second);
  EXPECT_EQ(*take_client(me.slice, me.slot, 0), *first);
  ASSERT_TRUE(read_time_view(path("t").c_str(), &view));
  EXPECT_EQ(view.clients[*second].gpu, 3u);
  EXPECT_EQ(view.clients[*second].slot, me.slot.index);
  EXPECT_EQ(ALLOT_SLOT_PID(view.clients[*first].owner), static_cast<uint32_t>(getpid()));
}

TEST_F(TimeViewTest, TheClientOfAProcessThatIsGoneIsGivenAgain) {
  Joined me = join("t");
  AllotSliceFile& file = *me.slice.file;
  for (uint32_t i = 0; i < ALLOT_MAX_CLIENTS; ++i) {
    file.clients[i].owner = ALLOT_SLOT_WORD(ALLOT_SLOT_LIVE, 1, 77);
    file.clients[i].slot = 9;  // where nobody stands
    file.clients[i].heartbeat_ns = sys::monotonic_ns();
    file.clients[i].flags = ALLOT_CLIENT_ACTIVE;
  }
  EXPECT_FALSE(take_client(me.slice, me.slot, 0)) << "fresh heartbeats: may be just sitting down";
  file.clients[5].heartbeat_ns = 0;
  auto client = take_client(me.slice, me.slot, 0);
  ASSERT_TRUE(client);
  EXPECT_EQ(*client, 5u);
  EXPECT_EQ(file.clients[5].flags, 0u);
}

TEST_F(TimeViewTest, ProcessesThatSitDownAtOnceGetClientsOfTheirOwn) {
  Joined me = join("t");
  for (int i = 0; i < 24; ++i) {
    const pid_t pid = fork();
    if (pid != 0) continue;
    auto mine = join_slice(path("t").c_str());
    if (mine) take_client(mine->slice, mine->slot, 0);
    _exit(0);
  }
  while (wait(nullptr) > 0) {
  }
  std::set<uint32_t> pids;
  int taken = 0;
  for (const AllotGpuClient& client : me.slice.file->clients) {
    if (client.owner == 0) continue;
    ++taken;
    pids.insert(ALLOT_SLOT_PID(client.owner));
  }
  EXPECT_EQ(taken, 24);
  EXPECT_EQ(pids.size(), 24u);
}

TEST_F(TimeViewTest, AFileCutShortIsDamagedAndNobodyDies) {
  join("t");
  ASSERT_EQ(truncate(path("t").c_str(), 5000), 0);
  auto read = read_time_view(path("t").c_str(), &view);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, Errc::kDamaged);
  notify_other(path("t").c_str());
  EXPECT_FALSE(read_time_view(path("nobody").c_str(), &view));
}

TEST_F(TimeViewTest, ANotificationWakesTheAgentsOfAnotherSlice) {
  join("b");
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    auto mine = join_slice(path("b").c_str());
    char byte = 'r';
    if (!mine || write(pipes[1], &byte, 1) != 1) _exit(2);
    const uint64_t begin = sys::monotonic_ns();
    wait_for_wake(mine->slice, mine->slice.file->header.wake_seq, 8'000'000'000);
    _exit(sys::monotonic_ns() - begin < 7'000'000'000 ? 0 : 1);
  }
  char byte;
  ASSERT_EQ(read(pipes[0], &byte, 1), 1);
  int status = 0;
  // It may not sleep yet when the first notification comes; that is why agents notify twice.
  EXPECT_TRUE(eventually([&] {
    notify_other(path("b").c_str());
    return waitpid(pid, &status, WNOHANG) == pid;
  }));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(TimeViewTest, AWakeThatCameMeanwhileIsNotSleptThrough) {
  Joined me = join("t");
  const uint32_t seen = me.slice.file->header.wake_seq;
  notify(me.slice);
  const uint64_t begin = sys::monotonic_ns();
  wait_for_wake(me.slice, seen, 8'000'000'000);
  EXPECT_LT(sys::monotonic_ns() - begin, 7'000'000'000u);
}

}  // namespace
}  // namespace allot::shm
