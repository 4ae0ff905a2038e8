// Does to a slice file of arbitrary content everything that allot ever does to one. For the tests
// and the fuzzer; not part of the product.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "shm/living.h"
#include "shm/slice_file.h"

namespace allot::shm {

// Stops the program when something that must hold does not.
inline void must(bool holds) {
  if (!holds) std::abort();
}

inline void look_at(const Slice& slice) {
  const core::Ledger ledger(slice.file);
  Living living(slice);
  (void)living.launcher();
  for (uint32_t gpu = 0; gpu <= ALLOT_MAX_GPUS; ++gpu) {
    const core::Ledger::View view = ledger.view(gpu, uint64_t{80} << 30, uint64_t{70} << 30);
    must(view.total_bytes <= uint64_t{80} << 30 && view.free_bytes <= uint64_t{70} << 30);
    (void)ledger.used_by_living(gpu, Living::alive, &living);
  }
  (void)ledger.find_slot(1, 1, 1);
  (void)slice_in_use(slice);
  for (uint64_t hash : {uint64_t{0}, uint64_t{1}, UINT64_MAX, slice.file->exports[7].handle_hash}) {
    (void)find_export(slice, hash);
  }
}

inline void work_in(Joined& joined) {
  Slice& slice = joined.slice;
  core::Ledger ledger(slice.file);
  const uint8_t uuid[16] = {1, 2, 3};
  auto gpu = find_or_add_gpu(slice, uuid, uint64_t{8} << 30, uint64_t{80} << 30);
  must(!gpu || *gpu < ALLOT_MAX_GPUS);
  for (uint32_t g = 0; g < ALLOT_MAX_GPUS; ++g) {
    (void)ledger.recount(g);
    must(ledger.used(g) == ledger.used_by_living(g, nullptr, nullptr));
    const uint64_t before = ledger.used(g);
    if (ledger.reserve(joined.slot, g, ALLOT_KIND_VMM, 4096)) {
      must(ledger.used(g) == before + 4096 && ledger.used(g) <= ledger.limit(g));
      ledger.release(joined.slot, g, ALLOT_KIND_VMM, 4096);
      must(ledger.used(g) == before);
    }
    ledger.charge(joined.slot, g, ALLOT_KIND_DRIVER, UINT64_MAX);
    ledger.release(joined.slot, g, ALLOT_KIND_DRIVER, UINT64_MAX);
  }
  (void)add_export(slice, 99, joined.slot);
  drop_exports(slice, joined.slot);
  set_execing(slice, joined.slot, true);
  set_execing(slice, joined.slot, false);
  reclaim_dead(slice);
  must(ledger.live(joined.slot));
  ledger.end_slot(joined.slot);
}

inline void handle_hostile(const char* folder, const char* path, const char* name) {
  if (auto look = open_slice(path, false)) {
    look_at(*look);
    unmap(*look);
  }
  char found[kPathBytes];
  (void)find_slice_of_ancestors(folder, 1, found);
  (void)find_default_slice(folder, found);
  if (auto joined = join_slice(path)) {
    work_in(*joined);
    unmap(joined->slice);
  }
  const NewSlice fresh{name, 0, 0, 0, 0};
  if (auto made = create_slice(folder, fresh)) unmap(*made);
  (void)remove_slice(path, 0);
}

}  // namespace allot::shm
