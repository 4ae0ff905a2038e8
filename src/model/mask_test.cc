#include "model/mask.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace allot::model {
namespace {

int parse(const char* text, Mask* mask) {
  return parse_list(text, 8, mask);
}

TEST(Mask, PrintsRangesAsTheKernelDoes) {
  EXPECT_EQ(Mask().list(), "");
  EXPECT_EQ((Mask{0, 1, 2, 3, 6}).list(), "0-3,6");
  EXPECT_EQ((Mask{63, 64, 1023}).list(), "63-64,1023");
}

TEST(Mask, WalksItsBits) {
  Mask mask{0, 63, 64, 700};
  EXPECT_EQ(mask.first(), 0);
  EXPECT_EQ(mask.next(0), 63);
  EXPECT_EQ(mask.next(63), 64);
  EXPECT_EQ(mask.next(64), 700);
  EXPECT_EQ(mask.next(700), -1);
  EXPECT_EQ(mask.count(), 4);
}

TEST(Mask, AcceptsWhatTheKernelAccepts) {
  Mask mask;
  EXPECT_EQ(parse("0-3:1/2", &mask), 0);
  EXPECT_EQ(mask.list(), "0,2");
  EXPECT_EQ(parse("all", &mask), 0);
  EXPECT_EQ(mask.list(), "0-7");
  EXPECT_EQ(parse("N", &mask), 0);
  EXPECT_EQ(mask.list(), "7");
  EXPECT_EQ(parse("0,,1", &mask), 0);
  EXPECT_EQ(mask.list(), "0-1");
  EXPECT_EQ(parse("1\n2", &mask), 0);
  EXPECT_EQ(mask.list(), "1");
  EXPECT_EQ(parse(",", &mask), 0);
  EXPECT_EQ(mask.list(), "");
}

TEST(Mask, RefusesWithTheKernelsErrno) {
  Mask mask;
  EXPECT_EQ(parse("foo", &mask), EINVAL);
  EXPECT_EQ(parse("3-1", &mask), EINVAL);
  EXPECT_EQ(parse("-1", &mask), EINVAL);
  EXPECT_EQ(parse("0-", &mask), EINVAL);
  EXPECT_EQ(parse("0-3:2", &mask), EINVAL);
  EXPECT_EQ(parse("0-3:3/2", &mask), EINVAL);
  EXPECT_EQ(parse("8", &mask), ERANGE);
  EXPECT_EQ(parse("0-99", &mask), ERANGE);
  EXPECT_EQ(parse("4294967295", &mask), EINVAL);
  EXPECT_EQ(parse("4294967296", &mask), EOVERFLOW);
}

}  // namespace
}  // namespace allot::model
