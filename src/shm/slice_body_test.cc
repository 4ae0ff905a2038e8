// A slice of a folder of all users: two files that look like one to its owner.
#include "shm/slice_body.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "shm/test_region.h"

namespace allot::shm {
namespace {

constexpr uint32_t kStranger = 64321;

class BodyTest : public RegionTest {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root: the folder of all users is root's";
    RegionTest::SetUp();
    ASSERT_EQ(chmod(folder_.c_str(), 01777), 0);
  }
  std::string body() const {
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      if (entry.path().extension() == ".body") return entry.path();
    }
    return "";
  }
};

TEST_F(BodyTest, ProcessesJoinAndChargeAsInOneFile) {
  auto made = create_slice(folder_.c_str(), mine("t"));
  ASSERT_TRUE(made);
  const uint8_t uuid[16] = {7};
  ASSERT_TRUE(find_or_add_gpu(*made, uuid, 1000, 5000));
  Child child([&] {
    auto joined = join_slice(path("t").c_str());
    if (!joined) _exit(7);
    core::Ledger ledger(joined->slice.file);
    if (!ledger.reserve(joined->slot, 0, ALLOT_KIND_LINEAR, 600)) _exit(6);
  });
  ASSERT_TRUE(child.ready());
  EXPECT_EQ(core::Ledger(made->file).used(0), 600u);
  EXPECT_EQ(ALLOT_SLOT_PID(made->file->slot_words[0]), child.pid());
  child.kill();
  EXPECT_EQ(reclaim_dead(*made), 1u);
  EXPECT_EQ(core::Ledger(made->file).used(0), 0u);
  unmap(*made);
}

TEST_F(BodyTest, AStrangerReadsTheHeadAndKnowsThatItLives) {
  auto made = create_slice(folder_.c_str(), mine("t"));
  ASSERT_TRUE(made);
  auto held = hold_slice(*made);
  ASSERT_TRUE(held);
  const std::string at = path("t");
  const auto look = [&] {
    return in_child(kStranger, [&] {
      auto slice = open_slice(at.c_str(), false);
      if (!slice) return 1;
      if (!slice->head_only || core::Ledger(slice->file).used(0) != 0) return 2;
      if (open_slice(at.c_str(), true)) return 3;
      return slice_in_use(*slice) ? 0 : 4;
    });
  };
  EXPECT_EQ(look(), 0);
  made->file->header.launcher_pid = 0;
  held->close();
  EXPECT_EQ(look(), 4);
  unmap(*made);
}

TEST_F(BodyTest, ALostOrForeignBodyIsDamage) {
  auto made = create_slice(folder_.c_str(), mine("t"));
  ASSERT_TRUE(made);
  unmap(*made);
  const std::string at = body();
  ASSERT_EQ(chown(at.c_str(), kStranger, kStranger), 0);
  EXPECT_EQ(open_slice(path("t").c_str(), true).error().code, Errc::kDamaged);
  ASSERT_EQ(chown(at.c_str(), 0, 0), 0);
  EXPECT_TRUE(open_slice(path("t").c_str(), false));
  ASSERT_EQ(truncate(at.c_str(), 100), 0);
  EXPECT_EQ(open_slice(path("t").c_str(), false).error().code, Errc::kDamaged);
  ASSERT_EQ(unlink(at.c_str()), 0);
  EXPECT_EQ(open_slice(path("t").c_str(), false).error().code, Errc::kDamaged);
  // The name is not lost for that.
  auto again = create_slice(folder_.c_str(), mine("t"));
  ASSERT_TRUE(again);
  unmap(*again);
  EXPECT_TRUE(open_slice(path("t").c_str(), true));
}

TEST_F(BodyTest, RemovedTogether) {
  auto made = create_slice(folder_.c_str(), mine("t"));
  ASSERT_TRUE(made);
  EXPECT_EQ(files(), 2u);
  unmap(*made);
  ASSERT_TRUE(remove_slice(path("t").c_str(), static_cast<uint32_t>(getpid())));
  EXPECT_EQ(files(), 0u);
}

TEST_F(BodyTest, AnOrphanGoesUnlessItsMakerIsAtWork) {
  auto folder = open_folder(folder_.c_str());
  ASSERT_TRUE(folder);
  AllotHeader header = {};
  header.name[0] = 'x';
  header.created_unix_ns = 5;
  auto maker = new_body(*folder);
  ASSERT_TRUE(maker);
  ASSERT_TRUE(publish_body(*maker, header));
  EXPECT_EQ(clear_orphans(folder_.c_str()), 0u);
  *maker = sys::NewFile();
  EXPECT_EQ(clear_orphans(folder_.c_str()), 1u);
  EXPECT_EQ(files(), 0u);
  // Not that of a slice.
  auto made = create_slice(folder_.c_str(), mine("t"));
  ASSERT_TRUE(made);
  unmap(*made);
  EXPECT_EQ(clear_orphans(folder_.c_str()), 0u);
  EXPECT_TRUE(open_slice(path("t").c_str(), true));
}

}  // namespace
}  // namespace allot::shm
