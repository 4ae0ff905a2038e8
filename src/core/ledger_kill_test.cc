// Processes that share a ledger and are killed at any instant.
//
// A parent makes children that reserve and release as fast as they can, kills one after another
// with SIGKILL at random moments, starts new ones in their place and reclaims. Each child keeps,
// outside the ledger, what it surely holds: raised after a reservation was granted, lowered before
// a release. At all times: the sum of that over the living is within the limit. When the survivors
// stand still: the account is the sum over their slots, and nothing of the dead is left.
//
// ALLOT_TEST_KILLS=<n> makes it longer; ALLOT_TEST_SEED=<n> repeats one. With ALLOT_TEST_OUT=FILE
// the longest operation of a survivor, less its waiting for a CPU, is written there.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <random>
#include <string>

#include "core/ledger.h"
#include "core/test_file.h"
#include "core/test_run_delay.h"

namespace allot::core {
namespace {

constexpr uint32_t kChildren = 5;
constexpr uint64_t kLimit = 1000;

// Beside the ledger, in shared memory as well.
struct Board {
  struct Place {
    std::atomic<uint64_t> held;
    std::atomic<uint32_t> pid;
    std::atomic<uint64_t> version;  // odd while `held` is being changed
    std::atomic<uint64_t> operations;
    std::atomic<uint64_t> longest_ns;      // of an eighth of the operations
    std::atomic<uint64_t> longest_own_ns;  // less the waiting for a CPU
    std::atomic<bool> still;               // stands still because of `halt`
  };
  Place places[kChildren];
  std::atomic<bool> halt;
};

class KillTest : public testing::Test {
 protected:
  void SetUp() override {
    board_ = static_cast<Board*>(
        mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(board_, MAP_FAILED);
    const char* seed = std::getenv("ALLOT_TEST_SEED");
    seed_ = seed != nullptr ? std::strtoull(seed, nullptr, 10) : std::random_device{}();
    random_.seed(seed_);
  }
  void TearDown() override {
    for (uint32_t i = 0; i < kChildren; ++i) kill_child(i);
    munmap(board_, sizeof(Board));
  }

  static void change(Board::Place& place, uint64_t by) {
    place.version.fetch_add(1);
    place.held.fetch_add(by);
    place.version.fetch_add(1);
  }

  template <class Operation>
  static void timed(const RunDelay& delay, Board::Place& place, Operation operation) {
    const RunDelay::Took took = delay.time(operation);
    if (took.wall_ns > place.longest_ns) place.longest_ns = took.wall_ns;
    if (took.own_ns > place.longest_own_ns) place.longest_own_ns = took.own_ns;
  }

  // In the child: works until it is killed.
  [[noreturn]] void work(uint32_t place, uint64_t seed) {
    Ledger ledger = file_.ledger();
    const uint32_t pid = static_cast<uint32_t>(getpid());
    auto slot = ledger.take_slot(owner_of(pid));
    if (!slot) _exit(1);
    Board::Place& mine = board_->places[place];
    std::mt19937_64 random(seed);
    const RunDelay delay;
    uint64_t held[ALLOT_KINDS] = {};
    for (;;) {
      while (board_->halt.load()) {
        mine.still = true;
        usleep(50);
      }
      mine.still = false;
      const AllotKind kind = static_cast<AllotKind>(random() % ALLOT_KINDS);
      const uint64_t bytes = 1 + random() % 400;
      const bool measured = random() % 8 == 0;
      if (random() % 2 == 0) {
        bool granted = false;
        const auto reserve = [&] {
          granted = static_cast<bool>(ledger.reserve(*slot, 0, kind, bytes));
        };
        if (measured) {
          timed(delay, mine, reserve);
        } else {
          reserve();
        }
        if (granted) {
          held[kind] += bytes;
          change(mine, bytes);
        }
      } else if (held[kind] > 0) {
        const uint64_t back = 1 + random() % held[kind];
        held[kind] -= back;
        change(mine, ~back + 1);
        const auto release = [&] { ledger.release(*slot, 0, kind, back); };
        if (measured) {
          timed(delay, mine, release);
        } else {
          release();
        }
      }
      mine.operations.fetch_add(1);
      if (random() % 256 == 0) usleep(100);  // leave the others some processor time
    }
  }

  void start_child(uint32_t place) {
    const uint64_t seed = random_();
    board_->places[place].held = 0;
    board_->places[place].still = false;
    const pid_t pid = fork();
    if (pid == 0) work(place, seed);
    board_->places[place].pid = static_cast<uint32_t>(pid);
  }

  void kill_child(uint32_t place) {
    Board::Place& its = board_->places[place];
    const pid_t pid = static_cast<pid_t>(its.pid.load());
    if (pid == 0) return;
    kill(pid, SIGKILL);
    int status = 0;
    waitpid(pid, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status)) << "a child ended by itself";
    its.held = 0;
    its.version = 0;
    its.pid = 0;
  }

  static bool alive(void* context, uint32_t, uint32_t pid, const AllotSlot&) {
    for (const Board::Place& place : static_cast<KillTest*>(context)->board_->places) {
      if (place.pid == pid) return true;
    }
    return false;
  }

  uint64_t held() const {
    uint64_t sum = 0;
    for (const Board::Place& place : board_->places) sum += place.held.load();
    return sum;
  }

