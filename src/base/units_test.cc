// Sizes and percentages: what is accepted, what it means, and that everything else is refused.
#include "base/units.h"

#include <gtest/gtest.h>

#include <string>

namespace allot {
namespace {

constexpr uint64_t kKi = 1024, kMi = kKi * 1024, kGi = kMi * 1024, kTi = kGi * 1024;

TEST(ParseSize, AcceptsEveryUnitInEitherCase) {
  struct Row {
    const char* text;
    uint64_t bytes;
  };
  const Row rows[] = {
      {"0", 0},
      {"17", 17},
      {"17B", 17},
      {"17b", 17},
      {"1073741824", kGi},
      {"1k", kKi},
      {"1K", kKi},
      {"1KB", kKi},
      {"1kib", kKi},
      {"512m", 512 * kMi},
      {"512MiB", 512 * kMi},
      {"8G", 8 * kGi},
      {"8g", 8 * kGi},
      {"8GB", 8 * kGi},
      {"8GiB", 8 * kGi},
      {"8 GiB", 8 * kGi},
      {"1.5G", 3 * kGi / 2},
      {"1.5GiB", 3 * kGi / 2},
      {"0.5k", 512},
      {"0.25T", kTi / 4},
      {"0.0001k", 0},
      {"0.001k", 1},  // 1.024 bytes: cut to whole bytes
      {"1.000000001G", kGi + 1},
      {"80G", 80 * kGi},
      {"000008G", 8 * kGi},
      {"9223372036854775807", INT64_MAX},
      {"8388607T", 8388607 * kTi},
  };
  for (const Row& row : rows) {
    auto got = parse_size(row.text);
    ASSERT_TRUE(got) << row.text;
    EXPECT_EQ(*got, row.bytes) << row.text;
  }
}

TEST(ParseSize, RefusesEverythingElse) {
  const char* const bad[] = {
      "",
      " ",
      "8X",
      "8GX",
      "8G8",
      "8GG",
      "8Gi",
      "8iB",
      "8 ",
      "8  G",
      " 8G",
      "8G ",
      "-1",
      "-1G",
      "+1G",
      "G",
      "B",
      ".5G",
      "1.G",
      "1..5G",
      "1.5.5G",
      "1,5G",
      "1.5",
      "1.5B",
      "0x10",
      "1e3",
      "8388608T",
      "infinity",
      "nan",
      "unlimited",
      "8BB",
      "8BiB",
      "9223372036854775808",
      "18446744073709551616",
      "99999999999999999999999999",
      "99999999999T",
      "1.0000000001G",
      "8G\n",
      "8\tG",
      "8%",
      "٨G",
  };
  for (const char* text : bad) {
    auto got = parse_size(text);
    ASSERT_FALSE(got) << "'" << text << "' gave " << *got;
    EXPECT_EQ(got.error().code, Errc::kBadValue);
  }
}

TEST(ParseSize, ReadsOnlyTheViewItWasGiven) {
  const char text[] = {'8', 'G', 'X'};
  EXPECT_EQ(*parse_size(std::string_view(text, 2)), 8 * kGi);
  EXPECT_FALSE(parse_size(std::string_view("8G\0", 3)));
  EXPECT_FALSE(parse_size(std::string_view()));
}

TEST(ParsePercent, AcceptsTenthsOfAPercent) {
  struct Row {
    const char* text;
    uint32_t permille;
  };
  const Row rows[] = {{"30", 300},    {"30%", 300},    {"0.5%", 5},    {"0.5", 5},
                      {"0.1", 1},     {"100", 1000},   {"100%", 1000}, {"100.0", 1000},
                      {"99.9%", 999}, {"12.50%", 125}, {"1", 10},      {"007", 70}};
  for (const Row& row : rows) {
    auto got = parse_percent(row.text);
    ASSERT_TRUE(got) << row.text;
    EXPECT_EQ(*got, row.permille) << row.text;
  }
}

TEST(ParsePercent, RefusesEverythingElse) {
  const char* const bad[] = {"",
                             "%",
                             "0",
                             "0%",
                             "0.0",
                             "0.05%",
                             "0.05",
                             "101",
                             "101%",
                             "100.1",
                             "-1",
                             "-1%",
                             "+5",
                             "30%%",
                             "30 %",
                             " 30",
                             "30 ",
                             "30x",
                             "3O",
                             "1e1",
                             ".5",
                             "5.",
                             "5.%",
                             "12.55",
                             "99999999999999999999",
                             "0.0000000001",
                             "half",
                             "30,5"};
  for (const char* text : bad) {
    auto got = parse_percent(text);
    ASSERT_FALSE(got) << "'" << text << "' gave " << *got;
    EXPECT_EQ(got.error().code, Errc::kBadValue);
  }
}

TEST(FormatSize, IsWhatPeopleRead) {
  auto show = [](uint64_t bytes) {
    char out[32];
    uint32_t length = format_size(bytes, out, sizeof(out));
    EXPECT_EQ(length, std::string(out).size());
    return std::string(out);
  };
  EXPECT_EQ(show(0), "0 B");
  EXPECT_EQ(show(17), "17 B");
  EXPECT_EQ(show(1023), "1023 B");
  EXPECT_EQ(show(1024), "1 KiB");
  EXPECT_EQ(show(1536), "1.5 KiB");
  EXPECT_EQ(show(512 * kMi), "512 MiB");
  EXPECT_EQ(show(8 * kGi), "8 GiB");
  EXPECT_EQ(show(3 * kGi / 2), "1.5 GiB");
  EXPECT_EQ(show(kGi - 1), "1 GiB");  // not "1024 MiB"
  EXPECT_EQ(show(kTi), "1 TiB");
  EXPECT_EQ(show(2048 * kTi), "2048 TiB");
  EXPECT_EQ(show(UINT64_MAX), "16777216 TiB");
}

TEST(FormatSize, CutsAndStaysInsideTheBuffer) {
  char out[8] = {'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x'};
  EXPECT_EQ(format_size(512 * kMi, out, 4), 3u);
  EXPECT_STREQ(out, "512");
  EXPECT_EQ(out[4], 'x');
  out[0] = 'x';
  EXPECT_EQ(format_size(1, out, 0), 0u);
  EXPECT_EQ(out[0], 'x');
}

TEST(FormatSize, ParsesBackWhenItIsExact) {
  for (uint64_t bytes :
       {uint64_t{17}, kKi, 3 * kKi / 2, 512 * kMi, 3 * kGi / 2, 80 * kGi, 7 * kTi}) {
    char out[32];
    format_size(bytes, out, sizeof(out));
    EXPECT_EQ(*parse_size(out), bytes) << out;
  }
}

}  // namespace
}  // namespace allot
