// What is known of a process's channels, at N and N + 1 of each table, against a resource manager
// that only notes which channels are stopped and which timeslices are set.
#include "shim/time/rm_tracker.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <map>
#include <set>

#include "abi/region.h"
#include "shim/time/channels.h"
#include "shim/time/rm_objects.h"
#include "shim/time/tables.h"

namespace allot::shim {
namespace {

// The guard of a hook is only asked for, never looked at.
const char nothing = 0;
const Call& kHook = reinterpret_cast<const Call&>(nothing);

constexpr NvHandle kClient = 0xc1d00001, kDevice = 0x5c000001, kSubdevice = 0x5c000002;
constexpr NvHandle kFirst = 0x5d000000;

std::map<NvHandle, bool> stopped;
std::map<NvHandle, uint64_t> timeslices;
int last_fd = -1;

}  // namespace

int rm_call(int fd, unsigned long, void* argument) {
  auto* call = static_cast<NVOS54_PARAMETERS*>(argument);
  last_fd = fd;
  call->status = NV_OK;
  if (call->cmd == NV2080_CTRL_CMD_FIFO_DISABLE_CHANNELS) {
    const auto* p = reinterpret_cast<NV2080_CTRL_FIFO_DISABLE_CHANNELS_PARAMS*>(call->params);
    for (uint32_t i = 0; i < p->numChannels; ++i) stopped[p->hChannelList[i]] = p->bDisable != 0;
  } else if (call->cmd == NVA06C_CTRL_CMD_SET_TIMESLICE) {
    timeslices[call->hObject] =
        reinterpret_cast<NVA06C_CTRL_TIMESLICE_PARAMS*>(call->params)->timesliceUs;
  }
  return 0;
}

namespace {

class RmTables : public testing::Test {
 protected:
  void SetUp() override {
    forget_rm();
    forget_full_tables();
    stopped.clear();
    timeslices.clear();
    fd_ = open("/dev/null", O_RDONLY | O_CLOEXEC);
    const MakingContextOn making(kHook, 0);
    make(kClient, kClient, kDevice, NV01_DEVICE_0);
    make(kClient, kDevice, kSubdevice, NV20_SUBDEVICE_0);
  }
  void TearDown() override {
    rm_let_go();
    close(fd_);
  }

  void make(NvHandle client, NvHandle parent, NvHandle handle, uint32_t rm_class,
            uint64_t parameters = 0) {
    NVOS21_PARAMETERS p = {};
    p.hRoot = client;
    p.hObjectParent = parent;
    p.hObjectNew = handle;
    p.hClass = rm_class;
    p.pAllocParms = parameters;
    watch_rm_call(fd_, ALLOT_RM_ALLOC_SHORT, &p, 0);
  }
  void drop(NvHandle handle) {
    NVOS00_PARAMETERS p = {};
    p.hRoot = kClient;
    p.hObjectOld = handle;
    watch_rm_call(fd_, ALLOT_RM_FREE, &p, 0);
  }
  // A group that runs kernels, with channels.
  void group(uint32_t number, uint32_t channels) {
    const MakingContextOn making(kHook, 0);
    NV_CHANNEL_GROUP_ALLOCATION_PARAMETERS_HEAD head = {};
    head.engineType = NV2080_ENGINE_TYPE_GR0;
    const NvHandle handle = kFirst + number * 0x1000;
    make(kClient, kDevice, handle, KEPLER_CHANNEL_GROUP_A, reinterpret_cast<uint64_t>(&head));
    for (uint32_t i = 1; i <= channels; ++i) channel(number, i);
  }
  void channel(uint32_t number, uint32_t i) {
    const NvHandle handle = kFirst + number * 0x1000;
    make(kClient, handle, handle + i, kChannelClass);
  }
  size_t stopped_now() const {
    size_t count = 0;
    for (const auto& [handle, is] : stopped) count += is ? 1u : 0u;
    return count;
  }
  // All channels on all pages, and that none is on two.
  std::set<NvHandle> on_pages() {
    std::set<NvHandle> all;
    for (uint32_t page = 0; rm_channels(0, &known_, page); ++page) {
      for (uint32_t i = 0; i < known_.channel_count; ++i) {
        EXPECT_TRUE(all.insert(known_.channels[i]).second);
      }
    }
    return all;
  }

