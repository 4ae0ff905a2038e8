// The ledger seen by one thread: each promise of ledger.h, and random sequences of operations
// beside a model that keeps plain sums.
#include "core/ledger.h"
#include "core/counters.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <map>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "core/test_file.h"

namespace allot::core {
namespace {

bool everybody(void*, uint32_t, uint32_t, const AllotSlot&) {
  return true;
}
bool nobody(void*, uint32_t, uint32_t, const AllotSlot&) {
  return false;
}
bool in_set(void* context, uint32_t, uint32_t pid, const AllotSlot&) {
  return static_cast<std::set<uint32_t>*>(context)->count(pid) != 0;
}

TEST(Ledger, ChargesUpToTheLimitAndNotABytePast) {
  TestFile file(1000);
  Ledger ledger = file.ledger();
  SlotId slot = *ledger.take_slot(owner_of(7));
  EXPECT_TRUE(ledger.reserve(slot, 0, ALLOT_KIND_LINEAR, 600));
  EXPECT_FALSE(ledger.reserve(slot, 0, ALLOT_KIND_LINEAR, 401));
  EXPECT_EQ(ledger.used(0), 600u);
  EXPECT_TRUE(ledger.reserve(slot, 0, ALLOT_KIND_POOL, 400));
  EXPECT_FALSE(ledger.reserve(slot, 0, ALLOT_KIND_POOL, 1));
  EXPECT_TRUE(ledger.reserve(slot, 0, ALLOT_KIND_POOL, 0));
  EXPECT_EQ(ledger.charged(slot, 0, ALLOT_KIND_LINEAR), 600u);
  EXPECT_EQ(ledger.charged(slot, 0, ALLOT_KIND_POOL), 400u);
  EXPECT_EQ(file->gpus[0].refused, 0u) << "a caller may try again";
  ledger.count_refusal(slot, 0);
  EXPECT_EQ(file->gpus[0].refused, 1u);
  EXPECT_EQ(file->swaps[slot.index].counters.refused, 1u);
  ledger.release(slot, 0, ALLOT_KIND_LINEAR, 600);
  EXPECT_EQ(ledger.used(0), 400u);
  EXPECT_EQ(file->gpus[0].peak_bytes, 1000u);
  EXPECT_EQ(ledger.recount(0), 400u);
  EXPECT_EQ(ledger.used(0), 400u);
}

TEST(Ledger, NumbersNearTheEndOfTheRangeDoNotWrap) {
  TestFile file(ALLOT_UNLIMITED);
  Ledger ledger = file.ledger();
  SlotId slot = *ledger.take_slot(owner_of(7));
  EXPECT_TRUE(ledger.reserve(slot, 0, ALLOT_KIND_LINEAR, UINT64_MAX - 10));
  EXPECT_FALSE(ledger.reserve(slot, 0, ALLOT_KIND_LINEAR, 11));
  EXPECT_TRUE(ledger.reserve(slot, 0, ALLOT_KIND_LINEAR, 10));
  EXPECT_FALSE(ledger.reserve(slot, 0, ALLOT_KIND_LINEAR, UINT64_MAX));
  ledger.charge(slot, 0, ALLOT_KIND_DRIVER, 5);
  EXPECT_EQ(ledger.used(0), UINT64_MAX);
  EXPECT_EQ(ledger.recount(0), UINT64_MAX);
  ledger.release(slot, 0, ALLOT_KIND_LINEAR, UINT64_MAX);
  ledger.recount(0);
  EXPECT_EQ(ledger.used(0), 5u);
}

TEST(Ledger, ChargeGoesAboveTheLimitAndThenNothingFits) {
  TestFile file(1000);
  Ledger ledger = file.ledger();
  SlotId slot = *ledger.take_slot(owner_of(7));
  ledger.charge(slot, 0, ALLOT_KIND_DRIVER, 1500);
  EXPECT_EQ(ledger.used(0), 1500u);
  EXPECT_FALSE(ledger.reserve(slot, 0, ALLOT_KIND_LINEAR, 1));
  Ledger::View view = ledger.view(0, 5000, 4000);
  EXPECT_EQ(view.total_bytes, 1000u);
  EXPECT_EQ(view.free_bytes, 0u);
  EXPECT_EQ(view.used_bytes, 1500u);
  ledger.release(slot, 0, ALLOT_KIND_DRIVER, 600);
  EXPECT_EQ(ledger.view(0, 5000, 4000).free_bytes, 100u);
  EXPECT_EQ(ledger.view(0, 5000, 40).free_bytes, 40u);
  EXPECT_EQ(ledger.view(0, 500, 400).total_bytes, 500u);
}

TEST(Ledger, ReleaseOfMoreThanIsHeldGivesBackWhatIsHeldAndIsCounted) {
  TestFile file(1000);
  Ledger ledger = file.ledger();
  SlotId slot = *ledger.take_slot(owner_of(7));
  ASSERT_TRUE(ledger.reserve(slot, 0, ALLOT_KIND_LINEAR, 100));
  ASSERT_TRUE(ledger.reserve(slot, 0, ALLOT_KIND_VMM, 100));
  ledger.release(slot, 0, ALLOT_KIND_LINEAR, 150);
  EXPECT_EQ(ledger.used(0), 100u);
  EXPECT_EQ(ledger.charged(slot, 0, ALLOT_KIND_VMM), 100u);
  EXPECT_EQ(file->header.ledger_faults, 1u);
  ledger.release(slot, 0, ALLOT_KIND_LINEAR, 1);
  EXPECT_EQ(ledger.used(0), 100u);
  EXPECT_EQ(file->header.ledger_faults, 2u);
}

TEST(Ledger, AChangedLimitHoldsAtOnceAndLosesNothing) {
  TestFile file(1000);
  Ledger ledger = file.ledger();
  SlotId slot = *ledger.take_slot(owner_of(7));
  ASSERT_TRUE(ledger.reserve(slot, 0, ALLOT_KIND_LINEAR, 800));
  ledger.set_limit(0, 500);
  EXPECT_EQ(file->header.config_sequence, 1u);
  EXPECT_FALSE(ledger.reserve(slot, 0, ALLOT_KIND_LINEAR, 1));
  EXPECT_EQ(ledger.used(0), 800u);
  ledger.release(slot, 0, ALLOT_KIND_LINEAR, 301);
  EXPECT_TRUE(ledger.reserve(slot, 0, ALLOT_KIND_LINEAR, 1));
  EXPECT_FALSE(ledger.reserve(slot, 0, ALLOT_KIND_LINEAR, 1));
  ledger.set_limit(0, ALLOT_UNLIMITED);
  EXPECT_TRUE(ledger.reserve(slot, 0, ALLOT_KIND_LINEAR, 1 << 20));
}

TEST(Ledger, GpusHaveAccountsOfTheirOwn) {
  TestFile file(1000, 3);
  Ledger ledger = file.ledger();
  SlotId slot = *ledger.take_slot(owner_of(7));
  EXPECT_TRUE(ledger.reserve(slot, 0, ALLOT_KIND_LINEAR, 1000));
  EXPECT_TRUE(ledger.reserve(slot, 2, ALLOT_KIND_LINEAR, 1000));
  EXPECT_FALSE(ledger.reserve(slot, 2, ALLOT_KIND_LINEAR, 1));
  EXPECT_EQ(ledger.used(1), 0u);
}

TEST(Ledger, IndexesOutOfRangeAreRefused) {
  TestFile file(1000);
  Ledger ledger = file.ledger();
  SlotId slot = *ledger.take_slot(owner_of(7));
  SlotId outside{ALLOT_MAX_SLOTS, 1};
  EXPECT_FALSE(ledger.reserve(slot, ALLOT_MAX_GPUS, ALLOT_KIND_LINEAR, 1));
  EXPECT_FALSE(ledger.reserve(slot, 0, ALLOT_KINDS, 1));
  EXPECT_FALSE(ledger.reserve(outside, 0, ALLOT_KIND_LINEAR, 1));
  ledger.charge(outside, 0, ALLOT_KIND_LINEAR, 1);
  ledger.release(outside, 0, ALLOT_KIND_LINEAR, 1);
  ledger.end_slot(outside);
  EXPECT_EQ(ledger.used(ALLOT_MAX_GPUS), 0u);
  EXPECT_EQ(ledger.recount(ALLOT_MAX_GPUS), 0u);
  ledger.set_limit(ALLOT_MAX_GPUS, 1);
  EXPECT_EQ(ledger.used(0), 0u);
}

TEST(Ledger, ATurnThatADeadProcessLeftIsWaitedOutOnce) {
  TestFile file(1000);
  Ledger ledger = file.ledger();
  SlotId slot = *ledger.take_slot(owner_of(7));
  file->gpus[0].recount_turn = 1;
  EXPECT_TRUE(ledger.reserve(slot, 0, ALLOT_KIND_LINEAR, 1));
  EXPECT_EQ(file->gpus[0].recount_turn, 0u);
}

TEST(Slots, AProcessThatEndsGivesItsChargesBack) {
  TestFile file(1000);
  Ledger ledger = file.ledger();
  SlotId a = *ledger.take_slot(owner_of(7));
  SlotId b = *ledger.take_slot(owner_of(8));
  EXPECT_NE(a.index, b.index);
  ASSERT_TRUE(ledger.reserve(a, 0, ALLOT_KIND_LINEAR, 600));
  ASSERT_TRUE(ledger.reserve(b, 0, ALLOT_KIND_LINEAR, 300));
  ledger.end_slot(a);
  EXPECT_EQ(ledger.used(0), 300u);
  EXPECT_FALSE(ledger.live(a));
  ledger.end_slot(a);
  EXPECT_EQ(ledger.used(0), 300u);
  EXPECT_FALSE(ledger.reserve(a, 0, ALLOT_KIND_LINEAR, 1));
  ledger.release(a, 0, ALLOT_KIND_LINEAR, 600);  // a thread that comes late
  EXPECT_EQ(ledger.used(0), 300u);
}

TEST(Slots, AnEndedSlotIsUsedAgainOnlyWhenItsProcessIsGone) {
  TestFile file(1000);
  Ledger ledger = file.ledger();
  SlotId a = *ledger.take_slot(owner_of(7));
  ledger.end_slot(a);
  EXPECT_NE(ledger.take_slot(owner_of(8))->index, a.index);
  EXPECT_EQ(ledger.reclaim(everybody, nullptr), 0u);
  EXPECT_NE(ledger.take_slot(owner_of(9))->index, a.index);
  std::set<uint32_t> living{8, 9};
  EXPECT_EQ(ledger.reclaim(in_set, &living), 1u);
  SlotId again = *ledger.take_slot(owner_of(10));
  EXPECT_EQ(again.index, a.index);
  EXPECT_NE(again.generation, a.generation);
  EXPECT_FALSE(ledger.live(a));
  EXPECT_TRUE(ledger.live(again));
}

TEST(Slots, ReclaimEndsOnlyTheDead) {
  TestFile file(10000, 2);
  Ledger ledger = file.ledger();
  std::vector<SlotId> slots;
  for (uint32_t pid = 1; pid <= 200; ++pid) {
    slots.push_back(*ledger.take_slot(owner_of(pid)));
    ASSERT_TRUE(ledger.reserve(slots.back(), 0, ALLOT_KIND_LINEAR, 10));
    ASSERT_TRUE(ledger.reserve(slots.back(), 1, ALLOT_KIND_LINEAR, 1));
  }
  std::set<uint32_t> living{3, 50, 199};
  EXPECT_EQ(ledger.used_by_living(0, in_set, &living), 30u);
  EXPECT_EQ(ledger.used_by_living(0, nullptr, nullptr), 2000u);
  EXPECT_EQ(ledger.reclaim(in_set, &living), 197u);
  EXPECT_EQ(ledger.used(0), 30u);
  EXPECT_EQ(ledger.used(1), 3u);
  EXPECT_TRUE(ledger.live(slots[2]));
  EXPECT_FALSE(ledger.live(slots[0]));
  EXPECT_EQ(ledger.reclaim(in_set, &living), 0u);
}

TEST(Slots, TheSamePidAgainEndsWhatItsEarlierImageHeld) {
  TestFile file(1000);
  Ledger ledger = file.ledger();
  SlotId before = *ledger.take_slot(owner_of(7));
  ASSERT_TRUE(ledger.reserve(before, 0, ALLOT_KIND_LINEAR, 600));
  SlotId after = *ledger.take_slot(owner_of(7));
  EXPECT_EQ(ledger.used(0), 0u);
  EXPECT_FALSE(ledger.live(before));
  EXPECT_TRUE(ledger.live(after));
  SlotOwner elsewhere = owner_of(7);
  elsewhere.pid_namespace = kNamespace + 1;  // another process that happens to have this number
  ASSERT_TRUE(ledger.take_slot(elsewhere));
  EXPECT_TRUE(ledger.live(after));
}

TEST(Slots, ASecondLibraryOfTheProcessFindsItsSlot) {
  TestFile file;
  Ledger ledger = file.ledger();
  EXPECT_FALSE(ledger.find_slot(7, 1007, kNamespace));
  SlotId slot = *ledger.take_slot(owner_of(7));
  auto found = ledger.find_slot(7, 1007, kNamespace);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->index, slot.index);
  EXPECT_EQ(found->generation, slot.generation);
  EXPECT_FALSE(ledger.find_slot(7, 1008, kNamespace));
  EXPECT_FALSE(ledger.find_slot(7, 1007, kNamespace + 1));
  ledger.end_slot(slot);
  EXPECT_FALSE(ledger.find_slot(7, 1007, kNamespace));
}

TEST(Slots, AFullTableIsAnErrorAndReclaimMakesRoom) {
  TestFile file;
  Ledger ledger = file.ledger();
  for (uint32_t pid = 1; pid <= ALLOT_MAX_SLOTS; ++pid)
    ASSERT_TRUE(ledger.take_slot(owner_of(pid)));
  auto full = ledger.take_slot(owner_of(ALLOT_MAX_SLOTS + 1));
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, Errc::kFull);
  EXPECT_EQ(ledger.reclaim(nobody, nullptr), ALLOT_MAX_SLOTS);
  EXPECT_TRUE(ledger.take_slot(owner_of(ALLOT_MAX_SLOTS + 1)));
}

