// Files of the region, as their users see them.
#include "shm/region.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace allot::shm {
namespace {

class RegionTest : public testing::Test {
 protected:
  void SetUp() override {
    char text[] = "/dev/shm/allot-test-XXXXXX";
    ASSERT_NE(mkdtemp(text), nullptr);
    folder_ = text;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string path(const char* name) { return folder_ + "/" + name + ".tenant"; }
  NewTenant mine(const char* name) { return {name, 0, static_cast<int32_t>(getpid()), 0, 0}; }
  std::string folder_;
};

TEST_F(RegionTest, CreateJoinChargeRemove) {
  auto tenant = create_tenant(folder_.c_str(), mine("alice"));
  ASSERT_TRUE(tenant) << int(tenant.error().code) << " " << tenant.error().os_errno;
  const uint8_t uuid[16] = {1, 2, 3};
  auto gpu = find_or_add_gpu(*tenant, uuid, 1000, 5000);
  ASSERT_TRUE(gpu);
  EXPECT_EQ(*gpu, 0u);
  auto joined = join_tenant(path("alice").c_str());
  ASSERT_TRUE(joined) << int(joined.error().code) << " " << joined.error().os_errno;
  core::Ledger ledger(joined->tenant.file);
  EXPECT_TRUE(ledger.reserve(joined->slot, 0, ALLOT_KIND_LINEAR, 1000));
  EXPECT_FALSE(ledger.reserve(joined->slot, 0, ALLOT_KIND_LINEAR, 1));
  auto look = open_tenant(path("alice").c_str(), false);
  ASSERT_TRUE(look);
  EXPECT_EQ(core::Ledger(look->file).used(0), 1000u);
  auto again = create_tenant(folder_.c_str(), mine("alice"));
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, Errc::kExists);
  EXPECT_EQ(remove_tenant(path("alice").c_str(), 0).error().code, Errc::kExists);
  EXPECT_TRUE(remove_tenant(path("alice").c_str(), static_cast<uint32_t>(getpid())));
  EXPECT_EQ(open_tenant(path("alice").c_str(), false).error().code, Errc::kNotFound);
  EXPECT_EQ(join_tenant(path("alice").c_str()).error().code, Errc::kNotFound);
}

}  // namespace
}  // namespace allot::shm
