// Sharded open addressing with backward-shift deletion: it leaves no tombstones, so after millions
// of blocks a table is as fast as a fresh one.
#include "shim/process/pointer_table.h"

#include "sys/file.h"

namespace allot::shim {
namespace {

constexpr uint32_t kFirstCapacity = 128;  // one page a shard

}  // namespace

Entry* PointerTable::Shard::look_up(Tag tag, uint64_t key) {
  const uint32_t mask = capacity - 1;
  for (uint32_t i = static_cast<uint32_t>(mix(tag, key)) & mask;; i = (i + 1) & mask) {
    Entry& e = slots[i];
    if (e.tag == Tag::kNone) return nullptr;
    if (e.key == key && e.tag == tag) return &e;
  }
}

void PointerTable::Shard::insert(const Entry& entry) {
  const uint32_t mask = capacity - 1;
  uint32_t i = static_cast<uint32_t>(mix(entry.tag, entry.key)) & mask;
  while (slots[i].tag != Tag::kNone) i = (i + 1) & mask;
  slots[i] = entry;
  ++used;
}

void PointerTable::Shard::erase(Entry* at) {
  const uint32_t mask = capacity - 1;
  uint32_t hole = static_cast<uint32_t>(at - slots);
  for (uint32_t i = (hole + 1) & mask; slots[i].tag != Tag::kNone; i = (i + 1) & mask) {
    const uint32_t home = static_cast<uint32_t>(mix(slots[i].tag, slots[i].key)) & mask;
    // Move back only an entry that does not land before its home position.
    if (((i - home) & mask) >= ((i - hole) & mask)) {
      slots[hole] = slots[i];
      hole = i;
    }
  }
  slots[hole].tag = Tag::kNone;
  --used;
}

bool PointerTable::Shard::grow() {
  const uint32_t wider = capacity ? capacity * 2 : kFirstCapacity;
  const Result<void*> memory = sys::map_memory(uint64_t{wider} * sizeof(Entry));
  if (!memory) return false;
  Entry* old = slots;
  const uint32_t old_capacity = capacity;
  slots = static_cast<Entry*>(*memory);
  capacity = wider;
  used = 0;
  for (uint32_t i = 0; i < old_capacity; ++i) {
    if (old[i].tag != Tag::kNone) insert(old[i]);
  }
  if (old != nullptr) sys::unmap(old, uint64_t{old_capacity} * sizeof(Entry));
  return true;
}

bool PointerTable::Shard::add(const Entry& entry) {
  if (slots == nullptr || (used + 1) * 4 > capacity * 3) {
    if (!grow()) return false;
  }
  insert(entry);
  return true;
}

bool PointerTable::put(const Entry& entry) {
  Shard& shard = shard_of(entry.tag, entry.key);
  shard.lock();
  Entry* there = shard.slots ? shard.look_up(entry.tag, entry.key) : nullptr;
  bool ok = true;
  if (there != nullptr) {
    *there = entry;
  } else {
    ok = shard.add(entry);
  }
  shard.unlock();
  return ok;
}

bool PointerTable::take(Tag tag, uint64_t key, Entry* out) {
  return update(tag, key, [out](Entry& e) {
    *out = e;
    return false;
  });
}

bool PointerTable::find(Tag tag, uint64_t key, Entry* out) {
  return update(tag, key, [out](Entry& e) {
    *out = e;
    return true;
  });
}

void PointerTable::abandon() {
  for (Shard& shard : shards_) {
    shard.slots = nullptr;
    shard.capacity = 0;
    shard.used = 0;
    shard.scan = 0;
    shard.guard.abandon();
  }
}

uint64_t PointerTable::size() const {
  uint64_t sum = 0;
  for (const Shard& shard : shards_) sum += shard.used;
  return sum;
}

}  // namespace allot::shim