TEST(Slots, AKillBetweenTakingAndLiveLeavesNothing) {
  TestFile file;
  Ledger ledger = file.ledger();
  file->slot_words[0] = ALLOT_SLOT_WORD(ALLOT_SLOT_TAKING, 5, 77);
  // The start time of an earlier process must not count against the taker.
  file->slots[0].start_time = 12345;
  file->header.slots_high = 1;
  auto start_unknown = [](void*, uint32_t, uint32_t pid, const AllotSlot& slot) {
    EXPECT_EQ(pid, 77u);
    EXPECT_EQ(slot.start_time, 0u);
    EXPECT_EQ(slot.pid_namespace, kNamespace);
    return true;
  };
  ledger.reclaim(start_unknown, nullptr);
  EXPECT_EQ(ALLOT_SLOT_STATE(file->slot_words[0]), ALLOT_SLOT_TAKING);
  ledger.reclaim(nobody, nullptr);
  EXPECT_EQ(ALLOT_SLOT_STATE(file->slot_words[0]), ALLOT_SLOT_FREE);
  file->slot_words[0] = ALLOT_SLOT_WORD(ALLOT_SLOT_TAKING, 5, 0);  // a taker that nobody can check
  ledger.reclaim(nobody, nullptr);
  EXPECT_EQ(ALLOT_SLOT_STATE(file->slot_words[0]), ALLOT_SLOT_TAKING);
}

