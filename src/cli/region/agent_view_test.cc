// Clients as listings show them: which count, and what state several of them make.
#include "cli/region/agent_view.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>

#include "cli/region/region_view.h"
#include "sys/clock.h"

namespace allot::cli {
namespace {

class Clients : public testing::Test {
 protected:
  AllotGpuClient& sit(uint32_t index, uint32_t slot, uint32_t pid, uint32_t flags) {
    file_->slot_words[slot] = ALLOT_SLOT_WORD(ALLOT_SLOT_LIVE, 1, pid);
    AllotGpuClient& client = file_->clients[index];
    client.owner = file_->slot_words[slot];
    client.slot = slot;
    client.flags = flags;
    client.level = ALLOT_LEVEL_CHANNEL;
    client.heartbeat_ns = sys::monotonic_ns();
    return client;
  }
  std::string state(bool frozen = false) { return state_text(read_clients(*file_), 0, frozen); }

  std::unique_ptr<AllotSliceFile> file_ = std::make_unique<AllotSliceFile>();
};

TEST_F(Clients, OnlyThoseOfLivingSlotsCount) {
  sit(0, 3, 77, ALLOT_CLIENT_ACTIVE | ALLOT_CLIENT_OPEN);
  AllotGpuClient& gone = sit(1, 4, 78, ALLOT_CLIENT_ACTIVE);
  gone.owner = ALLOT_SLOT_WORD(ALLOT_SLOT_LIVE, 2, 78);
  ASSERT_EQ(read_clients(*file_).size(), 1u);
  EXPECT_EQ(read_clients(*file_)[0].pid, 77u);
  EXPECT_EQ(read_clients(*file_)[0].slot, 3u);
}

TEST_F(Clients, HostileIndexesAreLeftOut) {
  sit(0, 3, 77, 0).slot = ALLOT_MAX_SLOTS;
  sit(1, 4, 78, 0).gpu = ALLOT_MAX_GPUS;
  EXPECT_TRUE(read_clients(*file_).empty());
}

TEST_F(Clients, ASilentAgentDoesNotAnswer) {
  sit(0, 3, 77, ALLOT_CLIENT_ACTIVE).heartbeat_ns -= 2 * ALLOT_CLIENT_STALE_NS;
  EXPECT_FALSE(read_clients(*file_)[0].answers);
  sit(0, 3, 77, ALLOT_CLIENT_ACTIVE).heartbeat_ns += ALLOT_CLIENT_STALE_NS;  // written meanwhile
  EXPECT_TRUE(read_clients(*file_)[0].answers);
}

TEST_F(Clients, TheStateIsThatOfTheBusiestProcess) {
  EXPECT_EQ(state(), "idle");
  sit(0, 0, 70, ALLOT_CLIENT_OPEN);
  EXPECT_EQ(state(), "idle");
  sit(1, 1, 71, ALLOT_CLIENT_ACTIVE);
  EXPECT_EQ(state(), "throttled");
  sit(2, 2, 72, ALLOT_CLIENT_ACTIVE | ALLOT_CLIENT_OPEN);
  EXPECT_EQ(state(), "active");
  sit(2, 2, 72, ALLOT_CLIENT_ACTIVE | ALLOT_CLIENT_OPEN).gpu = 1;
  EXPECT_EQ(state(), "throttled");
}

TEST_F(Clients, FrozenOnlyWhenNothingRuns) {
  EXPECT_EQ(state(true), "frozen");
  sit(0, 0, 70, ALLOT_CLIENT_ACTIVE | ALLOT_CLIENT_OPEN);
  EXPECT_EQ(state(true), "freezing");
  sit(0, 0, 70, ALLOT_CLIENT_ACTIVE | ALLOT_CLIENT_FROZEN);
  EXPECT_EQ(state(true), "frozen");
  // Its level is not known yet: nothing of it has run.
  sit(1, 1, 71, ALLOT_CLIENT_OPEN).level = ALLOT_LEVEL_AUTO;
  EXPECT_EQ(state(true), "frozen");
}

TEST(Tables, WhatDoesNotFitIsSaid) {
  SliceView slice;
  ProcessView process;
  EXPECT_EQ(unheld_text(slice, process), "");
  process.unheld_gpus = 2;
  EXPECT_EQ(unheld_text(slice, process), "not held: more than 256 GPU clients in this slice");
  process.gpus_beyond = 1;
  slice.flags = ALLOT_SLICE_FAIL_CLOSED;
  EXPECT_EQ(unheld_text(slice, process).substr(0, 9), "not held:") << "nothing is to be held";
  slice.gpus.emplace_back();
  slice.gpus[0].max_permille = 300;
  EXPECT_EQ(unheld_text(slice, process),
            "refused: more than 256 GPU clients in this slice; 1 of the GPUs that it sees is "
            "refused: a slice holds 16");
  EXPECT_STREQ(reason_name(ALLOT_REASON_CROWDED), "crowded");
}

TEST(Tables, EachTableOfAProcessHasANameAndSaysWhatFollows) {
  EXPECT_STREQ(reason_name(ALLOT_REASON_TABLES), "tables");
  EXPECT_STRNE(reason_text(ALLOT_REASON_TABLES), "");
  EXPECT_EQ(tables_text(0), "");
  EXPECT_TRUE(table_names(0).empty());
  std::set<std::string> names, texts;
  for (uint32_t bit = 1; bit <= ALLOT_TABLE_COSTS; bit <<= 1) {
    ASSERT_EQ(table_names(bit).size(), 1u) << bit;
    names.insert(table_names(bit)[0]);
    texts.insert(tables_text(bit));
  }
  EXPECT_EQ(names.size(), 7u);
  EXPECT_EQ(texts.size(), 7u);
  EXPECT_EQ(tables_text(ALLOT_TABLE_STREAMS | ALLOT_TABLE_COSTS),
            "more than 1024 streams: it counts as busy; more kernels and graphs than allot learns: "
            "each of the rest counts as 5 ms");
}

}  // namespace
}  // namespace allot::cli
