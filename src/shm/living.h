// Who of a slice is alive, and the locks that say so (docs/adr/0013).
//
// The process of a slot holds a lock on one byte of the slice's file through a mapping of a page
// (sys::lock_byte), so it needs no descriptor that the program could close. The kernel drops the
// lock with the process's memory: at its end, however it ends, and at exec. A forked child does not
// inherit the mapping. Others see the lock from any pid namespace. Where no lock could be taken,
// pid and start time decide, and a process of another namespace counts as alive.
#pragma once

#include <cstdint>

#include "abi/region.h"
#include "base/result.h"
#include "shm/slice_file.h"
#include "sys/file.h"

namespace allot::shm {

// Takes the lock of slot `index` on a new opening of the file `fd` and returns the mapping that
// holds it; drop_slot_lock ends it. Errors: kExists (another process holds it), kUnsupported (also
// where a mapping does not hold it: overlayfs), kSystem. Any thread; a fork by another thread in
// the middle of it may keep the lock alive in that child.
Result<void*> lock_slot(int fd, uint32_t index);
void drop_slot_lock(void* mapping);

// For a launcher: takes the members' lock of a slice that it has just made. Returns a descriptor,
// close-on-exec, that the program must inherit (the caller clears the flag in the child): the slice
// is in use until all copies of it are closed. Errors: as lock_slot, kFull (too many open files).
Result<sys::Fd> hold_slice(Slice& slice);

// Looks at the processes of one slice. The slice stays mapped meanwhile. Opens the file once.
class Living {
 public:
  explicit Living(const Slice& slice);

  // Whether the process of slot `index` still runs our image in it; false for a free slot. One
  // system call, more where the lock does not answer.
  bool slot(uint32_t index) const;

  // Whether the launcher lives; false for a slice without one.
  bool launcher() const;

  // Whether the launcher lives and is `allot run`, not the program that it became (run --exec).
  bool launcher_waits() const;

  // Whether the launcher, or a process that inherited its descriptor, holds the slice.
  bool has_members() const;

  // core::AliveFn; `context` is a Living.
  static bool alive(void* context, uint32_t index, uint32_t pid, const AllotSlot& slot);

 private:
  enum class Lock { kHeld, kFree, kUnknown };
  Lock lock_at(uint64_t offset) const;
  bool judge(Lock lock, uint32_t pid, const AllotSlot& slot) const;

  const Slice& slice_;
  sys::Fd fd_;
};

// In a private copy of a file, in place of ALLOT_HELD_BY_LOCK: what the locks said at that moment.
inline constexpr uint32_t kSeenHeld = 0x100;
inline constexpr uint32_t kSeenFree = 0x101;

// Writes those answers into the private copy `file` of the file open as `fd`.
void note_locks(AllotSliceFile* file, int fd);

// Calls visit(context, pid) for each process of this machine's /proc that was started in the slice:
// its environment names the slice's file, or it holds the launcher's descriptor. Returns false when
// visit did, which ends the walk. Sees no process of another pid namespace that is not below ours,
// and none that we may not inspect. Blocks on /proc; reads a few files for each process.
bool visit_members(const Slice& slice, bool (*visit)(void* context, uint32_t pid), void* context);

}  // namespace allot::shm
