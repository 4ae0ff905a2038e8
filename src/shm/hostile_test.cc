// Random damage to a slice's file: whoever reads it afterwards neither crashes nor hangs nor counts
// wrong. The failure names the seed. A longer hunt: fuzz/region_fuzz.cc.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <random>
#include <string>

#include "shm/test_hostile.h"
#include "shm/test_region.h"
#include "sys/process.h"

namespace allot::shm {
namespace {

class HostileTest : public RegionTest {
 protected:
  // A slice with GPUs, some slots in use and some exports, mapped for spoiling.
  AllotSliceFile* fresh() {
    std::filesystem::remove(path("t"));
    auto slice = create_slice(folder_.c_str(), orphan("t"));
    if (!slice) return nullptr;
    AllotSliceFile* file = slice->file;
    file->header.gpu_count = 2;
    const uint64_t home = *sys::pid_namespace(sys::Root{}, 0);
    for (uint32_t i = 0; i < 20; ++i) {
      file->slot_words[i] = ALLOT_SLOT_WORD(i % 4, i, i % 3 == 0 ? 1 : 1000 + i);
      file->slots[i].pid_namespace = home;
      file->slots[i].start_time = i % 5;
      file->slots[i].execing = i % 2;
      file->slots[i].charges[i % 2][i % ALLOT_KINDS] = 1000 * i;
      file->exports[i] = {i + 1, i, i};
    }
    file->header.slots_high = 20;
    return file;
  }

  // One random change, rather in places where it matters.
  static void spoil(AllotSliceFile* file, std::mt19937_64& random) {
    uint8_t* bytes = reinterpret_cast<uint8_t*>(file);
    size_t begin = 0, size = 192;
    switch (random() % 5) {
      case 0:
        break;
      case 1:
        begin = offsetof(AllotSliceFile, gpus);
        size = sizeof(file->gpus);
        break;
      case 2:
        begin = offsetof(AllotSliceFile, slot_words);
        size = random() % 4 == 0 ? sizeof(file->slot_words) : 32 * sizeof(uint64_t);
        break;
      case 3:
        begin = offsetof(AllotSliceFile, slots);
        size = 32 * sizeof(AllotSlot);
        break;
      default:
        begin = offsetof(AllotSliceFile, exports);
        size = sizeof(file->exports);
    }
    const size_t at = begin + random() % size;
    switch (random() % 4) {
      case 0:
        bytes[at] = static_cast<uint8_t>(random());
        break;
      case 1:
        bytes[at] = 0xff;
        break;
      case 2:
        bytes[at] ^= static_cast<uint8_t>(1u << (random() % 8));
        break;
      default:
        for (size_t i = at; i < at + 16 && i < begin + size; ++i)
          bytes[i] = static_cast<uint8_t>(random());
    }
  }
};

TEST_F(HostileTest, RandomDamageDoesNoHarm) {
  const char* more = std::getenv("ALLOT_TEST_DAMAGE");
  const uint64_t rounds = more != nullptr ? std::strtoull(more, nullptr, 10) : 400;
  for (uint64_t seed = 1; seed <= rounds; ++seed) {
    std::mt19937_64 random(seed);
    AllotSliceFile* file = fresh();
    ASSERT_NE(file, nullptr);
    for (uint64_t i = 1 + random() % 12; i > 0; --i) spoil(file, random);
    munmap(file, sizeof(AllotSliceFile));
    // In a child, so that a crash says which seed it was.
    const auto begin = std::chrono::steady_clock::now();
    const int status = in_child(0, [&] {
      alarm(30);
      handle_hostile(folder_.c_str(), path("t").c_str(), "t");
      return 0;
    });
    ASSERT_EQ(status, 0) << "seed " << seed;
    ASSERT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20))
        << "seed " << seed;
  }
}

TEST_F(HostileTest, AFileOfNoiseDoesNoHarm) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    std::mt19937_64 random(seed);
    AllotSliceFile* file = fresh();
    ASSERT_NE(file, nullptr);
    // A header that passes, and noise in all the rest.
    uint64_t* words = reinterpret_cast<uint64_t*>(file->gpus);
    const size_t count = (sizeof(AllotSliceFile) - offsetof(AllotSliceFile, gpus)) / 8;
    for (size_t i = 0; i < count; ++i) words[i] = random();
    file->header.gpu_count = ALLOT_MAX_GPUS;
    file->header.slots_high = ALLOT_MAX_SLOTS;
    munmap(file, sizeof(AllotSliceFile));
    ASSERT_EQ(in_child(0,
                       [&] {
                         alarm(60);
                         handle_hostile(folder_.c_str(), path("t").c_str(), "t");
                         return 0;
                       }),
              0)
        << "seed " << seed;
  }
}

}  // namespace
}  // namespace allot::shm