  static constexpr uint32_t kChannelClass = 0xc86f;
  RmChannels known_ = {};
  int fd_ = -1;
};

TEST_F(RmTables, The65thGroupIsSaidToBeThere) {
  for (uint32_t i = 0; i < kMaxGroups; ++i) group(i, 1);
  ASSERT_TRUE(rm_channels(0, &known_));
  EXPECT_EQ(known_.group_count, kMaxGroups);
  EXPECT_FALSE(known_.more);
  group(kMaxGroups, 1);
  ASSERT_TRUE(rm_channels(0, &known_));
  EXPECT_EQ(known_.group_count, kMaxGroups);
  EXPECT_TRUE(known_.more);
  ASSERT_TRUE(rm_channels(0, &known_, 1));
  EXPECT_EQ(known_.group_count, 1u);
  EXPECT_EQ(known_.groups[0], kFirst + kMaxGroups * 0x1000);
  EXPECT_EQ(on_pages().size(), kMaxGroups + 1);
  drop(kFirst);  // and there is room again
  ASSERT_TRUE(rm_channels(0, &known_));
  EXPECT_FALSE(known_.more);
}

TEST_F(RmTables, The513thChannelIsSaidToBeThere) {
  group(0, kMaxChannels);
  ASSERT_TRUE(rm_channels(0, &known_));
  EXPECT_EQ(known_.channel_count, kMaxChannels);
  EXPECT_FALSE(known_.more);
  channel(0, kMaxChannels + 1);
  ASSERT_TRUE(rm_channels(0, &known_));
  EXPECT_TRUE(known_.more);
  EXPECT_EQ(on_pages().size(), kMaxChannels + 1);
}

TEST_F(RmTables, TheObjectThatFindsNoPlaceIsSaidToBeThere) {
  // With the device and its subdevice the table is full to the last place.
  const uint32_t per_group = 93;
  uint32_t objects = 2;
  for (uint32_t i = 0; objects + per_group + 1 <= rm::kObjects; ++i) {
    group(i, per_group);
    objects += per_group + 1;
  }
  for (uint32_t i = 1; objects < rm::kObjects; ++i, ++objects) channel(0, per_group + i);
  EXPECT_EQ(full_tables() & ALLOT_TABLE_CHANNELS, 0u);
  const uint32_t before = rm_generation();
  group(40, 0);
  EXPECT_NE(full_tables() & ALLOT_TABLE_CHANNELS, 0u);
  EXPECT_NE(rm_generation(), before) << "whoever holds channels looks again";
  ASSERT_TRUE(rm_channels(0, &known_, 3));
  EXPECT_TRUE(known_.more) << "on the last page, too";
}

TEST_F(RmTables, AllRunAgainWhereThereAreMoreThanOneSetHolds) {
  group(0, 300);
  group(1, 212);
  Channels channels;
  ASSERT_TRUE(channels.refresh(0));
  EXPECT_FALSE(channels.more());
  ASSERT_TRUE(channels.set_timeslice(500));
  ASSERT_TRUE(channels.set_open(false));
  EXPECT_EQ(stopped_now(), 512u);
  // New ones take the places of old ones: those that are stopped are on the second page now.
  for (uint32_t i = 1; i <= 10; ++i) drop(kFirst + i);
  for (uint32_t i = 1; i <= 20; ++i) channel(1, 300 + i);
  for (uint32_t i = 1; i <= 10; ++i) stopped.erase(kFirst + i);
  ASSERT_TRUE(channels.refresh(0));
  EXPECT_TRUE(channels.more());
  channels.let_all_run(0);
  EXPECT_EQ(stopped_now(), 0u);
  EXPECT_EQ(timeslices[kFirst], uint64_t{ALLOT_RM_LIBCUDA_TIMESLICE_US});
  EXPECT_EQ(timeslices[kFirst + 0x1000], uint64_t{ALLOT_RM_LIBCUDA_TIMESLICE_US});
  EXPECT_TRUE(channels.open());
}

TEST_F(RmTables, The17thDescriptorIsSaidToBeThereAndOldOnesAreClosed) {
  const auto sets_timeslice = [this](int fd) {
    NVOS54_PARAMETERS p = {};
    p.hClient = kClient;
    p.hObject = kFirst;
    p.cmd = NVA06C_CTRL_CMD_SET_TIMESLICE;
    watch_rm_call(fd, ALLOT_RM_CONTROL, &p, 0);
    ASSERT_TRUE(rm_channels(0, &known_));
  };
  group(0, 8);
  std::set<int> originals, copies;
  for (uint32_t i = 0; i < 17; ++i) originals.insert(dup(fd_));
  auto next = originals.begin();
  ASSERT_TRUE(rm_channels(0, &known_));
  copies.insert(known_.fd);  // the group's
  for (; copies.size() < 16; ++next) {
    sets_timeslice(*next);
    EXPECT_TRUE(copies.insert(known_.fd).second);
    EXPECT_EQ(full_tables(), 0u);
  }
  sets_timeslice(*next);
  EXPECT_EQ(copies.count(known_.fd), 1u) << "no copy that nobody would close";
  EXPECT_EQ(full_tables(), ALLOT_TABLE_DESCRIPTORS);
  rm_close_old_copies();
  for (const int copy : copies) EXPECT_EQ(fcntl(copy, F_GETFD) >= 0, copy == known_.fd) << copy;
  sets_timeslice(*next);
  EXPECT_GE(known_.fd, 0);
  EXPECT_EQ(copies.count(known_.fd) == 0 || fcntl(known_.fd, F_GETFD) >= 0, true);
  for (const int fd : originals) close(fd);
}

}  // namespace
}  // namespace allot::shim
