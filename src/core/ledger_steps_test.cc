// The ledger in every order of its steps, with a process killed at any of them.
//
// The ledger's own source is compiled into this test with a hook before each shared access. Checked
// after every single step: what was granted and is still held never passes the limit, and the
// account is never below it. Checked at the end, after a reclaim: the account is exactly what the
// survivors hold, and the rest of the limit can be had to the last byte.
//
// That the test sees errors was tried by breaking the ledger: adding instead of recounting when the
// generation has changed, refusing without touching the account, freeing a slot before the recount,
// recounting without a new generation, and looking the slot up before the generation; each was
// found within the first thousands of orders.
#include "core/interleave.h"

#define ALLOT_LEDGER_STEP() ::allot::core::Interleaver::step()
#include "core/ledger.cc"
#include "core/slots.cc"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <set>

#include "core/test_file.h"

namespace allot::core {
namespace {

constexpr uint64_t kLimit = 10;
constexpr AllotKind kKind = ALLOT_KIND_LINEAR;

class LedgerSteps : public testing::Test {
 protected:
  void SetUp() override {
#ifdef ALLOT_TEST_TSAN
    GTEST_SKIP() << "one thread only, on stacks that ThreadSanitizer does not know";
#endif
  }

  // A fresh slice in which the processes `pids` have slots 0, 1, ...
  void start(const std::vector<uint32_t>& pids) {
    file_.reset(kLimit, 1, 8);
    slots_.clear();
    held_.clear();
    killed_.clear();
    granted_ = 0;
    refused_ = 0;
    for (uint32_t pid : pids) slots_[pid] = *ledger_.take_slot(owner_of(pid));
  }

  bool reserve(uint32_t pid, uint64_t bytes) {
    if (!ledger_.reserve(slots_[pid], 0, kKind, bytes)) {
      ++refused_;
      return false;
    }
    ++granted_;
    held_[pid] += bytes;
    return true;
  }
  void release(uint32_t pid, uint64_t bytes) {
    held_[pid] -= bytes;  // the driver has it back from here on
    ledger_.release(slots_[pid], 0, kKind, bytes);
  }
  void end(uint32_t pid) {
    held_[pid] = 0;
    ledger_.end_slot(slots_[pid]);
  }

  static bool alive(void* context, uint32_t, uint32_t pid, const AllotSlot&) {
    return static_cast<LedgerSteps*>(context)->killed_.count(pid) == 0;
  }
  void reclaim() {
    ledger_.reclaim(alive, this);
  }

  uint64_t held() const {
    uint64_t sum = 0;
    for (const auto& [pid, bytes] : held_) sum += bytes;
    return sum;
  }

  bool holds() {
    const uint64_t sum = held();
    if (sum > kLimit) return wrong("past the limit");
    if (ledger_.used(0) < sum) return wrong("account below what is held");
    return true;
  }

  bool wrong(const char* what) {
    what_ = what;
    return false;
  }

  // With everybody at rest: nothing lost, nothing left over, the rest can be had.
  bool holds_end() {
    if (!killed_.empty()) reclaim();
    if (ledger_.used(0) != held()) return wrong("account is not what is held");
    if (ledger_.used_by_living(0, nullptr, nullptr) != held()) return wrong("slots are not");
    if (file_->header.ledger_faults != 0) return wrong("faults");
    const uint32_t witness = 99;
    slots_[witness] = *ledger_.take_slot(owner_of(witness));
    const uint64_t rest = kLimit - held();
    if (!ledger_.reserve(slots_[witness], 0, kKind, rest)) return wrong("rest cannot be had");
    if (ledger_.reserve(slots_[witness], 0, kKind, 1)) return wrong("more than the rest");
    return true;
  }

  Interleaver::Scenario scenario(std::vector<Interleaver::Thread> threads,
                                 std::vector<uint32_t> may_be_killed) {
    Interleaver::Scenario made;
    made.threads = std::move(threads);
    made.may_be_killed = std::move(may_be_killed);
    made.on_kill = [this](uint32_t pid) {
      killed_.insert(pid);
      held_[pid] = 0;
    };
    made.holds = [this] { return holds(); };
    made.holds_end = [this] { return holds_end(); };
    return made;
  }

  void explore(Interleaver::Budget budget, const std::function<Interleaver::Scenario()>& make) {
#ifdef ALLOT_TEST_ASAN
    --budget.interruptions;  // several times slower
#endif
    if (const char* more = std::getenv("ALLOT_TEST_INTERRUPTIONS"))
      budget.interruptions = atoi(more);
    Interleaver interleaver(budget);
    const uint64_t runs = interleaver.explore(make);
    EXPECT_FALSE(interleaver.failed()) << what_ << " in order" << interleaver.order();
    EXPECT_GT(runs, 100u);
    RecordProperty("orders", std::to_string(runs));
    std::printf("  %lu orders\n", static_cast<unsigned long>(runs));
  }