TEST(Slots, AKillBetweenEndingAndRecountIsMended) {
  TestFile file(1000);
  Ledger ledger = file.ledger();
  SlotId slot = *ledger.take_slot(owner_of(7));
  ASSERT_TRUE(ledger.reserve(slot, 0, ALLOT_KIND_LINEAR, 600));
  file->slot_words[slot.index] = ALLOT_SLOT_WORD(ALLOT_SLOT_ENDING, slot.generation, 7);
  EXPECT_EQ(ledger.used(0), 600u);
  EXPECT_EQ(ledger.reclaim(nobody, nullptr), 1u);
  EXPECT_EQ(ledger.used(0), 0u);
  EXPECT_EQ(ALLOT_SLOT_STATE(file->slot_words[slot.index]), ALLOT_SLOT_FREE);
}

TEST(Slots, PrepareThatFailsLeavesTheSlotFree) {
  TestFile file;
  Ledger ledger = file.ledger();
  uint32_t asked = 99;
  auto no_space = [](void* context, uint32_t index) {
    *static_cast<uint32_t*>(context) = index;
    return 28;
  };
  auto slot = ledger.take_slot(owner_of(7), no_space, &asked);
  ASSERT_FALSE(slot);
  EXPECT_EQ(slot.error().code, Errc::kFull);
  EXPECT_EQ(slot.error().os_errno, 28);
  EXPECT_EQ(asked, 0u);
  EXPECT_EQ(ALLOT_SLOT_STATE(file->slot_words[0]), ALLOT_SLOT_FREE);
}

