#include "shim/process/pointer_table.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>
#include <unordered_map>
#include <vector>

namespace allot::shim {
namespace {

Entry pointer(uint64_t key, uint64_t bytes = 0, uint64_t owner = 0) {
  return {key, owner, bytes, 0, 0, Tag::kPointer, Entry::pack(3, ALLOT_KIND_VMM)};
}

TEST(PointerTable, FindsWhatWasPutAndNothingElse) {
  auto table = std::make_unique<PointerTable>();
  Entry out;
  EXPECT_FALSE(table->find(Tag::kPointer, 512, &out));
  ASSERT_TRUE(table->put(pointer(512, 7)));
  ASSERT_TRUE(table->find(Tag::kPointer, 512, &out));
  EXPECT_EQ(out.bytes, 7u);
  EXPECT_EQ(out.gpu(), 3u);
  EXPECT_EQ(out.kind(), ALLOT_KIND_VMM);
  EXPECT_FALSE(table->find(Tag::kSlab, 512, &out)) << "the tag is part of the key";
  ASSERT_TRUE(table->take(Tag::kPointer, 512, &out));
  EXPECT_FALSE(table->take(Tag::kPointer, 512, &out));
  EXPECT_EQ(table->size(), 0u);
}

TEST(PointerTable, AgreesWithAMapOverRandomOperations) {
  auto table = std::make_unique<PointerTable>();
  std::unordered_map<uint64_t, uint64_t> model;
  std::mt19937_64 random(7);
  for (int i = 0; i < 400000; ++i) {
    const uint64_t key = (random() % 20000) * 512;
    Entry out;
    switch (random() % 3) {
      case 0:
        ASSERT_TRUE(table->put(pointer(key, static_cast<uint64_t>(i))));
        model[key] = static_cast<uint64_t>(i);
        break;
      case 1: {
        const bool there = table->take(Tag::kPointer, key, &out);
        ASSERT_EQ(there, model.count(key) == 1);
        if (there) {
          ASSERT_EQ(out.bytes, model[key]);
        }
        model.erase(key);
        break;
      }
      default: {
        const bool there = table->find(Tag::kPointer, key, &out);
        ASSERT_EQ(there, model.count(key) == 1);
        if (there) {
          ASSERT_EQ(out.bytes, model[key]);
        }
      }
    }
  }
  EXPECT_EQ(table->size(), model.size());
}

TEST(PointerTable, DropTakesExactlyWhatMatches) {
  auto table = std::make_unique<PointerTable>();
  for (uint64_t i = 1; i <= 3000; ++i) ASSERT_TRUE(table->put(pointer(i << 12, 1, i % 3)));
  uint64_t dropped = 0;
  table->drop([](const Entry& e) { return e.owner == 1; },
              [&](const Entry& e) {
                EXPECT_EQ(e.owner, 1u);
                ++dropped;
              });
  EXPECT_EQ(dropped, 1000u);
  EXPECT_EQ(table->size(), 2000u);
  Entry out;
  for (uint64_t i = 1; i <= 3000; ++i) {
    ASSERT_EQ(table->find(Tag::kPointer, i << 12, &out), i % 3 != 1);
  }
}

TEST(PointerTable, PutOrUpdateCountsEveryThreadOnce) {
  auto table = std::make_unique<PointerTable>();
  constexpr int kThreads = 4;
  constexpr uint32_t kRounds = 20000;
  std::vector<std::thread> threads;
  std::atomic<uint32_t> first{0};
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (uint32_t i = 0; i < kRounds; ++i) {
        Entry slab = {i % 100, 0, 0, 1, 0, Tag::kSlab, 0};
        bool ok = true;
        if (!table->put_or_update(
                slab, [](Entry& e) { ++e.count; }, &ok))
          ++first;
        ASSERT_TRUE(ok);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(first.load(), 100u);
  uint64_t sum = 0;
  table->drop([](const Entry&) { return true; }, [&](const Entry& e) { sum += e.count; });
  EXPECT_EQ(sum, uint64_t{kThreads} * kRounds);
}

TEST(PointerTable, ThreadsDoNotDisturbEachOther) {
  auto table = std::make_unique<PointerTable>();
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 1; i <= 20000; ++i) {
        const uint64_t key = (i * 4 + t) << 9;
        ASSERT_TRUE(table->put(pointer(key, i)));
        if (i > 100) {
          Entry out;
          const uint64_t old = ((i - 100) * 4 + t) << 9;
          ASSERT_TRUE(table->take(Tag::kPointer, old, &out));
          ASSERT_EQ(out.bytes, i - 100);
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(table->size(), 400u);
}

}  // namespace
}  // namespace allot::shim
