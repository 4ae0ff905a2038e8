// Entries in journald's protocol.
#include "cli/log/deeds.h"

#include <gtest/gtest.h>

namespace allot::cli {
namespace {

TEST(JournalEntry, AFieldIsALine) {
  EXPECT_EQ(journal_entry({{"MESSAGE", "a=b"}, {"PRIORITY", "5"}}), "MESSAGE=a=b\nPRIORITY=5\n");
}

TEST(JournalEntry, AValueWithALineBreakHasItsLength) {
  const std::string got = journal_entry({{"MESSAGE", "a\nPRIORITY=0"}});
  EXPECT_EQ(got,
            std::string("MESSAGE\n") + std::string("\x0c\0\0\0\0\0\0\0", 8) + "a\nPRIORITY=0\n");
}

TEST(Logged, ThrowsOnWhatWasThrown) {
  EXPECT_EQ(logged("freeze", "a", [] { return std::string("done"); }), "done");
  EXPECT_THROW(logged("freeze", "a", []() -> std::string { refuse("no"); }), Failure);
  EXPECT_THROW(logged("freeze", "a", []() -> std::string { throw NoSuchSlice("no"); }),
               NoSuchSlice);
}

}  // namespace
}  // namespace allot::cli
