// Bounded text: appends what fits, says when it cut, never writes past the end.
#include "base/text.h"

#include <gtest/gtest.h>

#include <string>

namespace allot {
namespace {

TEST(TextBuf, AppendsAndCloses) {
  char out[64];
  TextBuf text(out, sizeof(out));
  EXPECT_STREQ(out, "");
  text.text("/proc/").u64(12345).put('/').hex(0xbeef).put(' ').hex(10, 4).put(' ').i64(-7);
  EXPECT_STREQ(out, "/proc/12345/beef 000a -7");
  EXPECT_EQ(text.view(), out);
  EXPECT_FALSE(text.cut());
}

TEST(TextBuf, WritesAUuidInGroups) {
  unsigned char bytes[16];
  for (unsigned i = 0; i < 16; ++i) bytes[i] = static_cast<unsigned char>(i * 17);
  char out[40];
  TextBuf text(out, sizeof(out));
  EXPECT_EQ(text.uuid(bytes).view(), "00112233-4455-6677-8899-aabbccddeeff");
  EXPECT_FALSE(text.cut());
}

TEST(TextBuf, WritesTheExtremes) {
  char out[128];
  TextBuf text(out, sizeof(out));
  text.u64(0).put(' ').u64(UINT64_MAX).put(' ').i64(INT64_MIN).put(' ').hex(0).put(' ');
  text.hex(UINT64_MAX, 99).put(' ').hex(1, 0);
  EXPECT_STREQ(out, "0 18446744073709551615 -9223372036854775808 0 ffffffffffffffff 1");
}

TEST(TextBuf, CutsAtTheEnd) {
  char out[8];
  for (char& c : out) c = 'x';
  TextBuf text(out, 5);
  text.text("abcd");
  EXPECT_FALSE(text.cut());
  text.put('e');
  EXPECT_TRUE(text.cut());
  EXPECT_STREQ(out, "abcd");
  EXPECT_EQ(out[5], 'x');
  TextBuf none(out + 6, 0);
  none.text("abc");
  EXPECT_TRUE(none.cut());
  EXPECT_EQ(none.length(), 0u);
  EXPECT_EQ(out[6], 'x');
}

TEST(ReadNumbers, MoveBehindTheDigits) {
  const std::string text = "42:ff zz 18446744073709551616";
  const char* at = text.data();
  const char* end = at + text.size();
  uint64_t value = 0;
  ASSERT_TRUE(read_u64(&at, end, &value));
  EXPECT_EQ(value, 42u);
  EXPECT_EQ(*at, ':');
  EXPECT_FALSE(read_u64(&at, end, &value));
  ++at;
  ASSERT_TRUE(read_hex(&at, end, &value));
  EXPECT_EQ(value, 0xffu);
  at += 4;
  const char* before = at;
  EXPECT_FALSE(read_u64(&at, end, &value));  // one too large
  EXPECT_EQ(at, before);
  const std::string wide = "10000000000000000";
  at = wide.data();
  EXPECT_FALSE(read_hex(&at, at + wide.size(), &value));
  EXPECT_FALSE(read_u64(&at, at, &value));
}

TEST(Hash64, IsTheKnownFunction) {
  EXPECT_EQ(hash64("", 0), 0xcbf29ce484222325ull);
  EXPECT_EQ(hash64("a", 1), 0xaf63dc4c8601ec8cull);
  EXPECT_EQ(hash64("foobar", 6), 0x85944171f73967e8ull);
}

}  // namespace
}  // namespace allot
