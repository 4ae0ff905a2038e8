// The table of offered memory (slice_file.h has the contract). An entry is 16 bytes and only ever
// changes as a whole, so a process killed here leaves either the old entry or the new one. An entry
// whose slot is no longer live is free. Each hash belongs to one window of the table; a search
// reads the whole window, because an entry may vanish anywhere in it.
#include "base/atomic16.h"
#include "core/shared.h"
#include "shm/slice_file.h"

namespace allot::shm {
namespace {

constexpr uint32_t kWindow = 64;

static_assert(sizeof(AllotExport) == 16 && offsetof(AllotSliceFile, exports) % 16 == 0 &&
              offsetof(AllotExport, slot) == 8 && offsetof(AllotExport, slot_generation) == 12);

Pair16 entry_of(uint64_t hash, core::SlotId slot) {
  return {hash, static_cast<uint64_t>(slot.generation) << 32 | slot.index};
}

AllotExport& entry_at(AllotSliceFile* file, uint64_t hash, uint32_t i) {
  return file->exports[(hash + i) % ALLOT_MAX_EXPORTS];
}

// Whether the entry's slot is still the one that wrote it. Its bytes are hostile, so the index is
// checked.
bool live(const AllotSliceFile& file, Pair16 entry) {
  const uint32_t index = static_cast<uint32_t>(entry.high);
  const uint32_t generation = static_cast<uint32_t>(entry.high >> 32);
  if (entry.low == 0 || index >= ALLOT_MAX_SLOTS) return false;
  const uint64_t word = core::load(file.slot_words[index]);
  return ALLOT_SLOT_STATE(word) == ALLOT_SLOT_LIVE && ALLOT_SLOT_GENERATION(word) == generation;
}

}  // namespace

Result<void> add_export(Slice& slice, uint64_t hash, core::SlotId slot) {
  if (hash == 0) return fail(Errc::kBadValue);
  const Pair16 mine = entry_of(hash, slot);
  // Offered already? A program may ask for the same handle twice.
  for (uint32_t i = 0; i < kWindow; ++i) {
    Pair16 seen = peek16(&entry_at(slice.file, hash, i));
    if (seen.low == mine.low && seen.high == mine.high) return {};
  }
  for (uint32_t i = 0; i < kWindow; ++i) {
    AllotExport& entry = entry_at(slice.file, hash, i);
    Pair16 seen = peek16(&entry);
    while (!live(*slice.file, seen)) {
      if (cas16(&entry, seen, mine)) return {};
    }
  }
  return fail(Errc::kFull);
}

bool find_export(const Slice& slice, uint64_t hash) {
  if (hash == 0) return false;
  for (uint32_t i = 0; i < kWindow; ++i) {
    Pair16 seen = peek16(&entry_at(slice.file, hash, i));
    if (seen.low == hash && live(*slice.file, seen)) return true;
  }
  return false;
}

bool find_export_of_other(const Slice& slice, uint64_t hash, core::SlotId own) {
  if (hash == 0) return false;
  const Pair16 mine = entry_of(hash, own);
  for (uint32_t i = 0; i < kWindow; ++i) {
    Pair16 seen = peek16(&entry_at(slice.file, hash, i));
    if (seen.low == hash && seen.high != mine.high && live(*slice.file, seen)) return true;
  }
  return false;
}

void drop_export(Slice& slice, uint64_t hash, core::SlotId slot) {
  const Pair16 mine = entry_of(hash, slot);
  for (uint32_t i = 0; i < kWindow; ++i) {
    Pair16 expected = mine;
    cas16(&entry_at(slice.file, hash, i), expected, Pair16{0, 0});
  }
}

void drop_exports(Slice& slice, core::SlotId slot) {
  for (AllotExport& entry : slice.file->exports) {
    Pair16 seen = peek16(&entry);
    if (seen.low != 0 && seen.high == entry_of(0, slot).high) cas16(&entry, seen, Pair16{0, 0});
  }
}

}  // namespace allot::shm
