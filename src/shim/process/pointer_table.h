// What this process holds, by address or handle: the table behind every free, in O(1).
//
// 64 shards, each an open-addressing array with linear probing in memory of its own (mmap), doubled
// when it is 3/4 full. A spin lock guards each shard; it is held for a few dozen instructions and
// never across a call into the driver, and a thread that cannot get it yields. One table holds
// every kind of object, told apart by Tag, because all of them live and end in the same way.
//
// What must not happen here: a lock held while the driver runs, malloc, or use in a forked child
// (the parent's thread may have held a lock): abandon() first.
#pragma once

#include <cstdint>

#include "abi/region.h"
#include "shim/process/spin.h"

namespace allot::shim {

enum class Tag : uint8_t {
  kNone = 0,
  kPointer,     // key: device pointer
  kSlab,        // key: address >> 21; count: live small blocks in it; extra: place of its bits
  kArray,       // key: CUarray or CUmipmappedArray
  kObject,      // key: serial of a VMM allocation; count: its handle references and mappings
  kHandle,      // key: CUmemGenericAllocationHandle; owner: serial
  kMapping,     // key: virtual address; owner: serial; bytes: size of the mapping
  kExec,        // key: CUgraphExec; owner: mask of devices with alloc nodes
  kExecDevice,  // key: exec and device; bytes: bound; count: trim generation of the last launch
  kExternal,    // key: CUexternalMemory
  kGreen,       // key: CUgreenCtx; owner: its device
  kContext,     // key: CUcontext; owner: its device; count: how often it was made and attached
  kPool,        // key: CUmemoryPool; extra: its place among the pools
  kOffer,       // key: base of a block + n; owner: hash of its nth handle; count: of them
};

struct Entry {
  uint64_t key;
  uint64_t owner;  // the context that it ends with, if any; else see Tag
  uint64_t bytes;  // charged for this entry; 0 for small blocks (their slab is charged)
  uint32_t count;
  uint16_t extra;  // small flags, a pool's index, or see Tag
  Tag tag;
  uint8_t gpu_kind;  // region GPU in the high, AllotKind in the low 4 bits
  uint32_t gpu() const { return gpu_kind >> 4; }
  AllotKind kind() const { return static_cast<AllotKind>(gpu_kind & 15); }
  static uint8_t pack(uint32_t gpu, AllotKind kind) {
    return static_cast<uint8_t>(gpu << 4 | static_cast<uint32_t>(kind));
  }
};
static_assert(sizeof(Entry) == 32);

class PointerTable {
 public:
  // Adds or replaces an entry. False when there is no memory to grow; the entry is not there then.
  // Any thread; may call mmap; waits only for other threads of this process.
  bool put(const Entry& entry);

  // take removes an entry and returns it; find copies it. False when it is not there.
  bool take(Tag tag, uint64_t key, Entry* out);
  bool find(Tag tag, uint64_t key, Entry* out);

  // If the entry is there, calls change(entry) under the shard's lock, and removes the entry when
  // change returns false. `change` must not use the table. Returns whether the entry was there.
  template <class Change>
  bool update(Tag tag, uint64_t key, Change change) {
    Shard& shard = shard_of(tag, key);
    shard.lock();
    Entry* at = shard.slots ? shard.look_up(tag, key) : nullptr;
    const bool there = at != nullptr;
    if (there && !change(*at)) shard.erase(at);
    shard.unlock();
    return there;
  }

  // If the entry is there, calls change(entry) under the shard's lock and returns true; otherwise
  // adds `fresh` and returns false. *ok becomes false when `fresh` could not be added.
  template <class Change>
  bool put_or_update(const Entry& fresh, Change change, bool* ok) {
    Shard& shard = shard_of(fresh.tag, fresh.key);
    shard.lock();
    Entry* at = shard.slots ? shard.look_up(fresh.tag, fresh.key) : nullptr;
    const bool there = at != nullptr;
    if (there) {
      change(*at);
    } else {
      *ok = shard.add(fresh);
    }
    shard.unlock();
    return there;
  }

  // Removes every entry for which match(entry) is true and calls visit(entry) outside the lock.
  // O(size); for the end of a context.
  template <class Match, class Visit>
  void drop(Match match, Visit visit) {
    for (Shard& shard : shards_) {
      for (;;) {
        Entry found;
        shard.lock();
        Entry* at = shard.first(match);
        if (at != nullptr) {
          found = *at;
          shard.erase(at);
        }
        shard.unlock();
        if (at == nullptr) break;
        visit(found);
      }
    }
  }

  // Forgets everything without touching locks that may be held: for a forked child only.
  void abandon();

  // Entries in the table, for tests. Not a snapshot.
  uint64_t size() const;

 private:
  static constexpr uint32_t kShards = 64;

  struct alignas(64) Shard {
    SpinLock guard;
    uint32_t capacity = 0;  // power of two
    uint32_t used = 0;
    uint32_t scan = 0;  // where first() continues, so that drop() is linear
    Entry* slots = nullptr;

    void lock() { guard.lock(); }
    void unlock() { guard.unlock(); }
    Entry* look_up(Tag tag, uint64_t key);
    bool add(const Entry& entry);
    void insert(const Entry& entry);
    void erase(Entry* at);
    bool grow();
    template <class Match>
    Entry* first(Match match) {
      for (uint32_t seen = 0; seen < capacity; ++seen, ++scan) {
        Entry& e = slots[scan & (capacity - 1)];
        if (e.tag != Tag::kNone && match(static_cast<const Entry&>(e))) return &e;
      }
      return nullptr;
    }
  };

  static uint64_t mix(Tag tag, uint64_t key) {
    uint64_t x = (key + static_cast<uint64_t>(tag)) * 0x9E3779B97F4A7C15ull;
    return x ^ (x >> 29);
  }
  Shard& shard_of(Tag tag, uint64_t key) { return shards_[mix(tag, key) >> 58]; }

  Shard shards_[kShards];
};

}  // namespace allot::shim
