// Create, attach, check and clear the files of the node region.
//
// The folder, in this order: ALLOT_DIR; /run/allot where there is one; else a folder of the user,
// /dev/shm/allot-<uid>, created with mode 0700. /run/allot is root's and sticky, so that each user
// may change only their own slices: with mode 1777 it is for all users, who see each other's limits
// and clients and nothing else; with 3770 for a group, whose members see everything. A folder or
// file that is a link, or has the wrong owner, is refused, not followed.
//
// Who does what:   `allot run`       create_slice, find_or_add_gpu ... remove_slice at the end
//                  a program (shim)  join_slice or join_or_create, find_or_add_gpu, core::Ledger
//                  `allot ps`        list_slices, open_slice read-only (a copy; nothing to fear)
//                  `allot set`       open_slice for writing, core::Ledger::set_limit
//
// Nothing here leaves a descriptor open, changes errno or calls malloc. Unless a function says
// otherwise: any thread; blocks only on the file system; paths end with NUL.
#pragma once

#include <cstddef>
#include <cstdint>

#include "abi/region.h"
#include "base/result.h"
#include "core/ledger.h"

namespace allot::shm {

inline constexpr size_t kPathBytes = 512;
#define ALLOT_SYSTEM_FOLDER "/run/allot"

// The region folder of this process: writes its path to `out` (kPathBytes). `dir` overrides (the
// value of ALLOT_DIR, may be null). With `create`, makes the user's own folder (or `dir`, not its
// parents) if it is missing, mode 0700. `out` has the path after kNoPermission, too.
// Errors: kNotFound, kNoPermission (a link, owned by neither the user nor root, or writable by
// others without the sticky bit; /run/allot with another mode than the two above, or its group has
// us not), kBadValue (path too long or relative).
Result<void> region_folder(const char* dir, bool create, char* out);

// Whether `folder` is one for several users, where names of slices must differ between users.
bool is_shared(const char* folder);

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
// other callers use unmap().
struct Slice {
  AllotSliceFile* file = nullptr;
  bool writable = false;
  uint32_t owner_uid = 0;  // of the file, as the file system says
  bool copied = false;     // a private copy from the moment of opening
  bool head_only = false;  // a copy; what the processes hold is not for us to read
  void* lock = nullptr;    // holds the lock of this process's slot (living.h)
  uint64_t device = 0;     // of the file
  uint64_t inode = 0;
  char path[kPathBytes] = {};
  explicit operator bool() const { return file != nullptr; }
};

// Makes `<folder>/<name>.slice`; in a folder of all users also its body (slice_body.h). The file is
// complete before it gets its name, so nobody ever sees half a file. It replaces a stale file of
// that name (of an earlier boot, damaged, or with no live process in it); of several callers at
// once exactly one succeeds. With launcher_pid 0 and no slot taken the new slice is stale at once:
// programs without a launcher use join_or_create. Space: this call allocates header, GPUs, slot
// words and exports (72 KiB), and taking a slot allocates the slot, so a full file system is an
// error here or in join_slice and never SIGBUS.
// Errors: kExists (name in use), kBadValue (name; launcher not alive), kNoPermission (another
// user's name, or a folder that we may not write), kFull (no space), kNotFound (folder), kSystem.
Result<Slice> create_slice(const char* folder, const NewSlice& slice);

// Opens an existing slice file after checking owner, size, magic, version, boot and every count in
// it. For writing it maps the file, which must belong to the user (root may open any). For reading
// it copies the file, so that nothing its owner does later (truncate it, say) can hurt the reader.
// Of another user's slice in a folder of all users it copies the head: `head_only` is set, no slot
// is in use, and clients with a recent heartbeat have their slot word.
// Errors: kNotFound (also: of an earlier boot), kNoPermission, kNotAFile (a link, a pipe),
// kWrongVersion, kDamaged, kSystem.
Result<Slice> open_slice(const char* path, bool writable);

// Unmaps the file and drops the lock of this process's slot; the Slice is empty afterwards.
void unmap(Slice& slice);

// The user's own slice, mapped for reading: seen as it changes. Errors: as open_slice.
Result<Slice> watch_slice(const char* path);

// Removes the file, also one that is damaged or of another version or boot.
// Errors: kExists (a live process other than `except_pid` is in it), kNotFound, kNoPermission,
// kSystem.
Result<void> remove_slice(const char* path, uint32_t except_pid);

// A slice with a slot of the calling process in it.
struct Joined {
  Slice slice;
  core::SlotId slot;
};

// Opens `path` for writing, ends the slots of dead processes, ends the slot of an earlier image of
// the calling process, and takes a slot for it.
// Errors: as open_slice; kNotFound also while the slice is being removed; kFull (4096 live
// processes, or no space on the file system). One thread per process.
Result<Joined> join_slice(const char* path);

// Joins `<folder>/<name>.slice` if a live process is in it; otherwise makes it, with a slot for the
// calling process already in it, so that nobody takes it for stale. `slice.launcher_pid` should be
// 0.
// Errors: as create_slice and join_slice. One thread per process.
Result<Joined> join_or_create(const char* folder, const NewSlice& slice);

// Ends the slots of dead processes and gives back their charges. Returns how many it ended. For any
// process that has the slice open for writing. Reads /proc once for each slot in use.
uint32_t reclaim_dead(Slice& slice);

// Records that the process of `slot` is about to call exec (true) or that exec failed (false).
// Meanwhile the slot counts as alive only as long as the process maps the slice file. Does nothing
// in a child of vfork, because that child calls exec for itself. Signal-safe.
void set_execing(Slice& slice, core::SlotId slot, bool execing);

// Finds the GPU with this UUID, or adds it with `limit_bytes` and `physical_bytes` (both > 0). A
// GPU that is there already keeps its limit. Returns its index.
// Errors: kFull (16 GPUs), kBadValue (UUID or numbers all zero). Any process of the slice, any
// thread; lock-free; callers that add the same GPU at once share one entry.
Result<uint32_t> find_or_add_gpu(Slice& slice, const uint8_t uuid[16], uint64_t limit_bytes,
                                 uint64_t physical_bytes);

// True if the launcher, any process in a slot, or any process that was started in the slice is
// alive; `except_pid` (0 = none) does not count. It reads all of /proc for the last of these alone.
bool slice_in_use(const Slice& slice, uint32_t except_pid = 0);

// Whether the file, of any version, may be in use: a process holds a lock on it, or it cannot be
// opened to see.
bool may_be_in_use(const char* path);

// Removes what creators that were killed have left of this user's: bodies without a head. Returns
// how many.
uint32_t clear_orphans(const char* folder);

// Calls `visit(context, path)` for every slice file in `folder`. Returns how many there are; 0 also
// when it cannot read the folder.
uint32_t list_slices(const char* folder, void (*visit)(void* context, const char* path),
                     void* context);

// The same in parts, with the name and the open folder: begins where `*position` says (0 = at the
// first file) and, when visit returns false, says there where to continue. True when there is
// nothing left, also when the folder cannot be read. Files that come or go between two parts may be
// missed or come twice.
bool list_slices_from(const char* folder, uint64_t* position,
                      bool (*visit)(void* context, int folder_fd, const char* file_name),
                      void* context);

// Finds the slice of this user to which `pid` or its nearest possible ancestor belongs, as launcher
// or in a live slot; writes its path to `out` (kPathBytes). For processes that lost their
// environment.
// Errors: kNotFound.
Result<void> find_slice_of_ancestors(const char* folder, uint32_t pid, char* out);

// Finds a slice of this user in use that is marked ALLOT_SLICE_DEFAULT. Errors: kNotFound.
Result<void> find_default_slice(const char* folder, char* out);

// Memory offered to other processes of the slice; `hash` (not 0) is that of its handle. add_export
// adds an offer: kFull when its window of the table is full, kBadValue for 0. find_export says
// whether a live slot offers it; _of_other, whether one that is not `own` does. drop_exports
// removes all offers of one slot, drop_export one. Any process of the slice, any thread; lock-free;
// find_export also on a read-only copy.
Result<void> add_export(Slice& slice, uint64_t hash, core::SlotId slot);
bool find_export(const Slice& slice, uint64_t hash);
bool find_export_of_other(const Slice& slice, uint64_t hash, core::SlotId own);
void drop_export(Slice& slice, uint64_t hash, core::SlotId slot);
void drop_exports(Slice& slice, core::SlotId slot);

}  // namespace allot::shm
