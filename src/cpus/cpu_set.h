// CpuSet: a set of CPU numbers (or of memory nodes), and the kernel's list notation for it.
//
// The kernel writes such sets as lists ("0-3,8") and takes a wider notation ("0-15:2/4", "all",
// "N"); parse_list takes all of it, so that a user may type here whatever may be written to a
// cpuset file. The storage is a fixed array: the planner copies sets in its innermost loops, and an
// allocation for each copy would be most of its time.
//
// Must not happen: a number beyond the capacity silently dropped. Every way in checks it.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/mask.h"

namespace allot::cpus {

// More than any machine known today has (2 x 384 threads); 128 bytes a set.
inline constexpr int kMaxCpus = model::Mask::kBits;

class CpuSet {
 public:
  constexpr CpuSet() = default;
  CpuSet(std::initializer_list<int> cpus) {
    for (int cpu : cpus) add(cpu);
  }
  // first..last, both included.
  static CpuSet range(int first, int last);

  // Numbers outside 0..kMaxCpus-1 are ignored by add/remove and never contained.
  constexpr void add(int cpu) {
    if (valid(cpu)) words_[cpu / 64] |= uint64_t{1} << (cpu % 64);
  }
  constexpr void remove(int cpu) {
    if (valid(cpu)) words_[cpu / 64] &= ~(uint64_t{1} << (cpu % 64));
  }
  constexpr bool has(int cpu) const {
    return valid(cpu) && (words_[cpu / 64] >> (cpu % 64) & 1) != 0;
  }
  int count() const;
  bool empty() const;
  // Lowest and highest member, -1 when empty.
  int first() const { return next(-1); }
  int last() const;
  // Lowest member above `cpu`, -1 when there is none: for (c = s.first(); c >= 0; c = s.next(c)).
  int next(int cpu) const;

  bool contains(const CpuSet& other) const { return (other - *this).empty(); }
  bool overlaps(const CpuSet& other) const { return !(*this & other).empty(); }

  CpuSet& operator|=(const CpuSet& other);
  CpuSet& operator&=(const CpuSet& other);
  CpuSet& operator-=(const CpuSet& other);
  friend CpuSet operator|(CpuSet a, const CpuSet& b) { return a |= b; }
  friend CpuSet operator&(CpuSet a, const CpuSet& b) { return a &= b; }
  friend CpuSet operator-(CpuSet a, const CpuSet& b) { return a -= b; }
  bool operator==(const CpuSet&) const = default;

  std::vector<int> to_vector() const;
  // For the affinity calls: kMaxCpus/8 bytes in the kernel's layout.
  const uint64_t* words() const { return words_.data(); }
  uint64_t* words() { return words_.data(); }
  static constexpr size_t bytes() { return kMaxCpus / 8; }

 private:
  static constexpr bool valid(int cpu) { return cpu >= 0 && cpu < kMaxCpus; }
  std::array<uint64_t, kMaxCpus / 64> words_{};
};

// "0-3,8"; "" for the empty set. The form that the kernel's files have.
std::string to_list(const CpuSet& set);

// The set that a list names. `limit` is the number of CPUs that "all" and "N" stand for (N is the
// last one), and beyond which a number is refused; the kernel's word for it is nr_cpu_ids. Blanks
// around the list and empty elements ("0,,1") are taken, as the kernel does; "" is the empty set.
// Errors: kBadValue with EINVAL (not a list, or backwards as in "3-1"), ERANGE (a number of `limit`
// or more) or EOVERFLOW (beyond 32 bits): the errnos that a write to cpuset.cpus has. Any thread;
// does not allocate.
Result<CpuSet> parse_list(std::string_view text, int limit = kMaxCpus);

// The same set as the kernel model knows it.
model::Mask to_mask(const CpuSet& set);
CpuSet from_mask(const model::Mask& mask);

}  // namespace allot::cpus