  // What is held at one instant, while the others keep running; false if they were too busy.
  bool look(uint64_t* sum) const {
    uint64_t versions[kChildren];
    for (uint32_t i = 0; i < kChildren; ++i) versions[i] = board_->places[i].version;
    *sum = held();
    for (uint32_t i = 0; i < kChildren; ++i) {
      if (versions[i] % 2 != 0 || versions[i] != board_->places[i].version) return false;
    }
    return true;
  }

  bool all_still() const {
    for (const Board::Place& place : board_->places) {
      if (place.pid != 0 && !place.still) return false;
    }
    return true;
  }

  void stand_still() {
    board_->halt = true;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!all_still() && std::chrono::steady_clock::now() < end) usleep(50);
    ASSERT_TRUE(all_still()) << "a child hangs";
  }

  void write_figures(int kills, uint64_t operations) const {
    const char* path = std::getenv("ALLOT_TEST_OUT");
    if (path == nullptr) return;
    uint64_t wall = 0, own = 0;
    for (const Board::Place& place : board_->places) {
      wall = std::max(wall, place.longest_ns.load());
      own = std::max(own, place.longest_own_ns.load());
    }
    std::ofstream(path) << "{\"kills\": " << kills << ", \"operations\": " << operations
                        << ", \"longest_ms\": " << static_cast<double>(wall) / 1e6
                        << ", \"less_waiting_for_a_cpu_ms\": " << static_cast<double>(own) / 1e6
                        << "}\n";
  }

  TestFile file_{kLimit};
  Board* board_ = nullptr;
  uint64_t seed_ = 0;
  std::mt19937_64 random_;
};

TEST_F(KillTest, TheAccountIsExactAfterAnyKill) {
  const char* more = std::getenv("ALLOT_TEST_KILLS");
  const int kills = more != nullptr ? std::atoi(more) : 1000;
  SCOPED_TRACE("ALLOT_TEST_SEED=" + std::to_string(seed_));
  Ledger ledger = file_.ledger();
  for (uint32_t i = 0; i < kChildren; ++i) start_child(i);
  uint64_t operations = 0, looks = 0;
  for (int round = 0; round < kills && !HasFailure(); ++round) {
    const uint32_t victim = static_cast<uint32_t>(random_() % kChildren);
    // Let them work for a random moment, watching.
    for (uint64_t i = 1 + random_() % 4; i > 0; --i) {
      uint64_t sum;
      if (look(&sum)) {
        ++looks;
        ASSERT_LE(sum, kLimit);
      }
      usleep(static_cast<useconds_t>(random_() % 200));
    }
    kill_child(victim);
    if (random_() % 4 == 0) {  // sometimes a second one dies before anybody reclaims
      kill_child(static_cast<uint32_t>(random_() % kChildren));
    }
    ledger.reclaim(alive, this);
    if (round % 8 == 0) {
      stand_still();
      const uint64_t sum = held();
      EXPECT_LE(sum, kLimit);
      EXPECT_EQ(ledger.used(0), sum) << "round " << round;
      EXPECT_EQ(ledger.used_by_living(0, nullptr, nullptr), sum);
      EXPECT_EQ(ledger.recount(0), sum);
      board_->halt = false;
    }
    for (uint32_t i = 0; i < kChildren; ++i) {
      if (board_->places[i].pid == 0) start_child(i);
    }
  }
  EXPECT_EQ(file_->header.ledger_faults, 0u);
  for (const Board::Place& place : board_->places) operations += place.operations;
  EXPECT_GT(looks, 0u);
  EXPECT_GT(operations, static_cast<uint64_t>(kills));
  RecordProperty("operations", std::to_string(operations));
  write_figures(kills, operations);
  for (uint32_t i = 0; i < kChildren; ++i) kill_child(i);
  ledger.reclaim(alive, this);
  EXPECT_EQ(ledger.used(0), 0u);
}

// Children reclaim too, and are killed while they do.
TEST_F(KillTest, ThoseWhoReclaimMayDieOfIt) {
  SCOPED_TRACE("ALLOT_TEST_SEED=" + std::to_string(seed_));
  Ledger ledger = file_.ledger();
  auto start_reclaimer = [&](uint32_t place) {
    const pid_t pid = fork();
    if (pid == 0) {
      Ledger mine = file_.ledger();
      for (;;) {
        mine.reclaim(alive, this);
        auto slot = mine.take_slot(owner_of(static_cast<uint32_t>(getpid())));
        if (slot && mine.reserve(*slot, 0, ALLOT_KIND_LINEAR, 100)) {
          board_->places[place].operations.fetch_add(1);
        }
      }
    }
    board_->places[place].pid = static_cast<uint32_t>(pid);
  };
  for (uint32_t i = 0; i < 3; ++i) start_child(i);
  for (uint32_t i = 3; i < kChildren; ++i) start_reclaimer(i);
  for (int round = 0; round < 200 && !HasFailure(); ++round) {
    const uint32_t victim = static_cast<uint32_t>(random_() % kChildren);
    usleep(static_cast<useconds_t>(random_() % 1000));
    kill_child(victim);
    victim < 3 ? start_child(victim) : start_reclaimer(victim);
  }
  for (uint32_t i = 0; i < kChildren; ++i) kill_child(i);
  ledger.reclaim(alive, this);
  EXPECT_EQ(ledger.used(0), 0u);
  EXPECT_EQ(ledger.used_by_living(0, nullptr, nullptr), 0u);
  for (uint32_t i = 0; i < file_->header.slots_high; ++i) {
    EXPECT_EQ(ALLOT_SLOT_STATE(file_->slot_words[i]), ALLOT_SLOT_FREE) << i;
  }
}

}  // namespace
}  // namespace allot::core
