// Mask: a set of CPUs or of memory nodes, and the kernel's list format for it ("0-3,6").
//
// The model compares what it says with what a kernel prints, so the parser accepts and refuses
// exactly what the kernel's list parser does: "N" for the last bit, "all", "0-7:1/2" for the first
// of each two, empty regions, white space between them. The size is fixed (1024 bits) so that a
// mask is a value without an allocation. What must not happen here: a rule about CPUs; a mask only
// knows numbers.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace allot::model {

class Mask {
 public:
  static constexpr int kBits = 1024;

  constexpr Mask() = default;
  constexpr Mask(std::initializer_list<int> bits) {
    for (int bit : bits) set(bit);
  }
  // The bits first..last, both included.
  static constexpr Mask range(int first, int last) {
    Mask mask;
    for (int bit = first; bit <= last; ++bit) mask.set(bit);
    return mask;
  }

  constexpr void set(int bit) { word(bit) |= one(bit); }
  constexpr void clear(int bit) { word(bit) &= ~one(bit); }
  constexpr bool test(int bit) const {
    return bit >= 0 && bit < kBits && (words_[index(bit)] & one(bit));
  }

  constexpr bool empty() const { return *this == Mask(); }
  constexpr int count() const {
    int total = 0;
    for (uint64_t w : words_) total += std::popcount(w);
    return total;
  }
  // The lowest bit above `after`, or -1.
  constexpr int next(int after) const {
    for (int bit = after + 1; bit < kBits; ++bit) {
      uint64_t rest = words_[index(bit)] >> (bit % 64);
      if (rest != 0) return bit + std::countr_zero(rest);
      bit |= 63;
    }
    return -1;
  }
  constexpr int first() const { return next(-1); }
  constexpr bool subset_of(const Mask& other) const { return (*this - other).empty(); }
  constexpr bool intersects(const Mask& other) const { return !(*this & other).empty(); }

  friend constexpr Mask operator&(Mask a, const Mask& b) {
    for (size_t i = 0; i < a.words_.size(); ++i) a.words_[i] &= b.words_[i];
    return a;
  }
  friend constexpr Mask operator|(Mask a, const Mask& b) {
    for (size_t i = 0; i < a.words_.size(); ++i) a.words_[i] |= b.words_[i];
    return a;
  }
  friend constexpr Mask operator-(Mask a, const Mask& b) {
    for (size_t i = 0; i < a.words_.size(); ++i) a.words_[i] &= ~b.words_[i];
    return a;
  }
  friend constexpr bool operator==(const Mask&, const Mask&) = default;

  // "0-3,6", "" when empty: what the kernel prints with %*pbl.
  std::string list() const;

 private:
  static constexpr size_t index(int bit) { return static_cast<size_t>(bit) / 64; }
  static constexpr uint64_t one(int bit) {
    return uint64_t{1} << (static_cast<unsigned>(bit) % 64);
  }
  constexpr uint64_t& word(int bit) { return words_[index(bit)]; }

  std::array<uint64_t, kBits / 64> words_{};
};

// Parses the list format into *mask; bits is the size of the kernel's mask (nr_cpu_ids for CPUs,
// MAX_NUMNODES for nodes). Returns 0 or the kernel's errno: EINVAL for what is no list (also
// "3-1"), ERANGE for a bit outside the mask, EOVERFLOW for a number beyond 32 bits. *mask is then
// undefined. Mirrors bitmap_parselist() of 6.1 and 6.12.
int parse_list(std::string_view text, int bits, Mask* mask);

}  // namespace allot::model
