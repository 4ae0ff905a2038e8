// Which files of a folder count as neighbours, whatever else lies there, and what looking costs.
#include "shim/time/neighbours.h"

#include <fcntl.h>

#include <fstream>
#include <string>
#include <vector>

#include "shm/test_region.h"
#include "sys/clock.h"

namespace allot::shim {
namespace {

using Uuid = uint8_t[16];
constexpr uint32_t kWeighed = core::kMaxSlicesOnGpu;

class Neighbours : public shm::RegionTest {
 protected:
  void SetUp() override {
    shm::RegionTest::SetUp();
    own_ = &make("own");
    found_.resize(kWeighed);
    neighbours_in(path("own").c_str());
  }
  void TearDown() override {
    for (shm::Slice& slice : slices_) shm::unmap(slice);
    shm::RegionTest::TearDown();
  }

  // A slice on the GPUs 0 to `gpus` - 1, launched by this process, with no client.
  AllotSliceFile& make(const std::string& name, uint32_t gpus = 1, uint8_t first = 0) {
    auto slice = shm::create_slice(folder_.c_str(), mine(name.c_str()));
    if (!slice) throw std::runtime_error("no slice " + name);
    slices_.push_back(*slice);
    for (uint32_t i = 0; i < gpus; ++i) {
      Uuid uuid = {};
      gpu(static_cast<uint8_t>(first + i), uuid);
      EXPECT_TRUE(shm::find_or_add_gpu(*slice, uuid, ALLOT_UNLIMITED, 1 << 30));
    }
    slice->file->header.created_unix_ns = 1'000'000 * slices_.size();  // each younger than the last
    return *slice->file;
  }
  static void gpu(uint8_t number, Uuid& out) {
    for (uint8_t& byte : out) byte = static_cast<uint8_t>(number + 1);
  }
  // Its process works there, as its agent said a moment ago.
  static void work(AllotSliceFile& file, uint32_t gpu = 0, uint32_t flags = kAtWork) {
    AllotGpuClient& client = file.clients[gpu];
    client.owner = ALLOT_SLOT_WORD(ALLOT_SLOT_LIVE, 1, getpid());
    client.gpu = gpu;
    client.flags = flags;
    client.heartbeat_ns = sys::monotonic_ns();
  }
  void junk(const std::string& name, size_t bytes) {
    std::ofstream(path(name)) << std::string(bytes, 'j');
  }

  uint32_t look(uint8_t on = 0) {
    Uuid uuid = {};
    gpu(on, uuid);
    return look_at_neighbours(*own_, uuid, sys::monotonic_ns(), found_);
  }
  // Looks until `count` are found, for 10 s at most.
  bool comes_to(uint32_t count, uint8_t on = 0) {
    return shm::eventually([&] { return look(on) == count; });
  }

