// Files: the Linux file calls that allot needs, returning Result.
//
// Paths are absolute and start at a Root, so that tests can run on folders that look like a
// machine. errno does not change. Every descriptor is close-on-exec and lives only as long as its
// Fd: guest code keeps none, because the host may close all descriptors and reuse their numbers.
// Unless a function says otherwise: any thread, allocates nothing, blocks only on the file system.
#pragma once

#include <fcntl.h>

#include <cstddef>
#include <cstdint>

#include "base/result.h"

namespace allot::sys {

// Where "/" is: the machine's own, or the folder open as `fd`.
struct Root {
  int fd = -1;
};

// An open descriptor, closed at the end of its scope.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Fd& operator=(Fd&& other) noexcept;
  ~Fd() { close(); }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void close();

 private:
  int fd_ = -1;
};

// Errc for an errno: ENOENT, ENOTDIR kNotFound; EACCES, EPERM, EROFS, ELOOP kNoPermission; EEXIST
// kExists; ENOSPC, EDQUOT kFull; EOPNOTSUPP, ENOSYS kUnsupported; else kSystem. A link gives ELOOP
// where it is not followed.
Error error_of(int os_errno);

// open(2) with O_CLOEXEC added. The second form takes a name in an open folder.
// Errors: as error_of.
Result<Fd> open_file(Root root, const char* path, int flags);
Result<Fd> open_at(int folder, const char* name, int flags);

// What stat tells.
struct FileInfo {
  uint64_t device;
  uint64_t inode;
  uint64_t bytes;
  uint32_t mode;  // with the type bits
  uint32_t uid;
  uint32_t gid;
  uint32_t links;
};
Result<FileInfo> info_of(int fd);
Result<FileInfo> info_at(int folder, const char* name);  // of a link itself

// Reads all of a small file into `out`, ending with NUL; returns the length.
// Errors: as error_of; kFull if it does not fit.
Result<uint32_t> read_file(Root root, const char* path, char* out, uint32_t size);

// pread until `bytes` are there or the file ends; returns how many. pwrite of all `bytes`.
Result<uint64_t> read_at(int fd, void* out, uint64_t bytes, uint64_t offset);
Result<void> write_at(int fd, const void* data, uint64_t bytes, uint64_t offset);

// The target of a link, ending with NUL; returns the length.
// Errors: as error_of; kFull.
Result<uint32_t> read_link(Root root, const char* path, char* out, uint32_t size);

// resize sets the size (sparse). allocate reserves the range's space, so that a full file system is
// an error here and not SIGBUS later. Errors of allocate: kFull (no space), kUnsupported (the file
// system cannot reserve).
Result<void> set_size(int fd, uint64_t bytes);
Result<void> allocate(int fd, uint64_t offset, uint64_t bytes);

// Shared mapping of `bytes` from the start of a file; private zeroed memory.
Result<void*> map_file(int fd, uint64_t bytes, bool writable);
Result<void*> map_memory(uint64_t bytes);
// A shared mapping in place of the first `bytes` (whole pages) of a mapping of ours.
Result<void> map_over(void* at, int fd, uint64_t bytes, bool writable);
Result<void> protect_read_only(void* at, uint64_t bytes);
void unmap(void* at, uint64_t bytes);

// A file in `folder` without a name, with exactly this mode; publish gives it a name. Where the
// file system has no O_TMPFILE (or with `named`) it gets a temporary name, which publish and
// discard remove again.
// Errors: as error_of; publish: kExists when the name is taken (nothing is replaced).
class NewFile {
 public:
  static Result<NewFile> create(int folder, uint32_t mode, bool named = false);
  int fd() const { return fd_.get(); }
  Result<void> publish(const char* name);
  void discard();

 private:
  int folder_ = -1;
  Fd fd_;
  char temporary_[48] = {};
};

// unlinkat. Errors: as error_of.
Result<void> remove_at(int folder, const char* name);

// Exclusive flock without waiting; ends with the descriptor.
// Errors: kExists (another holder).
Result<void> lock_now(int fd);

// A lock on one byte of a file, also past its end, without waiting (F_OFD_SETLK). It belongs to the
// open file, not to the process: it ends when the last descriptor *and the last mapping* of that
// opening are gone, so a mapping keeps it after close. Errors: kExists (another opening holds it),
// kUnsupported (no such locks here: Linux before 3.15, gVisor).
Result<void> lock_byte(int fd, uint64_t offset, bool shared);

// Whether another opening of the file holds that byte, or one of `count` bytes from there on. Needs
// no permission to write. Errors: as lock_byte.
Result<bool> byte_locked(int fd, uint64_t offset, uint64_t count = 1);

// A second, independent opening of an open file, through /proc. Errors: as error_of.
Result<Fd> open_again(int fd, int flags);

// fcntl(F_DUPFD_CLOEXEC): the lowest free number from `lowest` on. Errors: as error_of.
Result<Fd> duplicate_from(int fd, int lowest);

// A forked child will not have this mapping.
Result<void> keep_from_children(void* at, uint64_t bytes);

// mkdir(2): the umask clears bits of `mode`.
// Errors: kExists, as error_of.
Result<void> make_folder(const char* path, uint32_t mode);

// Calls `visit` for each name in an open folder except "." and ".."; visit returns false to stop.
Result<void> list_folder(int folder, bool (*visit)(void* context, const char* name), void* context);

// The same in parts: begins where `*position` says (0 = at the first name) and, when visit stops
// it, says there where to continue. True when all names have been visited. Names that come or go
// between two parts may be missed or come twice.
Result<bool> list_folder_from(int folder, uint64_t* position,
                              bool (*visit)(void* context, const char* name), void* context);

// The effective user.
uint32_t user_id();

// Our groups, the effective one first; at most `most`. Returns how many.
uint32_t group_ids(uint32_t* out, uint32_t most);

// The effective user as the namespace outside ours knows it, where we are in a user namespace; else
// user_id(). Reads /proc.
uint32_t machine_user_id(bool* in_namespace);

// Whether files that show this owner are root's: 0; in a user namespace in which the machine's root
// has no number, the number that such owners are shown with. (Others without a number show it, too:
// believe it only of what root alone could have made, or where that does no harm.) Reads /proc.
bool means_root(uint32_t uid);

}  // namespace allot::sys
