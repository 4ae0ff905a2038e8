#include "shim/memory/movable_blocks.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

namespace allot::shim {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

SwapBlock block(uint64_t base, uint64_t span) {
  SwapBlock made = {};
  made.base = base;
  made.span = span;
  made.bytes = span - 1;
  return made;
}

TEST(SwapBlocks, FindsTheBlockThatAnAddressLiesIn) {
  SwapBlocks blocks;
  SwapBlock found = {};
  EXPECT_FALSE(blocks.find(0, &found));
  ASSERT_TRUE(blocks.add(block(8 * kMiB, 4 * kMiB)));
  ASSERT_TRUE(blocks.add(block(2 * kMiB, 2 * kMiB)));
  EXPECT_FALSE(blocks.find(2 * kMiB - 1, &found));
  EXPECT_TRUE(blocks.find(4 * kMiB - 1, &found));
  EXPECT_EQ(found.base, 2 * kMiB);
  EXPECT_FALSE(blocks.find(4 * kMiB, &found));
  EXPECT_TRUE(blocks.find(11 * kMiB, &found));
  EXPECT_EQ(found.base, 8 * kMiB);
  EXPECT_FALSE(blocks.find(12 * kMiB, &found));
  EXPECT_FALSE(blocks.take(11 * kMiB, &found));  // only by its beginning
  EXPECT_TRUE(blocks.take(8 * kMiB, &found));
  EXPECT_EQ(found.span, 4 * kMiB);
  EXPECT_FALSE(blocks.find(8 * kMiB, &found));
  EXPECT_EQ(blocks.count(), 1u);
}

TEST(SwapBlocks, AWalkSeesEachOnceInOrder) {
  SwapBlocks blocks;
  for (const uint64_t at : {6, 2, 4}) ASSERT_TRUE(blocks.add(block(at * kMiB, 2 * kMiB)));
  SwapBlock at = {};
  std::vector<uint64_t> seen;
  while (blocks.next(at.base, &at)) seen.push_back(at.base / kMiB);
  EXPECT_EQ(seen, (std::vector<uint64_t>{2, 4, 6}));
}

TEST(SwapBlocks, ThoseThatEndLaterAreTakenByTheMark) {
  SwapBlocks blocks;
  ASSERT_TRUE(blocks.add(block(2 * kMiB, 2 * kMiB)));
  ASSERT_TRUE(blocks.add(block(4 * kMiB, 2 * kMiB)));
  EXPECT_FALSE(blocks.end_later(3 * kMiB));
  EXPECT_TRUE(blocks.end_later(4 * kMiB));
  SwapBlock taken = {};
  const auto marked = [](const SwapBlock& b) { return b.ending; };
  EXPECT_TRUE(blocks.take_if(marked, &taken));
  EXPECT_EQ(taken.base, 4 * kMiB);
  EXPECT_FALSE(blocks.take_if(marked, &taken));
}

TEST(SwapBlocks, AgreesWithAMapOverManyChanges) {
  SwapBlocks blocks;
  std::map<uint64_t, uint64_t> model;
  std::mt19937_64 random(7);
  for (int i = 0; i < 20'000; ++i) {
    const uint64_t base = (random() % 4'000 + 1) * 4 * kMiB;
    SwapBlock found = {};
    if (random() % 3 != 0) {
      const uint64_t span = (random() % 2 + 1) * 2 * kMiB;
      if (model.try_emplace(base, span).second) {
        ASSERT_TRUE(blocks.add(block(base, span)));
      }
    } else {
      EXPECT_EQ(blocks.take(base, &found), model.erase(base) == 1);
    }
    const uint64_t address = base + random() % (4 * kMiB);
    const auto known = model.find(base);
    const bool inside = known != model.end() && address < base + known->second;
    ASSERT_EQ(blocks.find(address, &found), inside);
    if (inside) {
      ASSERT_EQ(found.base, base);
    }
  }
  EXPECT_EQ(blocks.count(), model.size());
}

}  // namespace
}  // namespace allot::shim
