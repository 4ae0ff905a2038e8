#include "shim/process/swap_gate.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "sys/clock.h"

namespace allot::shim {
namespace {

constexpr uint64_t kLong = 60'000'000'000;

class SwapGate : public testing::Test {
 protected:
  void TearDown() override { abandon_swap_gate(); }
};

template <class Done>
bool in_time(Done done) {
  const uint64_t end = sys::monotonic_ns() + kLong;
  while (!done()) {
    if (sys::monotonic_ns() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

TEST_F(SwapGate, WhoComesToAClosedGateWaitsUntilItOpens) {
  swap_close(sys::monotonic_ns() + kLong);
  std::atomic<int> asked{0};
  static std::atomic<int>* counter;
  counter = &asked;
  swap_wait_handler = [] { ++*counter; };
  std::atomic<bool> through{false};
  std::thread program([&] {
    swap_enter();
    through = true;
    swap_leave();
  });
  ASSERT_TRUE(in_time([] { return swap_waiting() == 1; }));
  EXPECT_EQ(swap_inside(), 0u);
  EXPECT_TRUE(swap_closed());
  EXPECT_FALSE(through);
  swap_open();
  program.join();
  EXPECT_TRUE(through);
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(swap_inside(), 0u);
  swap_wait_handler = nullptr;
}

TEST_F(SwapGate, WhoIsInsideIsSeenAndMayNest) {
  swap_enter();
  EXPECT_EQ(swap_inside(), 1u);
  swap_close(sys::monotonic_ns() + kLong);
  swap_enter();  // a hook inside a hook
  swap_wait_open();
  EXPECT_EQ(swap_inside(), 1u);
  swap_leave();
  EXPECT_EQ(swap_inside(), 1u);
  swap_leave();
  EXPECT_EQ(swap_inside(), 0u);
}

TEST_F(SwapGate, OpensByItselfWhenTheCloserIsLate) {
  swap_close(sys::monotonic_ns() + 1'000'000);
  swap_enter();  // returns
  EXPECT_TRUE(swap_is_open());
  EXPECT_FALSE(swap_closed());
  swap_leave();
}

TEST_F(SwapGate, CannotBeClosedForGoodTooLate) {
  swap_close(sys::monotonic_ns() - 1);
  EXPECT_FALSE(swap_closed());
  EXPECT_TRUE(swap_is_open());
}

TEST_F(SwapGate, ClosedForGoodStaysClosedPastTheDeadline) {
  const uint64_t deadline = sys::monotonic_ns() + 2'000'000'000;
  swap_close(deadline);
  ASSERT_TRUE(swap_closed());
  std::thread program([] {
    swap_enter();
    swap_leave();
  });
  const uint64_t later = deadline + 300'000'000;
  ASSERT_TRUE(in_time([&] { return sys::monotonic_ns() > later; }));
  EXPECT_EQ(swap_waiting(), 1u);
  swap_open();
  program.join();
}

TEST_F(SwapGate, WhoEndsTheProcessGoesThrough) {
  swap_close(sys::monotonic_ns() + kLong);
  ASSERT_TRUE(swap_closed());
  swap_let_through();
  swap_enter();
  swap_leave();
}

// The promise that everything rests on: closed and nobody inside means nobody reaches the memory.
TEST_F(SwapGate, NobodyIsInsideWhileItIsClosed) {
  std::atomic<bool> end{false};
  std::atomic<bool> there{true};
  std::atomic<int> faults{0};
  std::vector<std::thread> program;
  for (int i = 0; i < 4; ++i) {
    program.emplace_back([&] {
      while (!end) {
        swap_enter();
        if (!there) ++faults;
        swap_leave();
      }
    });
  }
  for (int round = 0; round < 300; ++round) {
    swap_close(sys::monotonic_ns() + kLong);
    ASSERT_TRUE(in_time([] { return swap_inside() == 0; }));
    ASSERT_TRUE(swap_closed());
    there = false;
    std::this_thread::yield();
    there = true;
    swap_open();
  }
  end = true;
  for (std::thread& thread : program) thread.join();
  EXPECT_EQ(faults, 0);
}

}  // namespace
}  // namespace allot::shim
