// Very many processes in one slice: one after the other, so that every slot is used again, and at
// once. How many is ALLOT_TEST_PROCESSES (a thousand and some hundred without it: a test has to
// end).
#include <cstdlib>
#include <memory>
#include <vector>

#include "shm/test_region.h"

namespace allot::shm {
namespace {

constexpr uint8_t kUuid[16] = {7};
constexpr uint64_t kLimit = uint64_t{1} << 40;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint32_t kSlowdown = 5;  // of a fork
#else
constexpr uint32_t kSlowdown = 1;
#endif

uint32_t processes(uint32_t otherwise) {
  const char* text = std::getenv("ALLOT_TEST_PROCESSES");
  if (text == nullptr) return otherwise / kSlowdown;
  return static_cast<uint32_t>(std::strtoul(text, nullptr, 10));
}

class Crowd : public RegionTest {
 protected:
  void SetUp() override {
    RegionTest::SetUp();
    auto made = create_slice(folder_.c_str(), mine("t"));
    ASSERT_TRUE(made);
    slice_ = *made;
    ASSERT_TRUE(find_or_add_gpu(slice_, kUuid, kLimit, kLimit));
  }
  // In a child: joins and holds a granule. 0 = well.
  int join_and_hold() {
    auto joined = join_slice(path("t").c_str());
    if (!joined) return 1;
    core::Ledger ledger(joined->slice.file);
    return ledger.reserve(joined->slot, 0, ALLOT_KIND_LINEAR, 4096) ? 0 : 2;
  }
  uint32_t slots_in_use() const {
    uint32_t count = 0;
    for (const uint64_t word : slice_.file->slot_words) {
      count += ALLOT_SLOT_STATE(word) != ALLOT_SLOT_FREE ? 1 : 0;
    }
    return count;
  }
  Slice slice_;
};

TEST_F(Crowd, OneAfterTheOtherTheyLeaveNoSlotBehind) {
  const uint32_t count = processes(1000);
  constexpr uint32_t kAtOnce = 6;
  uint32_t running = 0;
  for (uint32_t i = 0; i < count; ++i) {
    if (running == kAtOnce) {
      int status = 0;
      ASSERT_GT(wait(&status), 0);
      ASSERT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : 0, 0);
      --running;
    }
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) {
      const int result = join_and_hold();
      if (result == 0 && i % 2 == 0) kill(getpid(), SIGKILL);
      _exit(result);
    }
    ++running;
  }
  while (wait(nullptr) > 0) {
  }
  reclaim_dead(slice_);
  EXPECT_EQ(slots_in_use(), 0u);
  EXPECT_LE(slice_.file->header.slots_high, 4 * kAtOnce) << "slots of the dead are taken again";
  EXPECT_EQ(core::Ledger(slice_.file).used(0), 0u);
}

TEST_F(Crowd, AtOnceEachHasASlotOfItsOwn) {
  const uint32_t count = processes(200);
  std::vector<std::unique_ptr<Child>> children;
  for (uint32_t i = 0; i < count; ++i) {
    children.push_back(std::make_unique<Child>([&] {
      if (join_and_hold() != 0) _exit(1);
    }));
    ASSERT_TRUE(children.back()->ready()) << i;
  }
  EXPECT_EQ(slots_in_use(), count);
  EXPECT_EQ(core::Ledger(slice_.file).used(0), uint64_t{count} * 4096);
  EXPECT_EQ(core::Ledger(slice_.file).recount(0), uint64_t{count} * 4096);
  children.clear();
  EXPECT_EQ(reclaim_dead(slice_), count);
  EXPECT_EQ(core::Ledger(slice_.file).used(0), 0u);
}

}  // namespace
}  // namespace allot::shm