TEST(Slots, CommandIsCutAndClosed) {
  TestFile file;
  Ledger ledger = file.ledger();
  SlotOwner owner = owner_of(7);
  const std::string longer(100, 'x');
  owner.command = longer.c_str();
  SlotId slot = *ledger.take_slot(owner);
  EXPECT_STREQ(file->slots[slot.index].command, std::string(31, 'x').c_str());
}

// Random operations beside a model of plain sums, one GPU pair, up to eight processes.
class RandomOperations {
 public:
  explicit RandomOperations(uint64_t seed) : random_(seed) { limits_[0] = limits_[1] = 1000; }

  void run(int operations) {
    for (int i = 0; i < operations && !testing::Test::HasFailure(); ++i) one();
  }

 private:
  struct Process {
    SlotId slot;
    uint64_t charges[2][ALLOT_KINDS] = {};
  };

  uint64_t pick(uint64_t below) { return random_() % below; }
  uint64_t sum(uint32_t gpu) {
    uint64_t total = 0;
    for (auto& [pid, process] : processes_) {
      for (uint64_t charge : process.charges[gpu]) total += charge;
    }
    return total;
  }

  void one() {
    const uint32_t pid = 1 + static_cast<uint32_t>(pick(8));
    auto it = processes_.find(pid);
    if (it == processes_.end() || pick(100) < 2) return start(pid);
    const uint32_t gpu = static_cast<uint32_t>(pick(2));
    const AllotKind kind = static_cast<AllotKind>(pick(ALLOT_KINDS));
    uint64_t& held = it->second.charges[gpu][kind];
    const uint64_t bytes = pick(300);
    const uint64_t action = pick(100);
    if (action < 45) {
      const bool fits = bytes == 0 || sum(gpu) + bytes <= limits_[gpu];
      EXPECT_EQ(ledger_.reserve(it->second.slot, gpu, kind, bytes), fits);
      if (fits) held += bytes;
    } else if (action < 85) {
      const uint64_t back = std::min(bytes, held);
      ledger_.release(it->second.slot, gpu, kind, back);
      held -= back;
    } else if (action < 88) {
      ledger_.charge(it->second.slot, gpu, kind, bytes);
      held += bytes;
    } else if (action < 91) {
      limits_[gpu] = pick(2000);
      ledger_.set_limit(gpu, limits_[gpu]);
    } else if (action < 94) {
      EXPECT_EQ(ledger_.recount(gpu), sum(gpu));
    } else if (action < 97) {
      ledger_.end_slot(it->second.slot);
      processes_.erase(it);
    } else {
      processes_.erase(it);  // killed: nobody tells the ledger
      std::set<uint32_t> living;
      for (auto& [other, process] : processes_) living.insert(other);
      ledger_.reclaim(in_set, &living);
    }
    check();
  }

