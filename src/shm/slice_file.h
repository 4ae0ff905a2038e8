// Create, attach, check and clear the files of the node region.
//
// The folder, in this order: ALLOT_DIR; /run/allot where root has made it (setgid group, sticky: all
// users of the machine see each other, each may change only his own slices); else a folder of the
// user, /dev/shm/allot-<uid>, made 0700. A folder or file that is a link, or belongs to somebody it
// should not belong to, is refused, not followed.
//
// Who does what:   `allot run`       create_slice, find_or_add_gpu ... remove_slice at the end
//                  a program (shim)  join_slice or join_or_create, find_or_add_gpu, core::Ledger
//                  `allot ps`        list_slices, open_slice read-only (a copy; nothing to fear)
//                  `allot set`       open_slice for writing, core::Ledger::set_limit
//
// Nothing here leaves a descriptor open, changes errno or calls malloc. Unless a function says
// otherwise: any thread; blocks only on the file system; paths are closed by NUL.
#pragma once

#include <cstddef>
#include <cstdint>

#include "abi/region.h"
#include "base/result.h"
#include "core/ledger.h"

namespace allot::shm {

inline constexpr size_t kPathBytes = 512;

// The region folder of this process: writes its path to `out` (kPathBytes). `dir` overrides (the
// value of ALLOT_DIR, may be null). With `create`, makes the user's own folder (or `dir`, not its
// parents) if it is missing, mode 0700.
// Errors: kNotFound, kNoPermission (a link, owned by somebody else than the user or root, or writable
// by others without the sticky bit), kBadValue (path too long or relative).
Result<void> region_folder(const char* dir, bool create, char* out);

// True for a usable slice name: 1 to 63 of [A-Za-z0-9._-], first not '.' or '-'.
bool valid_name(const char* name);

// Writes `<folder>/<name>.slice` to `out` (kPathBytes). Errors: kBadValue (name, or too long).
Result<void> slice_path(const char* folder, const char* name, char* out);

struct NewSlice {
  const char* name;
  uint32_t flags;        // ALLOT_SLICE_*
  int32_t launcher_pid;  // 0 = none
  uint32_t priority;
  uint32_t level;
};

// A mapped slice file. Trivially destructible on purpose: guests keep it until the process ends;
// others call unmap().
struct Slice {
  AllotSliceFile* file = nullptr;
  bool writable = false;   // the file itself; else a private copy from the moment of opening
  uint32_t owner_uid = 0;  // of the file, as the file system says
  explicit operator bool() const { return file != nullptr; }
};

// Makes `<folder>/<name>.slice`, complete before it gets its name, so nobody ever sees half a file.
// A stale file of that name (earlier boot, damaged, or nobody alive in it) is replaced; of several
// who try at once exactly one wins. With launcher_pid 0 and no slot taken the new slice is itself
// stale at once: programs without a launcher use join_or_create.
// Space: header, GPUs, slot words and exports (72 KiB) are allocated now, slots when they are taken,
// so a full file system is an error here or in join_slice and never SIGBUS.
// Errors: kExists (name in use), kBadValue (name; launcher not alive), kNoPermission (the name is
// somebody else's, or the folder not ours to write), kFull (no space), kNotFound (folder), kSystem.
Result<Slice> create_slice(const char* folder, const NewSlice& slice);

// Opens an existing slice file after checking owner, size, magic, version, boot and every count in
// it. For writing: maps the file; it must belong to the user (root may open any). For reading: copies
// it, so that whatever its owner does to it later (truncate it, say) cannot hurt the reader.
// Errors: kNotFound (also: of an earlier boot), kNoPermission, kWrongVersion, kDamaged, kSystem.
Result<Slice> open_slice(const char* path, bool writable);

// Takes the mapping away; the Slice is empty then.
void unmap(Slice& slice);

// Removes the file; kExists while a live process that is not `except_pid` stands in it.
// Other errors: kNotFound, kNoPermission, kSystem. Files that are damaged or of another version or
// boot are removed too.
Result<void> remove_slice(const char* path, uint32_t except_pid);

// A slice with a slot of the calling process in it.
struct Joined {
  Slice slice;
  core::SlotId slot;
};

// Opens `path` for writing, ends the slots of dead processes, and takes a slot for the calling
// process (a slot of an earlier image of it is ended first).
// Errors: as open_slice; kNotFound also when the slice is just being removed; kFull (4096 live
// processes, or no space on the file system).
// One thread a process.
Result<Joined> join_slice(const char* path);

// Joins `<folder>/<name>.slice` if somebody stands in it, or makes it anew (with a slot of the calling
// process already in it, so that nobody takes it for stale). `slice.launcher_pid` should be 0.
// Errors: as create_slice and join_slice. One thread a process.
Result<Joined> join_or_create(const char* folder, const NewSlice& slice);

// Ends the slots of dead processes and returns their charges; returns how many. For any process that
// has the slice open for writing. Reads /proc once for each slot in use.
uint32_t reclaim_dead(Slice& slice);

// Says that the process of `slot` is about to call exec (true) or that exec failed (false).
// While it is set, the slot counts as alive only as long as the process maps the slice file. Does
// nothing in a child of vfork, whose exec is not the slot's.
// Signal-safe.
void set_execing(Slice& slice, core::SlotId slot, bool execing);

// Finds the GPU with this uuid, or adds it with `limit_bytes` and `physical_bytes` (both > 0). The
// limit of one that is there already stays. Returns its index.
// Errors: kFull (16 GPUs), kBadValue (uuid or numbers all zero). Any process of the slice, any
// thread; lock-free; several may add the same GPU at once and get one entry.
Result<uint32_t> find_or_add_gpu(Slice& slice, const uint8_t uuid[16], uint64_t limit_bytes,
                                 uint64_t physical_bytes);

// core::AliveFn over /proc: pid exists, has not ended (zombies have) and its start time is the slot's;
// a slot marked execing is alive only while the process still maps the slice file. A process of
// another pid namespace, or one that may not be looked at, cannot be asked and counts as alive.
// `context` is the address of a mapping of the slice file (AllotSliceFile*), or null: then execing
// slots are judged by pid and start time alone.
bool process_alive(void* context, uint32_t pid, const AllotSlot& slot);

// True if the launcher or any process of the slice is alive; `except_pid` (0 = none) does not count.
bool slice_in_use(const Slice& slice, uint32_t except_pid = 0);

// Calls `visit(context, path)` for every slice file in `folder`. Returns how many; 0 also when the
// folder cannot be read.
uint32_t list_slices(const char* folder, void (*visit)(void* context, const char* path),
                     void* context);

// Finds the slice of this user in which `pid` or the nearest of its ancestors stands, as launcher or in a live
// slot; writes its path to `out` (kPathBytes). For processes that lost their environment.
// Errors: kNotFound.
Result<void> find_slice_of_ancestors(const char* folder, uint32_t pid, char* out);

// Finds a slice of this user in use that is marked ALLOT_SLICE_DEFAULT. Errors: kNotFound.
Result<void> find_default_slice(const char* folder, char* out);

// Memory offered to other processes of the slice. `hash` (not 0) stands for the handle.
// add_export: kFull when the part of the table where it belongs is taken; kBadValue for 0.
// find_export: whether a live slot offers it. drop_exports: those of one slot; drop_export: one.
// Any process of the slice, any thread; lock-free; find_export also on a read-only copy.
Result<void> add_export(Slice& slice, uint64_t hash, core::SlotId slot);
bool find_export(const Slice& slice, uint64_t hash);
void drop_export(Slice& slice, uint64_t hash, core::SlotId slot);
void drop_exports(Slice& slice, core::SlotId slot);

}  // namespace allot::shm