  static constexpr uint32_t kAtWork = ALLOT_CLIENT_ACTIVE | ALLOT_CLIENT_AWAKE | ALLOT_CLIENT_OPEN;
  std::vector<shm::Slice> slices_;
  std::vector<Neighbour> found_;
  AllotSliceFile* own_ = nullptr;
};

TEST_F(Neighbours, NamesThatCannotMatterUseNoPlaces) {
  for (uint32_t i = 0; i < 2 * kWeighed; ++i) {
    const std::string n = std::to_string(i);
    switch (i % 7) {
      case 0:
        junk("a-empty" + n, 0);
        break;
      case 1:
        junk("a-junk" + n, 300'000);
        break;
      case 2:
        work(make("a-foreign" + n, 1, 5));
        break;
      case 3:
        work(make("a-idle" + n), 0, ALLOT_CLIENT_OPEN);
        break;
      case 4: {
        AllotSliceFile& stale = make("a-boot" + n);
        work(stale);
        stale.header.boot_id[3] ^= 1;
        break;
      }
      case 5: {
        AllotSliceFile& silent = make("a-silent" + n);
        work(silent);
        silent.clients[0].heartbeat_ns -= 2 * ALLOT_CLIENT_STALE_NS;
        break;
      }
      default:
        work(make("a-version" + n));
        slices_.back().file->header.major = ALLOT_REGION_MAJOR + 1;
    }
  }
  AllotSliceFile& busy = make("z-busy");
  busy.gpus[0].share_permille = 800;
  work(busy);
  ASSERT_TRUE(comes_to(2)) << "usually at once: the first look at a GPU reads the folder";
  EXPECT_EQ(found_[1].slice.share_permille, 800u);
  EXPECT_TRUE(found_[1].slice.active);
}

TEST_F(Neighbours, OfMoreThanCanBeWeighedTheOldestAre) {
  std::vector<AllotSliceFile*> all;
  for (uint32_t i = 0; i < kWeighed + 6; ++i) all.push_back(&make("n" + std::to_string(i)));
  const auto work_all = [&] {
    for (AllotSliceFile* file : all) work(*file);
  };
  work_all();
  own_->header.created_unix_ns = 1'000'000 * kWeighed + 500'000;  // older: n0 to n62
  ASSERT_TRUE(shm::eventually([&] {
    work_all();
    return look() == kWeighed && found_[kWeighed - 1].slice.id / 1'000'000 == kWeighed;
  }));
  EXPECT_TRUE(found_[0].fits) << "it is the 64th";
  for (uint32_t i = 1; i < kWeighed; ++i) {
    EXPECT_EQ(found_[i].slice.id / 1'000'000, i + 1) << "the oldest, in order";
  }
  own_->header.created_unix_ns += 1'000'000;  // n63 too
  work_all();
  EXPECT_TRUE(shm::eventually([&] {
    work_all();
    return look() == kWeighed && !found_[0].fits;
  })) << "it is the 65th";
  // One of the older ones goes to sleep: there is room.
  EXPECT_TRUE(shm::eventually([&] {
    work_all();
    work(*all[5], 0, ALLOT_CLIENT_OPEN);
    return look() == kWeighed && found_[0].fits;
  }));
}

TEST_F(Neighbours, OlderOnesThatWakeTakeThePlacesOfYoungerOnes) {
  std::vector<AllotSliceFile*> all;
  for (uint32_t i = 0; i < 3 * kWeighed; ++i) all.push_back(&make("n" + std::to_string(i)));
  for (uint32_t awake = kWeighed; awake <= 3 * kWeighed; awake += kWeighed) {
    EXPECT_TRUE(shm::eventually([&] {
      for (uint32_t i = 3 * kWeighed - awake; i < 3 * kWeighed; ++i) work(*all[i]);
      return look() == kWeighed && found_[1].slice.id / 1'000'000 == 3 * kWeighed - awake + 2;
    })) << awake;
  }
}

TEST_F(Neighbours, ASliceThatWakesIsSeenWhenItRings) {
  AllotSliceFile& sleeper = make("sleeper");
  AllotSliceFile& busy = make("busy");
  work(busy);
  ASSERT_TRUE(comes_to(2));
  usleep(20'000);  // longer than a hundred times what a scan takes
  work(busy);
  work(sleeper);
  EXPECT_TRUE(shm::eventually([&] {
    neighbours_rang();
    return look() == 3u;
  }));
}

TEST_F(Neighbours, AChangeOfOneWhoIsKnownIsSeenAtEachLook) {
  AllotSliceFile& other = make("other");
  work(other);
  ASSERT_EQ(look(), 2u);
  work(other, 0, ALLOT_CLIENT_AWAKE);
  ASSERT_EQ(look(), 2u);
  EXPECT_FALSE(found_[1].slice.active);
  work(other, 0, kAtWork);
  ASSERT_EQ(look(), 2u);
  EXPECT_TRUE(found_[1].slice.active);
  work(other, 0, 0);
  EXPECT_EQ(look(), 1u) << "asleep: it takes no room";
}

TEST_F(Neighbours, EachGpuHasItsOwn) {
  AllotSliceFile& both = make("both", 2);
  work(both, 0);
  work(both, 1);
  work(make("second", 1, 1));  // its only GPU is our second
  EXPECT_EQ(look(0), 2u);
  EXPECT_EQ(found_[1].slice.gpus, 2u);
  EXPECT_EQ(look(1), 3u);
  EXPECT_EQ(look(0), 2u);
}

TEST_F(Neighbours, AGpuThatIsNotAskedAboutIsForgotten) {
  for (uint8_t on = 0; on < ALLOT_MAX_GPUS + 1; ++on) {
    work(make("on" + std::to_string(on), 1, on));
    EXPECT_TRUE(comes_to(2, on)) << unsigned{on};
  }
}

TEST_F(Neighbours, AVeryFullFolderIsReadInPartsAndTheAgentGoesOn) {
  for (int i = 0; i < 3000; ++i) junk("j" + std::to_string(i), 10);
  AllotSliceFile& busy = make("busy");
  uint64_t longest = 0;
  EXPECT_TRUE(shm::eventually([&] {
    work(busy);
    const uint64_t begin = sys::thread_cpu_ns();
    const bool found = look() == 2;
    const uint64_t took = sys::thread_cpu_ns() - begin;
    longest = took > longest ? took : longest;
    return found;
  }));
  EXPECT_LT(longest, 50'000'000u) << "a look does not last long, whatever lies there";
}

TEST_F(Neighbours, OneHundredLooksASecondWithManyIdleSlicesCostLittle) {
  std::vector<AllotSliceFile*> idle;
  for (int i = 0; i < 24; ++i) idle.push_back(&make("idle" + std::to_string(i), 8));
  AllotSliceFile& busy = make("busy", 8);
  const auto show_life = [&] {
    for (AllotSliceFile* file : idle) {
      for (uint32_t g = 0; g < 8; ++g) work(*file, g, ALLOT_CLIENT_OPEN);
    }
    work(busy);
  };
  show_life();
  for (uint8_t on = 0; on < 8; ++on) look(on);
  const uint64_t begin = sys::monotonic_ns();
  uint64_t spent = 0;
  for (int round = 0; round < 100; ++round) {
    show_life();
    const uint64_t cpu = sys::thread_cpu_ns();
    for (uint8_t on = 0; on < 8; ++on) look(on);
    spent += sys::thread_cpu_ns() - cpu;
    usleep(10'000);
  }
  const double percent =
      100.0 * static_cast<double>(spent) / static_cast<double>(sys::monotonic_ns() - begin);
  RecordProperty("percent_of_a_cpu", std::to_string(percent));
  EXPECT_LT(percent, 4.0) << "1 % on an idle machine; sanitizers and crowded machines take more";
}

}  // namespace
}  // namespace allot::shim