  void start(uint32_t pid) {
    auto slot = ledger_.take_slot(owner_of(pid));
    ASSERT_TRUE(slot);
    processes_[pid] = Process{*slot};
    check();
  }

  void check() {
    for (uint32_t gpu = 0; gpu < 2; ++gpu) {
      ASSERT_EQ(ledger_.used(gpu), sum(gpu));
      for (auto& [pid, process] : processes_) {
        for (uint32_t kind = 0; kind < ALLOT_KINDS; ++kind) {
          ASSERT_EQ(ledger_.charged(process.slot, gpu, static_cast<AllotKind>(kind)),
                    process.charges[gpu][kind]);
        }
      }
    }
  }

  std::mt19937_64 random_;
  TestFile file_{1000, 2};
  Ledger ledger_ = file_.ledger();
  std::map<uint32_t, Process> processes_;
  uint64_t limits_[2];
};

TEST(LedgerModel, RandomOperationsAgreeWithPlainSums) {
  for (uint64_t seed = 1; seed <= 200 && !HasFailure(); ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    RandomOperations(seed).run(500);
  }
}

// Threads of several processes race to a cap, with recounts and reclaims of others under way.
TEST(LedgerThreads, NeverPastTheCapAndUsableToTheLastGranule) {
  constexpr uint64_t kGranule = 2, kLimit = 64 * kGranule;
  constexpr int kThreads = 8;
  TestFile file(kLimit);
  Ledger ledger = file.ledger();
  std::vector<SlotId> slots;
  for (uint32_t pid = 1; pid <= 4; ++pid) slots.push_back(*ledger.take_slot(owner_of(pid)));
  std::atomic<uint64_t> held{0};
  std::atomic<bool> over{false};
  std::atomic<bool> stop{false};
  std::thread recounter([&] {
    while (!stop) {
      ledger.recount(0);
      if (ledger.used(0) > kLimit + kThreads * kGranule) over = true;
      std::this_thread::yield();
    }
  });
  for (int round = 0; round < 200; ++round) {
    std::vector<std::thread> threads;
    std::atomic<uint64_t> granted{0};
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        const SlotId slot = slots[static_cast<size_t>(t) % slots.size()];
        for (int i = 0; i < 40; ++i) {
          if (!ledger.reserve(slot, 0, ALLOT_KIND_LINEAR, kGranule)) continue;
          if (held.fetch_add(kGranule) + kGranule > kLimit) over = true;
          if (i % 3 == 0) {
            held.fetch_sub(kGranule);
            ledger.release(slot, 0, ALLOT_KIND_LINEAR, kGranule);
          } else {
            granted.fetch_add(kGranule);
          }
        }
        while (ledger.reserve(slot, 0, ALLOT_KIND_LINEAR, kGranule)) {
          if (held.fetch_add(kGranule) + kGranule > kLimit) over = true;
          granted.fetch_add(kGranule);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    while (ledger.reserve(slots[0], 0, ALLOT_KIND_LINEAR, kGranule)) granted.fetch_add(kGranule);
    ASSERT_FALSE(over) << "round " << round;
    ASSERT_EQ(granted, kLimit) << "round " << round;
    ASSERT_EQ(ledger.used(0), kLimit);
    for (SlotId slot : slots) {
      ledger.release(slot, 0, ALLOT_KIND_LINEAR, ledger.charged(slot, 0, ALLOT_KIND_LINEAR));
    }
    held = 0;
    ASSERT_EQ(ledger.used(0), 0u);
  }
  stop = true;
  recounter.join();
  EXPECT_EQ(file->header.ledger_faults, 0u);
}

// A recount of many slots is overtaken again and again by those who allocate without pause; they
// must let it through, and it must leave nothing behind.
TEST(LedgerThreads, ARecountOfManySlotsGetsThrough) {
  TestFile file(1 << 20);
  Ledger ledger = file.ledger();
  for (uint32_t pid = 1; pid <= 2000; ++pid) {
    SlotId slot = *ledger.take_slot(owner_of(pid));
    ASSERT_TRUE(ledger.reserve(slot, 0, ALLOT_KIND_LINEAR, 1));
  }
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 3; ++t) {
    const SlotId slot = *ledger.take_slot(owner_of(5000 + t));
    threads.emplace_back([&, slot] {
      while (!stop) {
        ledger.reserve(slot, 0, ALLOT_KIND_LINEAR, 16);
        ledger.release(slot, 0, ALLOT_KIND_LINEAR, 16);
      }
    });
  }
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 100; ++i) {
    const uint64_t sum = ledger.recount(0);
    EXPECT_GE(sum, 2000u);
    EXPECT_LE(sum, 2000u + 3 * 16);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ledger.used(0), 2000u);
  EXPECT_EQ(file->gpus[0].recount_turn, 0u);
}

