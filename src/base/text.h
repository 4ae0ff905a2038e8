// Bounded text into a caller's buffer, for code that runs inside somebody else's process.
//
// Guest code may use neither stdio (locks, locale, malloc) nor std::string. A TextBuf appends what
// fits, always ends with NUL, and remembers whether it cut something, so that nobody opens a path
// that did not fit.
#pragma once

#include <cstdint>
#include <string_view>

namespace allot {

// Any thread (one at a time for one buffer), signal-safe, neither allocates nor blocks.
class TextBuf {
 public:
  // `size` counts the closing NUL; with 0 nothing is ever written.
  TextBuf(char* out, uint32_t size) : out_(out), size_(size) {
    if (size_ > 0) out_[0] = '\0';
  }

  TextBuf& text(std::string_view s);
  TextBuf& put(char c);
  TextBuf& u64(uint64_t value);                       // decimal
  TextBuf& i64(int64_t value);                        // decimal
  TextBuf& hex(uint64_t value, uint32_t digits = 1);  // lower case, at least `digits` (1 to 16)
  TextBuf& uuid(const void* bytes);                   // of 16 bytes, in groups of 8-4-4-4-12 digits

  uint32_t length() const { return length_; }  // without the NUL
  bool cut() const { return cut_; }            // something did not fit
  std::string_view view() const { return {out_, length_}; }

 private:
  char* out_;
  uint32_t size_;
  uint32_t length_ = 0;
  bool cut_ = false;
};

// FNV-1a, 64 bit: names a slice after a path, spreads handles over a table. Not for security.
uint64_t hash64(const void* data, uint64_t bytes);

// Reads a decimal number at `*at` and moves `*at` past it. False, with `*at` unchanged, where there
// is no digit or the number is above 2^64-1. Any thread, signal-safe.
bool read_u64(const char** at, const char* end, uint64_t* value);

// The same for hexadecimal digits without a prefix.
bool read_hex(const char** at, const char* end, uint64_t* value);

}  // namespace allot
