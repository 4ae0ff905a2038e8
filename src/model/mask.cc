// The kernel's list format, read and printed. See mask.h.
#include "model/mask.h"

#include <cerrno>
#include <limits>

namespace allot::model {
namespace {

bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}
bool ends_text(char c) {
  return c == '\0' || c == '\n';
}
bool ends_region(char c) {
  return is_space(c) || c == ',' || ends_text(c);
}

// One region "first-last:used/group". Numbers are 32 bits wide and wrap like the kernel's.
struct Region {
  uint32_t first = 0;
  uint32_t last = 0;
  uint32_t used = 0;
  uint32_t group = 0;
};

class Parser {
 public:
  Parser(std::string_view text, int bits) : text_(text), bits_(static_cast<uint32_t>(bits)) {}

  int parse(Mask* mask) {
    *mask = Mask();
    while (true) {
      while (is_space(peek()) || peek() == ',') ++at_;
      if (ends_text(peek())) return 0;
      Region region;
      bool last_region = false;
      if (int err = parse_region(&region, &last_region)) return err;
      if (region.first > region.last || region.group == 0 || region.used > region.group)
        return EINVAL;
      if (region.last >= bits_ || region.last >= Mask::kBits) return ERANGE;
      for (uint32_t bit = region.first; bit <= region.last; ++bit) {
        if ((bit - region.first) % region.group < region.used) mask->set(static_cast<int>(bit));
      }
      if (last_region) return 0;
    }
  }

 private:
  char peek(size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
  }

  bool take_all() {
    for (size_t i = 0; i < 3; ++i) {
      if ((peek(i) | 0x20) != "all"[i]) return false;
    }
    at_ += 3;
    return true;
  }

  int parse_number(uint32_t* number) {
    if (peek() == 'N') {
      ++at_;
      *number = bits_ - 1;
      return 0;
    }
    if (peek() < '0' || peek() > '9') return EINVAL;
    uint64_t value = 0;
    bool overflow = false;
    for (; peek() >= '0' && peek() <= '9'; ++at_) {
      value = value * 10 + static_cast<uint64_t>(peek() - '0');
      if (value > std::numeric_limits<uint32_t>::max()) {
        overflow = true;
        value = 0;
      }
    }
    *number = static_cast<uint32_t>(value);
    return overflow ? EOVERFLOW : 0;
  }

  int parse_region(Region* region, bool* last_region) {
    if (take_all()) {
      region->last = bits_ - 1;
    } else {
      if (int err = parse_number(&region->first)) return err;
      if (ends_region(peek())) {
        region->last = region->first;
      } else {
        if (peek() != '-') return EINVAL;
        ++at_;
        if (int err = parse_number(&region->last)) return err;
      }
    }
    if (ends_region(peek())) {
      // Wraps to 0 for 2^32-1, which is then refused as EINVAL, not ERANGE: so does the kernel.
      region->used = region->group = region->last + 1;
      *last_region = ends_text(peek());
      return 0;
    }
    if (peek() != ':') return EINVAL;
    ++at_;
    if (int err = parse_number(&region->used)) return err;
    if (peek() != '/') return EINVAL;
    ++at_;
    return parse_number(&region->group);
  }

  std::string_view text_;
  uint32_t bits_;
  size_t at_ = 0;
};

}  // namespace

std::string Mask::list() const {
  std::string text;
  for (int first = next(-1); first >= 0;) {
    int last = first;
    while (test(last + 1)) ++last;
    if (!text.empty()) text += ',';
    text += std::to_string(first);
    if (last > first) {
      text += '-';
      text += std::to_string(last);
    }
    first = next(last);
  }
  return text;
}

int parse_list(std::string_view text, int bits, Mask* mask) {
  return Parser(text, bits).parse(mask);
}

}  // namespace allot::model
