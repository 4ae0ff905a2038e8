// Seats as listings show them: which count, and what state several of them make.
#include "cli/region/agent_view.h"

#include <gtest/gtest.h>

#include <memory>

#include "cli/launch/admission.h"
#include "sys/clock.h"

namespace allot::cli {
namespace {

class Seats : public testing::Test {
 protected:
  AllotTimeSeat& sit(uint32_t index, uint32_t slot, uint32_t pid, uint32_t flags) {
    file_->slot_words[slot] = ALLOT_SLOT_WORD(ALLOT_SLOT_LIVE, 1, pid);
    AllotTimeSeat& seat = file_->seats[index];
    seat.owner = file_->slot_words[slot];
    seat.slot = slot;
    seat.flags = flags;
    seat.level = ALLOT_LEVEL_CHANNEL;
    seat.heartbeat_ns = sys::monotonic_ns();
    return seat;
  }
  std::string state(bool frozen = false) { return state_text(read_seats(*file_), 0, frozen); }

  std::unique_ptr<AllotTenantFile> file_ = std::make_unique<AllotTenantFile>();
};

TEST_F(Seats, OnlyThoseOfLivingSlotsCount) {
  sit(0, 3, 77, ALLOT_SEAT_ACTIVE | ALLOT_SEAT_OPEN);
  AllotTimeSeat& gone = sit(1, 4, 78, ALLOT_SEAT_ACTIVE);
  gone.owner = ALLOT_SLOT_WORD(ALLOT_SLOT_LIVE, 2, 78);
  ASSERT_EQ(read_seats(*file_).size(), 1u);
  EXPECT_EQ(read_seats(*file_)[0].pid, 77u);
  EXPECT_EQ(read_seats(*file_)[0].slot, 3u);
}

TEST_F(Seats, HostileIndexesAreLeftOut) {
  sit(0, 3, 77, 0).slot = ALLOT_MAX_SLOTS;
  sit(1, 4, 78, 0).gpu = ALLOT_MAX_GPUS;
  EXPECT_TRUE(read_seats(*file_).empty());
}

TEST_F(Seats, ASilentAgentDoesNotAnswer) {
  sit(0, 3, 77, ALLOT_SEAT_ACTIVE).heartbeat_ns -= 2 * ALLOT_SEAT_STALE_NS;
  EXPECT_FALSE(read_seats(*file_)[0].answers);
  sit(0, 3, 77, ALLOT_SEAT_ACTIVE).heartbeat_ns += ALLOT_SEAT_STALE_NS;  // written meanwhile
  EXPECT_TRUE(read_seats(*file_)[0].answers);
}

TEST_F(Seats, TheStateIsThatOfTheBusiestProcess) {
  EXPECT_EQ(state(), "idle");
  sit(0, 0, 70, ALLOT_SEAT_OPEN);
  EXPECT_EQ(state(), "idle");
  sit(1, 1, 71, ALLOT_SEAT_ACTIVE);
  EXPECT_EQ(state(), "throttled");
  sit(2, 2, 72, ALLOT_SEAT_ACTIVE | ALLOT_SEAT_OPEN);
  EXPECT_EQ(state(), "active");
  sit(2, 2, 72, ALLOT_SEAT_ACTIVE | ALLOT_SEAT_OPEN).gpu = 1;
  EXPECT_EQ(state(), "throttled");
}

TEST_F(Seats, FrozenOnlyWhenNothingRuns) {
  EXPECT_EQ(state(true), "frozen");
  sit(0, 0, 70, ALLOT_SEAT_ACTIVE | ALLOT_SEAT_OPEN);
  EXPECT_EQ(state(true), "freezing");
  sit(0, 0, 70, ALLOT_SEAT_ACTIVE | ALLOT_SEAT_FROZEN);
  EXPECT_EQ(state(true), "frozen");
  // Its level is not known yet: nothing of it has run.
  sit(1, 1, 71, ALLOT_SEAT_OPEN).level = ALLOT_LEVEL_AUTO;
  EXPECT_EQ(state(true), "frozen");
}

TEST(PercentText, AsItIsTyped) {
  EXPECT_EQ(percent_text(0), "none");
  EXPECT_EQ(percent_text(300), "30%");
  EXPECT_EQ(percent_text(5), "0.5%");
  EXPECT_EQ(percent_text(1000), "100%");
}

}  // namespace
}  // namespace allot::cli
