// Listings: columns, sizes, and names that try to be more than names.
#include "cli/output.h"

#include <gtest/gtest.h>

#include "abi/region.h"
#include "cli/failure.h"

namespace allot::cli {
namespace {

TEST(Table, ColumnsAreAsWideAsTheirLongestCell) {
  Table table({"NAME", "USED", "X"});
  table.row({"a", "10 MiB", "1"});
  table.note("  below, however long it may be, it widens nothing");
  table.row({"alice", "0 B", "2"});
  EXPECT_EQ(table.text(),
            "NAME   USED    X\n"
            "a      10 MiB  1\n"
            "  below, however long it may be, it widens nothing\n"
            "alice  0 B     2\n");
}

TEST(SizeText, SaysNoneForNoLimit) {
  EXPECT_EQ(size_text(ALLOT_UNLIMITED), "none");
  EXPECT_EQ(size_text(uint64_t{8} << 30), "8 GiB");
}

TEST(Harmless, ControlCharactersAndForeignBytesBecomeQuestionMarks) {
  EXPECT_EQ(harmless("a\x1b[2Jb\n\x7f\xff"), "a?[2Jb???");
  EXPECT_EQ(harmless("plain text"), "plain text");
}

TEST(Describe, EveryErrorHasWords) {
  for (int code = 1; code <= static_cast<int>(Errc::kSystem); ++code) {
    const std::string text = describe({static_cast<Errc>(code), code == 10 ? 13 : 0});
    EXPECT_FALSE(text.empty());
    EXPECT_NE(text, "unknown error") << code;
  }
  EXPECT_EQ(describe({Errc::kNoPermission, 13}), "no permission (permission denied)");
}

}  // namespace
}  // namespace allot::cli
