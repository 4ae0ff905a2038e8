#include "shim/process/settled_charge.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace allot::shim {
namespace {

// The ledger, as far as a settled charge knows it.
std::atomic<int64_t> ledger{0};
std::atomic<bool> below_zero{false};

}  // namespace

void charge_now(uint32_t, AllotKind, uint64_t bytes) {
  ledger += static_cast<int64_t>(bytes);
}
void release_now(uint32_t, AllotKind, uint64_t bytes) {
  if ((ledger -= static_cast<int64_t>(bytes)) < 0) below_zero = true;
}

namespace {

constexpr uint64_t kMiB = 1 << 20;

class SettledChargeTest : public testing::Test {
 protected:
  void SetUp() override {
    ledger = 0;
    below_zero = false;
  }
  static bool settle(SettledCharge& charge, uint64_t prepaid, uint64_t now) {
    return charge.settle(0, ALLOT_KIND_POOL, prepaid, [now](uint64_t, uint64_t* out) {
      *out = now;
      return true;
    });
  }
};

TEST_F(SettledChargeTest, UsesUpOrReturnsWhatWasPrepaid) {
  SettledCharge charge;
  charge_now(0, ALLOT_KIND_POOL, 64 * kMiB);
  ASSERT_TRUE(settle(charge, 64 * kMiB, 32 * kMiB));
  EXPECT_EQ(ledger, static_cast<int64_t>(32 * kMiB));
  charge_now(0, ALLOT_KIND_POOL, 32 * kMiB);
  ASSERT_TRUE(settle(charge, 32 * kMiB, 128 * kMiB)) << "grew by more than was prepaid";
  EXPECT_EQ(ledger, static_cast<int64_t>(128 * kMiB));
  ASSERT_TRUE(settle(charge, 0, 0));
  EXPECT_EQ(ledger, 0);
  EXPECT_EQ(charge.bytes(), 0u);
}

TEST_F(SettledChargeTest, LeavesThePrepaidBytesWhenTheDriverCannotTell) {
  SettledCharge charge;
  charge_now(0, ALLOT_KIND_POOL, kMiB);
  EXPECT_FALSE(charge.settle(0, ALLOT_KIND_POOL, kMiB, [](uint64_t, uint64_t*) { return false; }));
  EXPECT_EQ(ledger, static_cast<int64_t>(kMiB));
  charge.accept(kMiB);
  EXPECT_EQ(charge.bytes(), kMiB);
}

// A pool that threads grow and shrink while each settles after its change: in the end the ledger
// says what the pool holds, and it never stood below nothing.
TEST_F(SettledChargeTest, FollowsAPoolThatManyThreadsChange) {
  SettledCharge charge;
  std::atomic<uint64_t> pool{0};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20000; ++i) {
        const uint64_t bytes = ((t + static_cast<uint64_t>(i)) % 7 + 1) * kMiB;
        charge_now(0, ALLOT_KIND_POOL, bytes);
        pool += bytes;
        if (!charge.settle(0, ALLOT_KIND_POOL, bytes, [&](uint64_t, uint64_t* now) {
              *now = pool;
              return true;
            })) {
          release_now(0, ALLOT_KIND_POOL, bytes);
        }
        pool -= bytes;
        static_cast<void>(charge.settle(0, ALLOT_KIND_POOL, 0, [&](uint64_t, uint64_t* now) {
          *now = pool;
          return true;
        }));
      }
    });
  }
  for (auto& thread : threads) thread.join();
  ASSERT_TRUE(settle(charge, 0, pool));
  EXPECT_EQ(ledger, 0);
  EXPECT_FALSE(below_zero);
}

}  // namespace
}  // namespace allot::shim