// ---- counters ------------------------------------------------------------------------------

TEST(Counters, OfAProcessStayUntilAnotherProcessTakesTheSlot) {
  TestFile file(1000);
  Ledger ledger = file.ledger();
  const SlotId first = *ledger.take_slot(owner_of(7));
  AllotCounters* its = counters_of(*file.get(), first.index, file->slot_words[first.index]);
  ASSERT_NE(its, nullptr);
  count(its->time_used_ns, 500);
  ledger.count_refusal(first, 0);
  std::set<uint32_t> living;
  EXPECT_EQ(ledger.reclaim(in_set, &living), 1u);
  EXPECT_EQ(its->time_used_ns, 500u) << "of a process that has ended";
  EXPECT_EQ(file->gpus[0].refused, 1u);
  const SlotId second = *ledger.take_slot(owner_of(8));
  ASSERT_EQ(second.index, first.index);
  EXPECT_EQ(its->time_used_ns, 0u);
  EXPECT_EQ(its->refused, 0u);
  EXPECT_EQ(counters_of(*file.get(), second.index, file->slot_words[second.index]), its);
}

// exec: the slot of the earlier image is retired by the new one, or by somebody else before.
TEST(Counters, AProcessThatCallsExecContinuesItsOwn) {
  for (const bool reclaimed : {false, true}) {
    TestFile file(1000);
    Ledger ledger = file.ledger();
    const SlotId other = *ledger.take_slot(owner_of(6));
    const SlotId first = *ledger.take_slot(owner_of(7));
    count(file->swaps[first.index].counters.time_used_ns, 500);
    count(file->swaps[first.index].counters.frozen_ns, 300);
    ledger.count_refusal(first, 0);
    std::set<uint32_t> living = {6};
    if (reclaimed) ledger.reclaim(in_set, &living);
    ledger.end_slot(other);  // so that its place may be another
    const SlotId again = *ledger.take_slot(owner_of(7));
    const AllotCounters& its = file->swaps[again.index].counters;
    EXPECT_EQ(its.time_used_ns, 500u);
    EXPECT_EQ(its.frozen_ns, 300u);
    EXPECT_EQ(its.refused, 1u);
    // Another process with the same number is another process.
    living = {};
    ledger.reclaim(in_set, &living);
    SlotOwner stranger = owner_of(7);
    stranger.start_time += 1;
    const SlotId last = *ledger.take_slot(stranger);
    EXPECT_EQ(file->swaps[last.index].counters.time_used_ns, 0u);
  }
}