  TestFile file_{kLimit};
  Ledger ledger_ = file_.ledger();
  std::map<uint32_t, SlotId> slots_;
  std::map<uint32_t, uint64_t> held_;
  std::set<uint32_t> killed_;
  int granted_ = 0, refused_ = 0;
  const char* what_ = "";
};

TEST_F(LedgerSteps, OfTwoThatDoNotFitTogetherExactlyOneIsGranted) {
  explore({3, 0}, [this] {
    start({1, 2, 3});
    auto made = scenario({{1, [this] { reserve(1, 6); }},
                          {2, [this] { reserve(2, 6); }},
                          {3, [this] { ledger_.recount(0); }}},
                         {});
    made.holds_end = [this] {
      if (granted_ != 1) return wrong(granted_ == 0 ? "both refused" : "both granted");
      return holds_end();
    };
    return made;
  });
}

TEST_F(LedgerSteps, ReservesAndReleasesWhileOthersRecount) {
  explore({2, 1}, [this] {
    start({1, 2, 3});
    auto work = [this](uint32_t pid) {
      if (reserve(pid, 4)) release(pid, 4);
      reserve(pid, 7);
    };
    return scenario(
        {{1, [=] { work(1); }}, {2, [=] { work(2); }}, {3, [this] { ledger_.recount(0); }}},
        {1, 2, 3});
  });
}

TEST_F(LedgerSteps, ThreadsOfOneProcess) {
  explore({2, 1}, [this] {
    start({1, 2});
    return scenario({{1,
                      [this] {
                        if (reserve(1, 3)) release(1, 3);
                      }},
                     {1,
                      [this] {
                        if (reserve(1, 5)) release(1, 5);
                      }},
                     {2, [this] { ledger_.recount(0); }}},
                    {1, 2});
  });
}

TEST_F(LedgerSteps, AKilledProcessIsReclaimedWhileOthersWork) {
  explore({2, 1}, [this] {
    start({1, 2, 3});
    reserve(1, 5);
    return scenario({{1,
                      [this] {
                        release(1, 2);
                        reserve(1, 4);
                      }},
                     {2, [this] { reserve(2, 6); }},
                     {3, [this] { reclaim(); }}},
                    {1, 2});
  });
}

TEST_F(LedgerSteps, TwoReclaimTheSameDeadAndOneMayDieOfIt) {
  explore({2, 1}, [this] {
    start({1, 2, 3});
    reserve(1, 7);
    killed_.insert(1);
    held_[1] = 0;
    return scenario({{2,
                      [this] {
                        reclaim();
                        reserve(2, 6);
                      }},
                     {3,
                      [this] {
                        reclaim();
                        reserve(3, 3);
                      }}},
                    {2, 3});
  });
}

TEST_F(LedgerSteps, ADeadSlotIsTakenAgainWhileItIsCounted) {
  explore({2, 1}, [this] {
    start({1, 2});
    reserve(1, 7);
    killed_.insert(1);
    held_[1] = 0;
    return scenario({{2, [this] { reclaim(); }},
                     {4,
                      [this] {
                        slots_[4] = *ledger_.take_slot(owner_of(4));
                        reserve(4, 3);
                      }},
                     {5, [this] { ledger_.recount(0); }}},
                    {2, 4, 5});
  });
}

TEST_F(LedgerSteps, AProcessEndsWhileItsThreadsStillRun) {
  explore({3, 1}, [this] {
    start({1, 2});
    reserve(1, 4);
    auto made = scenario({{1, [this] { end(1); }},
                          {1,
                           [this] {
                             held_[1] = 0;
                             ledger_.release(slots_[1], 0, kKind, 4);
                           }},
                          {2, [this] { reserve(2, 6); }}},
                         {1, 2});
    made.holds_end = [this] {
      file_->header.ledger_faults = 0;
      return holds_end();
    };
    return made;
  });
}

TEST_F(LedgerSteps, ChargesAboveTheLimitAreCountedOnceAndGivenBack) {
  explore({2, 1}, [this] {
    start({1, 2, 3});
    auto forced = [this](uint32_t pid) {
      ledger_.charge(slots_[pid], 0, kKind, 8);
      ledger_.release(slots_[pid], 0, kKind, 8);
    };
    return scenario(
        {{1, [=] { forced(1); }}, {2, [=] { forced(2); }}, {3, [this] { reserve(3, 2); }}},
        {1, 2, 3});
  });
}

TEST_F(LedgerSteps, TheSamePidAgainWhileItsOldSlotIsReclaimed) {
  explore({3, 1}, [this] {
    start({1, 2});
    reserve(1, 6);
    killed_.insert(1);
    held_[1] = 0;
    return scenario({{2, [this] { reclaim(); }},
                     {3,
                      [this] {
                        // Process 1 was started again with its old number: alive from here on.
                        killed_.erase(1);
                        slots_[1] = *ledger_.take_slot(owner_of(1));
                        reserve(1, 6);
                      }}},
                    {2});
  });
}

}  // namespace
}  // namespace allot::core
