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

TEST(Table, WhatDoesNotFitGoesInTheOrderThatTheColumnsName) {
  Table table(std::vector<Column>{{"NAME", 0, 7}, {"USED", 0, 0}, {"PEAK", 2, 0}, {"USER", 1, 0}});
  table.row({"a-long-name", "10 MiB", "12 MiB", "alice"});
  EXPECT_EQ(table.text(80),
            "NAME         USED    PEAK    USER\na-long-name  10 MiB  12 MiB  alice\n");
  EXPECT_EQ(table.text(30), "NAME         USED    USER\na-long-name  10 MiB  alice\n");
  EXPECT_EQ(table.text(20), "NAME         USED\na-long-name  10 MiB\n");
  EXPECT_EQ(table.text(16), "NAME      USED\na-lon...  10 MiB\n");
  EXPECT_EQ(table.text(1), "NAME     USED\na-lo...  10 MiB\n") << "no further than it may be cut";
}

TEST(Table, NotesAreBrokenAtBlanks) {
  Table table(std::vector<std::string>{"NAME"});
  table.row({"a"});
  table.note("  1371 allot bench load holds 2 MiB", 7);
  EXPECT_EQ(table.text(24), "NAME\na\n  1371 allot bench load\n       holds 2 MiB\n");
}

TEST(Cut, KeepsWholeCharactersWithinTheColumns) {
  EXPECT_EQ(cut("alice", 5), "alice");
  EXPECT_EQ(cut("alice", 4), "a...");
  EXPECT_EQ(cut("\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4", 5), "\xc3\xa4\xc3\xa4...");
  EXPECT_EQ(cut("\xe6\xbc\xa2\xe6\xbc\xa2\xe6\xbc\xa2", 5), "\xe6\xbc\xa2...")
      << "two columns each";
  EXPECT_EQ(cut("alice", 2), "al");
}

TEST(Harmless, WhatIsNoPrintableCharacterIsEscaped) {
  EXPECT_EQ(harmless("a\x1b[2Jb\n\x7f\xff\t"), "a\\x1b[2Jb\\n\\x7f\\xff\\t");
  EXPECT_EQ(harmless("plain text"), "plain text");
  EXPECT_EQ(harmless("gr\xc3\xbc\xc3\x9f"), "gr\xc3\xbc\xc3\x9f");
  EXPECT_EQ(harmless("\xc2\x9b"
                     "2J"),
            "\\x9b2J")
      << "a control of eight bits";
  EXPECT_EQ(harmless("a\xe2\x80\xae"
                     "b"),
            "a\\u202eb")
      << "turns the direction";
  EXPECT_EQ(harmless("\xc0\xaf\xed\xa0\x80\xf4\x90\x80\x80\xe2\x82"),
            "\\xc0\\xaf\\xed\\xa0\\x80\\xf4\\x90\\x80\\x80\\xe2\\x82")
      << "no UTF-8";
  EXPECT_EQ(harmless(std::string_view("a\0b", 3)), "a\\x00b");
}

TEST(Describe, EveryErrorHasWords) {
  for (int code = 1; code <= static_cast<int>(Errc::kNotAFile); ++code) {
    const std::string text = describe({static_cast<Errc>(code), code == 10 ? 13 : 0});
    EXPECT_FALSE(text.empty());
    EXPECT_NE(text, "unknown error") << code;
  }
  EXPECT_EQ(describe({Errc::kNoPermission, 13}), "no permission (permission denied)");
}

}  // namespace
}  // namespace allot::cli