// Region 1.4 takes a slot without a word of the counters: what is there is another process's.
TEST(Counters, OfAnEarlierProcessAreNotTakenForThoseOfALibraryThatKeepsNone) {
  TestFile file(1000);
  Ledger ledger = file.ledger();
  const SlotId first = *ledger.take_slot(owner_of(7));
  count(file->swaps[first.index].counters.refused, 5);
  const uint64_t later = ALLOT_SLOT_WORD(ALLOT_SLOT_LIVE, first.generation + 1, 7);
  file->slot_words[first.index] = later;
  EXPECT_EQ(counters_of(*file.get(), first.index, later), nullptr);
  ledger.count_refusal({first.index, first.generation + 1}, 0);
  EXPECT_EQ(file->swaps[first.index].counters.refused, 5u);
}

TEST(Counters, AClockInOneWordRunsStopsAndNeverGoesBack) {
  uint64_t clock = 0;
  EXPECT_EQ(clock_ns(clock, 1000), 0u);
  turn_clock(clock, true, 1000);
  turn_clock(clock, true, 1500);  // a second freeze changes nothing
  EXPECT_EQ(clock_ns(clock, 1700), 700u);
  turn_clock(clock, false, 2000);
  turn_clock(clock, false, 2500);
  EXPECT_EQ(clock_ns(clock, 9000), 1000u);
  turn_clock(clock, true, 10000);
  EXPECT_EQ(clock_ns(clock, 10000), 1000u);
  EXPECT_EQ(clock_ns(clock, 10100), 1100u);
  turn_clock(clock, false, 10200);
  EXPECT_EQ(clock_ns(clock, 10200), 1200u);
}

}  // namespace
}  // namespace allot::core
