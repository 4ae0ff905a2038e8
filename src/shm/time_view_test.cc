// Seats and bells of the node region, between real processes.
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

TEST_F(TimeViewTest, AProcessHasOneSeatPerGpu) {
  Joined me = join("t");
  auto first = take_seat(me.tenant, me.slot, 0);
  auto second = take_seat(me.tenant, me.slot, 3);
  ASSERT_TRUE(first && second);
  EXPECT_NE(*first, *second);
  EXPECT_EQ(*take_seat(me.tenant, me.slot, 0), *first);
  ASSERT_TRUE(read_time_view(path("t").c_str(), &view));
  EXPECT_EQ(view.seats[*second].gpu, 3u);
  EXPECT_EQ(view.seats[*second].slot, me.slot.index);
  EXPECT_EQ(ALLOT_SLOT_PID(view.seats[*first].owner), static_cast<uint32_t>(getpid()));
}

TEST_F(TimeViewTest, TheSeatOfAProcessThatIsGoneIsGivenAgain) {
  Joined me = join("t");
  AllotTenantFile& file = *me.tenant.file;
  for (uint32_t i = 0; i < ALLOT_MAX_SEATS; ++i) {
    file.seats[i].owner = ALLOT_SLOT_WORD(ALLOT_SLOT_LIVE, 1, 77);
    file.seats[i].slot = 9;  // where nobody stands
    file.seats[i].heartbeat_ns = sys::monotonic_ns();
    file.seats[i].flags = ALLOT_SEAT_ACTIVE;
  }
  EXPECT_FALSE(take_seat(me.tenant, me.slot, 0)) << "fresh heartbeats: may be just sitting down";
  file.seats[5].heartbeat_ns = 0;
  auto seat = take_seat(me.tenant, me.slot, 0);
  ASSERT_TRUE(seat);
  EXPECT_EQ(*seat, 5u);
  EXPECT_EQ(file.seats[5].flags, 0u);
}

TEST_F(TimeViewTest, ProcessesThatSitDownAtOnceGetSeatsOfTheirOwn) {
  Joined me = join("t");
  for (int i = 0; i < 24; ++i) {
    const pid_t pid = fork();
    if (pid != 0) continue;
    auto mine = join_tenant(path("t").c_str());
    if (mine) take_seat(mine->tenant, mine->slot, 0);
    _exit(0);
  }
  while (wait(nullptr) > 0) {
  }
  std::set<uint32_t> pids;
  int taken = 0;
  for (const AllotTimeSeat& seat : me.tenant.file->seats) {
    if (seat.owner == 0) continue;
    ++taken;
    pids.insert(ALLOT_SLOT_PID(seat.owner));
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
  ring_other(path("t").c_str());
  EXPECT_FALSE(read_time_view(path("nobody").c_str(), &view));
}

TEST_F(TimeViewTest, ABellWakesTheAgentsOfAnotherTenant) {
  join("b");
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    auto mine = join_tenant(path("b").c_str());
    char byte = 'r';
    if (!mine || write(pipes[1], &byte, 1) != 1) _exit(2);
    const uint64_t begin = sys::monotonic_ns();
    wait_for_bell(mine->tenant, mine->tenant.file->header.bell, 8'000'000'000);
    _exit(sys::monotonic_ns() - begin < 7'000'000'000 ? 0 : 1);
  }
  char byte;
  ASSERT_EQ(read(pipes[0], &byte, 1), 1);
  int status = 0;
  // It may not sleep yet when the bell rings first; that is why agents ring twice.
  EXPECT_TRUE(eventually([&] {
    ring_other(path("b").c_str());
    return waitpid(pid, &status, WNOHANG) == pid;
  }));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(TimeViewTest, ABellThatHasRungMeanwhileIsNotSleptThrough) {
  Joined me = join("t");
  const uint32_t seen = me.tenant.file->header.bell;
  ring(me.tenant);
  const uint64_t begin = sys::monotonic_ns();
  wait_for_bell(me.tenant, seen, 8'000'000'000);
  EXPECT_LT(sys::monotonic_ns() - begin, 7'000'000'000u);
}

}  // namespace
}  // namespace allot::shm
