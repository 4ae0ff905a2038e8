#include "cpus/cpu_set.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <random>

namespace allot::cpus {
namespace {

int errno_of(std::string_view text, int limit = 8) {
  Result<CpuSet> r = parse_list(text, limit);
  return r ? 0 : r.error().os_errno;
}

TEST(CpuSet, ListsAreTakenAsTheKernelTakesThem) {
  EXPECT_EQ(to_list(*parse_list("0-3,6", 8)), "0-3,6");
  EXPECT_EQ(to_list(*parse_list("0-7:1/2", 8)), "0,2,4,6");
  EXPECT_EQ(to_list(*parse_list("all", 8)), "0-7");
  EXPECT_EQ(to_list(*parse_list("N", 8)), "7");
  EXPECT_EQ(to_list(*parse_list("0,,1", 8)), "0-1");
  EXPECT_EQ(to_list(*parse_list(" 0-3 \n", 8)), "0-3");
  EXPECT_EQ(to_list(*parse_list("", 8)), "");
}

TEST(CpuSet, BadListsHaveTheKernelsErrno) {
  for (std::string_view bad :
       {"foo", "3-1", "-1", "0-", "0-3:1", "0x", "1;2", "0-3:3/2", "0-3:1/0"}) {
    EXPECT_EQ(errno_of(bad), EINVAL) << bad;
  }
  for (std::string_view far : {"8", "99", "0-999"}) {
    EXPECT_EQ(errno_of(far), ERANGE) << far;
  }
  EXPECT_EQ(errno_of("99999999999999"), EOVERFLOW);
}

TEST(CpuSet, ListAndSetAreInverse) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    CpuSet set;
    int density = static_cast<int>(random() % 9) + 1;
    for (int cpu = 0; cpu < kMaxCpus; ++cpu) {
      if (static_cast<int>(random() % 10) < density) set.add(cpu);
    }
    Result<CpuSet> back = parse_list(to_list(set));
    ASSERT_TRUE(back);
    EXPECT_EQ(*back, set);
    EXPECT_EQ(static_cast<int>(set.to_vector().size()), set.count());
  }
}

TEST(CpuSet, SetsOfWords) {
  CpuSet a = CpuSet::range(0, 70), b = CpuSet::range(64, 130);
  EXPECT_EQ(to_list(a & b), "64-70");
  EXPECT_EQ(to_list(a - b), "0-63");
  EXPECT_EQ(to_list(a | b), "0-130");
  EXPECT_TRUE(a.contains(CpuSet{3, 70}));
  EXPECT_FALSE(a.contains(CpuSet{71}));
  EXPECT_EQ(b.last(), 130);
  EXPECT_EQ(CpuSet{}.first(), -1);
  EXPECT_EQ(CpuSet{}.last(), -1);
  a.add(-1);
  a.add(kMaxCpus);
  EXPECT_EQ(a.count(), 71);
}

}  // namespace
}  // namespace allot::cpus
