// Sets of CPUs: see cpu_set.h. Lists are parsed by the kernel model's parser, so that there is one.
#include "cpus/cpu_set.h"

namespace allot::cpus {

CpuSet CpuSet::range(int first, int last) {
  CpuSet set;
  for (int cpu = first; cpu <= last; ++cpu) set.add(cpu);
  return set;
}

int CpuSet::count() const {
  int n = 0;
  for (uint64_t word : words_) n += std::popcount(word);
  return n;
}

bool CpuSet::empty() const {
  for (uint64_t word : words_) {
    if (word != 0) return false;
  }
  return true;
}

int CpuSet::last() const {
  for (size_t i = words_.size(); i-- > 0;) {
    if (words_[i] != 0) return static_cast<int>(i) * 64 + 63 - std::countl_zero(words_[i]);
  }
  return -1;
}

int CpuSet::next(int cpu) const {
  int from = cpu < 0 ? 0 : cpu + 1;
  for (int i = from / 64; i < static_cast<int>(words_.size()); ++i) {
    uint64_t word = words_[i];
    if (i == from / 64) word &= ~uint64_t{0} << (from % 64);
    if (word != 0) return i * 64 + std::countr_zero(word);
  }
  return -1;
}

CpuSet& CpuSet::operator|=(const CpuSet& other) {
  for (size_t i = 0; i < words_.size(); ++i) words_[i] |= other.words_[i];
  return *this;
}

CpuSet& CpuSet::operator&=(const CpuSet& other) {
  for (size_t i = 0; i < words_.size(); ++i) words_[i] &= other.words_[i];
  return *this;
}

CpuSet& CpuSet::operator-=(const CpuSet& other) {
  for (size_t i = 0; i < words_.size(); ++i) words_[i] &= ~other.words_[i];
  return *this;
}

std::vector<int> CpuSet::to_vector() const {
  std::vector<int> out;
  for (int cpu = first(); cpu >= 0; cpu = next(cpu)) out.push_back(cpu);
  return out;
}

std::string to_list(const CpuSet& set) {
  std::string out;
  for (int cpu = set.first(); cpu >= 0;) {
    int end = cpu;
    while (set.has(end + 1)) ++end;
    if (!out.empty()) out += ',';
    out += std::to_string(cpu);
    if (end > cpu) out += '-' + std::to_string(end);
    cpu = set.next(end);
  }
  return out;
}

model::Mask to_mask(const CpuSet& set) {
  model::Mask mask;
  for (int cpu = set.first(); cpu >= 0; cpu = set.next(cpu)) mask.set(cpu);
  return mask;
}

CpuSet from_mask(const model::Mask& mask) {
  CpuSet set;
  for (int cpu = mask.first(); cpu >= 0; cpu = mask.next(cpu)) set.add(cpu);
  return set;
}

Result<CpuSet> parse_list(std::string_view text, int limit) {
  model::Mask mask;
  if (int error = model::parse_list(text, limit, &mask)) return fail(Errc::kBadValue, error);
  return from_mask(mask);
}

}  // namespace allot::cpus
