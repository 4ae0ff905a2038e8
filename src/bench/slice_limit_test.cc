// Which limits of time a process finds itself under.
#include "bench/slice_limit.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <memory>

#include "abi/region.h"

namespace allot::bench {
namespace {

constexpr unsigned char kUuid[16] = {1, 2, 3}, kOther[16] = {9};

class SliceLimitFile : public testing::Test {
 protected:
  SliceLimitFile() : path_(testing::TempDir() + "limit." + std::to_string(getpid())) {
    AllotHeader& header = file_->header;
    header.magic = ALLOT_REGION_MAGIC;
    header.major = ALLOT_REGION_MAJOR;
    header.gpu_bytes = sizeof(AllotGpu);
    header.gpu_count = 2;
    std::strcpy(header.name, "alice");
    std::memcpy(file_->gpus[1].uuid, kUuid, sizeof kUuid);
    file_->gpus[1].max_permille = 250;
    file_->gpus[0].share_permille = 700;
  }
  ~SliceLimitFile() override { unlink(path_.c_str()); }
  SliceLimit limit(const unsigned char* uuid, size_t bytes = sizeof(AllotSliceFile)) {
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(file_.get()), static_cast<std::streamsize>(bytes));
    return limit_in_file(path_, uuid);
  }

  std::string path_;
  std::unique_ptr<AllotSliceFile> file_ = std::make_unique<AllotSliceFile>();
};

TEST_F(SliceLimitFile, ItIsOfTheGpuThatIsUsed) {
  const SliceLimit found = limit(kUuid);
  EXPECT_TRUE(found.limited());
  EXPECT_EQ(found.json().dump(), R"({"slice":"alice","max_percent":25.0,"share_percent":null})");
  EXPECT_FALSE(limit(kOther).limited());
  EXPECT_TRUE(limit(kOther).json().is_null());
}

TEST_F(SliceLimitFile, WhatIsNoSliceSaysNothing) {
  EXPECT_FALSE(limit(kUuid, 4096).limited());
  file_->header.gpu_count = UINT32_MAX;
  EXPECT_TRUE(limit(kUuid).limited()) << "a count is bounded, not believed";
  file_->header.major = ALLOT_REGION_MAJOR + 1;
  EXPECT_FALSE(limit(kUuid).limited());
  EXPECT_FALSE(limit_in_file("/nonexistent", kUuid).limited());
}

}  // namespace
}  // namespace allot::bench
