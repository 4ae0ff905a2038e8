// The table of offered memory: found while its owner lives, free again when it does not.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "core/test_file.h"
#include "shm/slice_file.h"

namespace allot::shm {
namespace {

class Exports : public testing::Test {
 protected:
  core::TestFile file_;
  Slice slice_{file_.get(), true, 0};
  core::Ledger ledger_ = file_.ledger();
};

TEST_F(Exports, AreFoundWhileTheirSlotLives) {
  core::SlotId slot = *ledger_.take_slot(core::owner_of(1));
  EXPECT_FALSE(find_export(slice_, 42));
  EXPECT_TRUE(add_export(slice_, 42, slot));
  EXPECT_TRUE(add_export(slice_, 42, slot));  // again: one entry
  EXPECT_TRUE(find_export(slice_, 42));
  EXPECT_FALSE(find_export(slice_, 43));
  EXPECT_FALSE(find_export(slice_, 42 + ALLOT_MAX_EXPORTS));
  drop_export(slice_, 42, slot);
  EXPECT_FALSE(find_export(slice_, 42));
  EXPECT_TRUE(add_export(slice_, 42, slot));
  ledger_.end_slot(slot);
  EXPECT_FALSE(find_export(slice_, 42));
  EXPECT_EQ(add_export(slice_, 0, slot).error().code, Errc::kBadValue);
  EXPECT_FALSE(find_export(slice_, 0));
}

TEST_F(Exports, TwoMayOfferTheSameAndOneMayTakeItBack) {
  core::SlotId a = *ledger_.take_slot(core::owner_of(1)), b = *ledger_.take_slot(core::owner_of(2));
  ASSERT_TRUE(add_export(slice_, 42, a));
  ASSERT_TRUE(add_export(slice_, 42, b));
  drop_exports(slice_, a);
  EXPECT_TRUE(find_export(slice_, 42));
  drop_exports(slice_, b);
  EXPECT_FALSE(find_export(slice_, 42));
}

TEST_F(Exports, AFullPartIsAnErrorAndTheDeadMakeRoom) {
  core::SlotId a = *ledger_.take_slot(core::owner_of(1)), b = *ledger_.take_slot(core::owner_of(2));
  uint32_t added = 0;
  while (add_export(slice_, 5 + uint64_t{added} * ALLOT_MAX_EXPORTS, a)) ++added;
  EXPECT_EQ(added, 64u);
  for (uint32_t i = 0; i < added; ++i)
    EXPECT_TRUE(find_export(slice_, 5 + uint64_t{i} * ALLOT_MAX_EXPORTS));
  EXPECT_EQ(add_export(slice_, 5, b).error().code, Errc::kFull);
  ledger_.end_slot(a);
  EXPECT_TRUE(add_export(slice_, 5, b));
  EXPECT_TRUE(find_export(slice_, 5));
}

TEST_F(Exports, EntriesOfGarbageAreNobodys) {
  for (AllotExport& entry : file_->exports) entry = {42, 0xffffffff, 0xffffffff};
  EXPECT_FALSE(find_export(slice_, 42));
  core::SlotId a = *ledger_.take_slot(core::owner_of(1));
  EXPECT_TRUE(add_export(slice_, UINT64_MAX, a));
  EXPECT_TRUE(find_export(slice_, UINT64_MAX));
  drop_exports(slice_, a);
  EXPECT_FALSE(find_export(slice_, UINT64_MAX));
}

TEST_F(Exports, ManyAddAndDropAtOnce) {
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (uint32_t t = 0; t < 4; ++t) {
    core::SlotId slot = *ledger_.take_slot(core::owner_of(t + 1));
    threads.emplace_back([&, slot, t] {
      for (uint64_t i = 0; i < 2000; ++i) {
        const uint64_t hash = 1 + t + (i % 16) * 4;
        if (!add_export(slice_, hash, slot) || !find_export(slice_, hash)) ++wrong;
        drop_export(slice_, hash, slot);
        if (find_export(slice_, hash)) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace allot::shm
