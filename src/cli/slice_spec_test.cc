// Every text that a user can get wrong, and that the complaint names the flag and what was found.
#include "cli/slice_spec.h"

#include <gtest/gtest.h>

#include "cli/failure.h"
#include "shm/slice_file.h"

namespace allot::cli {
namespace {

// Runs `work`, which must throw; returns the line.
template <class Work>
std::string complaint(Work work, int exit_status = kExitUsage) {
  try {
    work();
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.exit_status(), exit_status);
    EXPECT_EQ(failure.line().find('\n'), std::string::npos);
    return failure.line();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

TEST(ParseGpuMem, OneSizeIsForEveryGpu) {
  const auto limits = parse_gpu_mem("--gpu-mem", "8G");
  ASSERT_EQ(limits.size(), 1u);
  EXPECT_EQ(limits[0].gpu, "");
  EXPECT_EQ(limits[0].bytes, uint64_t{8} << 30);
}

TEST(ParseGpuMem, SizesForSingleGpus) {
  const auto limits = parse_gpu_mem("--gpu-mem", "0:8G,GPU-1a2b:512M,1:none");
  ASSERT_EQ(limits.size(), 3u);
  EXPECT_EQ(limits[0].gpu, "0");
  EXPECT_EQ(limits[1].gpu, "GPU-1a2b");
  EXPECT_EQ(limits[1].bytes, uint64_t{512} << 20);
  EXPECT_EQ(limits[2].bytes, ALLOT_UNLIMITED);
}

TEST(ParseGpuMem, NamesTheFlagAndTheTextThatIsNoSize) {
  for (const char* text : {"8X", "", "-1", "8G,", "x:8G8", "0:", "G", "1e400"}) {
    const std::string line = complaint([&] { parse_gpu_mem("--gpu-mem", text); });
    EXPECT_NE(line.find("--gpu-mem"), std::string::npos) << line;
    EXPECT_NE(line.find("such as 8G"), std::string::npos) << line;
  }
  EXPECT_NE(complaint([] { parse_gpu_mem("--gpu-mem", "8X"); }).find("'8X'"), std::string::npos);
}

TEST(ParseGpuMem, RefusesNoMemoryAndNoGpu) {
  EXPECT_NE(complaint([] { parse_gpu_mem("--gpu-mem", "0"); }).find("no memory"),
            std::string::npos);
  EXPECT_NE(complaint([] { parse_gpu_mem("--gpu-mem", ":8G"); }).find("names no GPU"),
            std::string::npos);
}

TEST(ParseGpuList, SplitsAndRefusesEmptyAndDouble) {
  EXPECT_EQ(parse_gpu_list("--gpu", "0,GPU-1").size(), 2u);
  complaint([] { parse_gpu_list("--gpu", "0,,1"); });
  complaint([] { parse_gpu_list("--gpu", ""); });
  EXPECT_NE(complaint([] { parse_gpu_list("--gpu", "1,0,1"); }).find("twice"), std::string::npos);
}

TEST(ParseShare, TakesPercentAndRefusesTheRest) {
  EXPECT_EQ(parse_share("--gpu-share", "30"), 300u);
  EXPECT_EQ(parse_share("--gpu-share", "0.5%"), 5u);
  EXPECT_EQ(parse_share("--gpu-share", "100"), 1000u);
  for (const char* text : {"0", "101", "100.1", "-3", "abc", "0.01"}) {
    complaint([&] { parse_share("--gpu-share", text); });
  }
}

TEST(ParseShare, FinerThanATenthOfAPercentIsRefusedWithTheStep) {
  const std::string said = complaint([] { parse_share("--gpu-share", "0.25%"); });
  EXPECT_NE(said.find("steps of 0.1"), std::string::npos) << said;
  EXPECT_EQ(parse_share_or_none("--gpu-share", "none"), 0u);
  EXPECT_EQ(parse_share_or_none("--gpu-share", "12.5"), 125u);
  complaint([] { parse_share_or_none("--gpu-share", "0"); });
}

TEST(ParseWords, PriorityLevelFail) {
  EXPECT_EQ(parse_priority("--priority", "low"), ALLOT_PRIORITY_LOW);
  EXPECT_EQ(parse_level("--level", "observe"), ALLOT_LEVEL_OBSERVE);
  EXPECT_TRUE(parse_fail("--fail", "closed"));
  EXPECT_FALSE(parse_fail("--fail", "open"));
  complaint([] { parse_priority("--priority", "HIGH"); });
  complaint([] { parse_level("--level", "gpu"); });
  complaint([] { parse_fail("--fail", "shut"); });
}

TEST(Names, OnlyWhatTheRegionAllows) {
  check_name("--name", "alice.2_b-c");
  for (const char* name : {"", ".x", "-x", "a/b", "a b", "ä"}) {
    complaint([&] { check_name("--name", name); });
  }
  complaint([] { check_name("--name", std::string(ALLOT_NAME_BYTES, 'a')); });
}

TEST(Names, DefaultNameIsAlwaysAllowed) {
  EXPECT_EQ(default_name("/usr/bin/python3", 42), "python3-42");
  EXPECT_EQ(default_name("-a b", 1), "_-a_b-1");
  for (const std::string& program :
       {std::string(200, 'x'), std::string("/"), std::string("./.hidden"), std::string("\xff")}) {
    const std::string name = default_name(program, 4194304);
    EXPECT_TRUE(shm::valid_name(name.c_str())) << name;
    EXPECT_TRUE(name.ends_with("-4194304")) << name;
  }
}

TEST(LimitsTime, WhatObserveDoesNotHold) {
  SliceSpec spec;
  EXPECT_FALSE(spec.limits_time());
  spec.level = ALLOT_LEVEL_OBSERVE;
  EXPECT_FALSE(spec.limits_time());
  spec.max_permille = 1;
  EXPECT_TRUE(spec.limits_time());
  spec = {};
  spec.priority = ALLOT_PRIORITY_HIGH;
  EXPECT_TRUE(spec.limits_time());
}

TEST(SliceSpec, ALatencyIsFiveToTwoHundredMilliseconds) {
  EXPECT_EQ(parse_latency("--gpu-latency", "5"), 5000u);
  EXPECT_EQ(parse_latency("--gpu-latency", "7.5ms"), 7500u);
  EXPECT_EQ(parse_latency("--gpu-latency", "200"), 200'000u);
  EXPECT_EQ(parse_latency("--gpu-latency", "default"), 0u);
  for (const char* bad : {"", "4.9", "201", "ms", "1e9", "nan", "-10", "10s", " 10", "10 "}) {
    EXPECT_THROW(parse_latency("--gpu-latency", bad), Failure) << bad;
  }
}

}  // namespace
}  // namespace allot::cli
