// Bounded text: see text.h. Makes no library call except those the compiler inserts; every write
// first checks for the buffer's end.
#include "base/text.h"

namespace allot {

TextBuf& TextBuf::put(char c) {
  if (size_ == 0 || length_ >= size_ - 1) {
    cut_ = true;
    return *this;
  }
  out_[length_++] = c;
  out_[length_] = '\0';
  return *this;
}

TextBuf& TextBuf::text(std::string_view s) {
  for (char c : s) put(c);
  return *this;
}

TextBuf& TextBuf::u64(uint64_t value) {
  char digits[20];
  uint32_t count = 0;
  do {
    digits[count++] = static_cast<char>('0' + value % 10);
    value /= 10;
  } while (value != 0);
  while (count > 0) put(digits[--count]);
  return *this;
}

TextBuf& TextBuf::i64(int64_t value) {
  if (value >= 0) return u64(static_cast<uint64_t>(value));
  put('-');
  return u64(~static_cast<uint64_t>(value) + 1);  // the magnitude, also of the smallest number
}

TextBuf& TextBuf::hex(uint64_t value, uint32_t digits) {
  uint32_t needed = 1;
  for (uint64_t rest = value >> 4; rest != 0; rest >>= 4) ++needed;
  if (digits > 16) digits = 16;
  if (needed < digits) needed = digits;
  while (needed > 0) {
    --needed;
    put("0123456789abcdef"[(value >> (4 * needed)) & 15]);
  }
  return *this;
}

TextBuf& TextBuf::uuid(const void* bytes) {
  const auto* at = static_cast<const unsigned char*>(bytes);
  for (uint32_t i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) put('-');
    hex(at[i], 2);
  }
  return *this;
}

uint64_t hash64(const void* data, uint64_t bytes) {
  const uint8_t* at = static_cast<const uint8_t*>(data);
  uint64_t hash = 0xcbf29ce484222325ull;
  for (uint64_t i = 0; i < bytes; ++i) hash = (hash ^ at[i]) * 0x100000001b3ull;
  return hash;
}

bool read_u64(const char** at, const char* end, uint64_t* value) {
  const char* p = *at;
  uint64_t sum = 0;
  for (; p < end && *p >= '0' && *p <= '9'; ++p) {
    uint64_t digit = static_cast<uint64_t>(*p - '0');
    if (sum > (UINT64_MAX - digit) / 10) return false;
    sum = sum * 10 + digit;
  }
  if (p == *at) return false;
  *at = p;
  *value = sum;
  return true;
}

bool read_hex(const char** at, const char* end, uint64_t* value) {
  const char* p = *at;
  uint64_t sum = 0;
  for (; p < end; ++p) {
    uint64_t digit;
    if (*p >= '0' && *p <= '9') {
      digit = static_cast<uint64_t>(*p - '0');
    } else if (*p >= 'a' && *p <= 'f') {
      digit = static_cast<uint64_t>(*p - 'a') + 10;
    } else if (*p >= 'A' && *p <= 'F') {
      digit = static_cast<uint64_t>(*p - 'A') + 10;
    } else {
      break;
    }
    if (sum >> 60 != 0) return false;
    sum = sum << 4 | digit;
  }
  if (p == *at) return false;
  *at = p;
  *value = sum;
  return true;
}

}  // namespace allot
