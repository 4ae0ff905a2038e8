// Lookups in the generated tables: open addressing over FNV-1a, which tools/gen_driver.py computes
// in the same way. Every array is constant, so loading the library builds nothing.
#include "driver/entries.h"

namespace allot::driver {
namespace {

#include "driver/cuda_table.inc"
#include "driver/nvml_table.inc"

constexpr Table kCuda(kCudaEntries, kCudaBySymbol, kCudaByName, kCudaNames, kCudaNameOrder);
constexpr Table kNvml(kNvmlEntries, kNvmlBySymbol, kNvmlByName, kNvmlNames, kNvmlNameOrder);

uint32_t hash_text(const char* text) {
  uint32_t value = 2166136261u;
  for (; *text != '\0'; ++text) {
    value = (value ^ static_cast<unsigned char>(*text)) * 16777619u;
  }
  return value;
}

// Our own comparison: strcmp may be an IFUNC that is not resolved yet when another library's
// constructor calls a stub.
bool same_text(const char* a, const char* b) {
  while (*a != '\0' && *a == *b) {
    ++a;
    ++b;
  }
  return *a == *b;
}

// Position of `text` among the keys of `slots`, or -1. `key` gives the text at a position. The
// table is at most half full, so the search ends.
template <class Key>
int probe(std::span<const uint16_t> slots, const char* text, Key key) {
  const size_t mask = slots.size() - 1;
  for (size_t at = hash_text(text) & mask; slots[at] != 0; at = (at + 1) & mask) {
    const int position = slots[at] - 1;
    if (same_text(key(position), text)) return position;
  }
  return -1;
}

}  // namespace

const Table& cuda() {
  return kCuda;
}
const Table& nvml() {
  return kNvml;
}

const Entry* Table::find_by_symbol(const char* symbol) const {
  if (symbol == nullptr) return nullptr;
  const int at = probe(by_symbol_, symbol, [this](int i) { return entries_[i].symbol; });
  return at < 0 ? nullptr : &entries_[at];
}

std::span<const uint16_t> Table::group_of(const char* name) const {
  if (name == nullptr) return {};
  const int at =
      probe(by_name_, name, [this](int i) { return entries_[name_order_[names_[i].first]].name; });
  if (at < 0) return {};
  return name_order_.subspan(names_[at].first, names_[at].count);
}

const Entry* Table::find_by_name(const char* name, int version, bool per_thread) const {
  const std::span<const uint16_t> group = group_of(name);
  const Entry* legacy = nullptr;
  const Entry* threaded = nullptr;
  for (const uint16_t index : group) {
    const Entry& entry = entries_[index];
    if (entry.since == 0 || entry.since > version) continue;
    (entry.variant == Variant::kNone ? legacy : threaded) = &entry;
  }
  if (per_thread && threaded != nullptr) return threaded;
  if (legacy != nullptr) return legacy;
  if (!group.empty()) return nullptr;
  const Entry* exact = find_by_symbol(name);
  return exact != nullptr && exact->since != 0 && exact->since <= version ? exact : nullptr;
}

bool Table::has_name(const char* name) const {
  return !group_of(name).empty();
}

}  // namespace allot::driver
