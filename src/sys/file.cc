// Files: see file.h. Raw system calls only; no descriptor outlives its Fd.
#include "sys/file.h"

#include <linux/fs.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <string_view>

#include "base/text.h"
#include "sys/keep_errno.h"
#include "sys/raw.h"

namespace allot::sys {
namespace {

tl::unexpected<Error> failed(long result) {
  return tl::unexpected<Error>(error_of(static_cast<int>(-result)));
}

// Repeats a call that a signal interrupted.
template <class Call>
long again(Call call) {
  long result;
  do {
    result = call();
  } while (result == -EINTR);
  return result;
}

Result<void> done(long result) {
  if (raw_failed(result)) return failed(result);
  return {};
}

const char* below_root(Root root, const char* path) {
  if (root.fd < 0) return path;
  while (*path == '/') ++path;
  return *path == '\0' ? "." : path;
}

int folder_of(Root root) {
  return root.fd < 0 ? AT_FDCWD : root.fd;
}

Result<FileInfo> stat_call(int folder, const char* name, int flags) {
  // On 64-bit machines libc's struct stat is the kernel's.
  struct stat st;
  long result = raw_call(SYS_newfstatat, folder, raw_pointer(name), raw_pointer(&st), flags);
  if (raw_failed(result)) return failed(result);
  return FileInfo{st.st_dev, st.st_ino, static_cast<uint64_t>(st.st_size), st.st_mode,
                  st.st_uid, st.st_gid, static_cast<uint32_t>(st.st_nlink)};
}

}  // namespace

Fd& Fd::operator=(Fd&& other) noexcept {
  if (this != &other) {
    close();
    fd_ = other.fd_;
    other.fd_ = -1;
  }
  return *this;
}

void Fd::close() {
  if (fd_ >= 0) raw_call(SYS_close, fd_);  // Linux closes it even when it returns EINTR
  fd_ = -1;
}

Error error_of(int os_errno) {
  switch (os_errno) {
    case ENOENT:
    case ENOTDIR:
    case ESRCH:
      return {Errc::kNotFound, os_errno};
    case EACCES:
    case EPERM:
    case EROFS:
    case ELOOP:
      return {Errc::kNoPermission, os_errno};
    case EEXIST:
      return {Errc::kExists, os_errno};
    case ENOSPC:
    case EDQUOT:
      return {Errc::kFull, os_errno};
    case EOPNOTSUPP:
    case ENOSYS:
      return {Errc::kUnsupported, os_errno};
    case ENAMETOOLONG:
      return {Errc::kBadValue, os_errno};
    default:
      return {Errc::kSystem, os_errno};
  }
}

Result<Fd> open_at(int folder, const char* name, int flags) {
  long result =
      again([&] { return raw_call(SYS_openat, folder, raw_pointer(name), flags | O_CLOEXEC, 0); });
  if (raw_failed(result)) return failed(result);
  return Fd(static_cast<int>(result));
}

Result<Fd> open_file(Root root, const char* path, int flags) {
  return open_at(folder_of(root), below_root(root, path), flags);
}

Result<FileInfo> info_of(int fd) {
  return stat_call(fd, "", AT_EMPTY_PATH);
}

Result<FileInfo> info_at(int folder, const char* name) {
  return stat_call(folder, name, AT_SYMLINK_NOFOLLOW);
}

Result<uint64_t> read_at(int fd, void* out, uint64_t bytes, uint64_t offset) {
  char* at = static_cast<char*>(out);
  uint64_t have = 0;
  while (have < bytes) {
    long result = again([&] {
      return raw_call(SYS_pread64, fd, raw_pointer(at + have), static_cast<long>(bytes - have),
                      static_cast<long>(offset + have));
    });
    if (raw_failed(result)) return failed(result);
    if (result == 0) break;
    have += static_cast<uint64_t>(result);
  }
  return have;
}

Result<void> write_at(int fd, const void* data, uint64_t bytes, uint64_t offset) {
  const char* at = static_cast<const char*>(data);
  uint64_t have = 0;
  while (have < bytes) {
    long result = again([&] {
      return raw_call(SYS_pwrite64, fd, raw_pointer(at + have), static_cast<long>(bytes - have),
                      static_cast<long>(offset + have));
    });
    if (raw_failed(result)) return failed(result);
    if (result == 0) return fail(Errc::kSystem, EIO);
    have += static_cast<uint64_t>(result);
  }
  return {};
}

Result<uint32_t> read_file(Root root, const char* path, char* out, uint32_t size) {
  if (size == 0) return fail(Errc::kFull);
  auto fd = open_file(root, path, O_RDONLY | O_NOCTTY);
  if (!fd) return tl::unexpected<Error>(fd.error());
  // Reads forward, not at offsets: some files of /proc return their text only that way.
  uint32_t have = 0;
  for (;;) {
    if (have == size) return fail(Errc::kFull);
    long result = again([&] {
      return raw_call(SYS_read, fd->get(), raw_pointer(out + have), static_cast<long>(size - have));
    });
    if (raw_failed(result)) return failed(result);
    if (result == 0) break;
    have += static_cast<uint32_t>(result);
  }
  out[have] = '\0';
  return have;
}

Result<uint32_t> read_link(Root root, const char* path, char* out, uint32_t size) {
  long result = raw_call(SYS_readlinkat, folder_of(root), raw_pointer(below_root(root, path)),
                         raw_pointer(out), size);
  if (raw_failed(result)) return failed(result);
  if (result >= static_cast<long>(size)) return fail(Errc::kFull);
  out[result] = '\0';
  return static_cast<uint32_t>(result);
}

Result<void> set_size(int fd, uint64_t bytes) {
  return done(again([&] { return raw_call(SYS_ftruncate, fd, static_cast<long>(bytes)); }));
}

Result<void> allocate(int fd, uint64_t offset, uint64_t bytes) {
  return done(again([&] {
    return raw_call(SYS_fallocate, fd, 0, static_cast<long>(offset), static_cast<long>(bytes));
  }));
}

// Maps through libc, so that sanitizers and similar tools see it.
Result<void*> map_file(int fd, uint64_t bytes, bool writable) {
  KeepErrno keep;
  void* at = mmap(nullptr, bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) return tl::unexpected<Error>(error_of(errno));
  return at;
}

Result<void> map_over(void* at, int fd, uint64_t bytes, bool writable) {
  KeepErrno keep;
  const int access = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  if (mmap(at, bytes, access, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
    return tl::unexpected<Error>(error_of(errno));
  }
  return {};
}

Result<void*> map_memory(uint64_t bytes) {
  KeepErrno keep;
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return tl::unexpected<Error>(error_of(errno));
  return at;
}

Result<void> protect_read_only(void* at, uint64_t bytes) {
  return done(raw_call(SYS_mprotect, raw_pointer(at), static_cast<long>(bytes), PROT_READ));
}

void unmap(void* at, uint64_t bytes) {
  KeepErrno keep;
  munmap(at, bytes);
}

Result<NewFile> NewFile::create(int folder, uint32_t mode, bool named) {
  NewFile file;
  file.folder_ = folder;
  long result = -EOPNOTSUPP;
  if (!named) {
    result = again([&] {
      return raw_call(SYS_openat, folder, raw_pointer("."), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    });
  }
  if (result == -EOPNOTSUPP || result == -EISDIR || result == -ENOENT) {
    for (uint32_t attempt = 0; attempt < 100; ++attempt) {
      TextBuf name(file.temporary_, sizeof(file.temporary_));
      name.text(".new-").u64(static_cast<uint64_t>(raw_call(SYS_gettid)));
      name.put('-').u64(attempt);
      result = again([&] {
        return raw_call(SYS_openat, folder, raw_pointer(file.temporary_),
                        O_CREAT | O_EXCL | O_NOFOLLOW | O_RDWR | O_CLOEXEC, 0600);
      });
      if (result != -EEXIST) break;
    }
    if (raw_failed(result)) file.temporary_[0] = '\0';
  }
  if (raw_failed(result)) return failed(result);
  file.fd_ = Fd(static_cast<int>(result));
  result = raw_call(SYS_fchmod, file.fd(), mode);
  if (raw_failed(result)) {
    file.discard();
    return failed(result);
  }
  return file;
}

Result<void> NewFile::publish(const char* name) {
  if (temporary_[0] != '\0') {
    long result =
        raw_call(SYS_linkat, folder_, raw_pointer(temporary_), folder_, raw_pointer(name), 0);
    if (!raw_failed(result)) discard();
    return done(result);
  }
  // Linking by descriptor needs a capability; linking through /proc needs none.
  char path[40];
  TextBuf(path, sizeof(path)).text("/proc/self/fd/").i64(fd_.get());
  return done(raw_call(SYS_linkat, AT_FDCWD, raw_pointer(path), folder_, raw_pointer(name),
                       AT_SYMLINK_FOLLOW));
}

void NewFile::discard() {
  if (temporary_[0] != '\0') raw_call(SYS_unlinkat, folder_, raw_pointer(temporary_), 0);
  temporary_[0] = '\0';
}

Result<void> remove_at(int folder, const char* name) {
  return done(raw_call(SYS_unlinkat, folder, raw_pointer(name), 0));
}

Result<void> lock_now(int fd) {
  long result = again([&] { return raw_call(SYS_flock, fd, LOCK_EX | LOCK_NB); });
  if (result == -EWOULDBLOCK) return fail(Errc::kExists, EWOULDBLOCK);
  return done(result);
}

namespace {

// The kernel's numbers; older headers of libc lack the names.
constexpr int kOfdGetLock = 36;
constexpr int kOfdSetLock = 37;

struct flock one_byte(uint64_t offset, short type) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(offset);
  lock.l_len = 1;
  return lock;
}

Result<void> lock_done(long result) {
  if (result == -EAGAIN || result == -EACCES) return fail(Errc::kExists, EAGAIN);
  if (result == -EINVAL || result == -ENOLCK) return fail(Errc::kUnsupported, ENOSYS);
  return done(result);
}

}  // namespace

Result<void> lock_byte(int fd, uint64_t offset, bool shared) {
  const struct flock lock = one_byte(offset, shared ? F_RDLCK : F_WRLCK);
  return lock_done(again([&] { return raw_call(SYS_fcntl, fd, kOfdSetLock, raw_pointer(&lock)); }));
}

Result<bool> byte_locked(int fd, uint64_t offset, uint64_t count) {
  struct flock lock = one_byte(offset, F_WRLCK);
  lock.l_len = static_cast<off_t>(count);
  auto asked =
      lock_done(again([&] { return raw_call(SYS_fcntl, fd, kOfdGetLock, raw_pointer(&lock)); }));
  if (!asked) return tl::unexpected<Error>(asked.error());
  return lock.l_type != F_UNLCK;
}

Result<Fd> open_again(int fd, int flags) {
  char path[40];
  TextBuf(path, sizeof(path)).text("/proc/self/fd/").i64(fd);
  return open_file(Root{}, path, flags);
}

Result<Fd> duplicate_from(int fd, int lowest) {
  const long result = raw_call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, lowest);
  if (raw_failed(result)) return failed(result);
  return Fd(static_cast<int>(result));
}

Result<void> keep_from_children(void* at, uint64_t bytes) {
  return done(raw_call(SYS_madvise, raw_pointer(at), static_cast<long>(bytes), MADV_DONTFORK));
}

Result<void> make_folder(const char* path, uint32_t mode) {
  return done(raw_call(SYS_mkdirat, AT_FDCWD, raw_pointer(path), mode));
}

Result<bool> list_folder_from(int folder, uint64_t* position,
                              bool (*visit)(void* context, const char* name), void* context) {
  // The kernel's linux_dirent64: ino 8, off 8 (where the next name stands), reclen 2, type 1, name.
  constexpr uint32_t kNextAt = 8;
  constexpr uint32_t kLengthAt = 16;
  constexpr uint32_t kNameAt = 19;
  alignas(8) char buffer[4096];
  const long from = raw_call(SYS_lseek, folder, static_cast<long>(*position), SEEK_SET);
  if (raw_failed(from)) return failed(from);
  for (;;) {
    long result = raw_call(SYS_getdents64, folder, raw_pointer(buffer), sizeof(buffer));
    if (raw_failed(result)) return failed(result);
    if (result == 0) break;
    for (long at = 0; at < result;) {
      uint16_t length;
      __builtin_memcpy(&length, buffer + at + kLengthAt, sizeof(length));
      __builtin_memcpy(position, buffer + at + kNextAt, sizeof(*position));
      const char* name = buffer + at + kNameAt;
      at += length;
      if (std::string_view(name) == "." || std::string_view(name) == "..") continue;
      if (!visit(context, name)) return false;
    }
  }
  *position = 0;
  return true;
}

Result<void> list_folder(int folder, bool (*visit)(void* context, const char* name),
                         void* context) {
  uint64_t position = 0;
  const auto listed = list_folder_from(folder, &position, visit, context);
  if (!listed) return tl::unexpected<Error>(listed.error());
  return {};
}

uint32_t user_id() {
  return static_cast<uint32_t>(raw_call(SYS_geteuid));
}

uint32_t group_ids(uint32_t* out, uint32_t most) {
  if (most == 0) return 0;
  out[0] = static_cast<uint32_t>(raw_call(SYS_getegid));
  const long count = raw_call(SYS_getgroups, most - 1, raw_pointer(out + 1));
  return raw_failed(count) ? 1 : 1 + static_cast<uint32_t>(count);
}

namespace {

// A line of /proc/self/uid_map: `count` numbers from `inside` on are those from `outside` on. The
// machine's own namespace has one line with all numbers. Returns how many lines there are.
struct UidRange {
  uint64_t inside, outside, count;
};

uint32_t read_uid_map(UidRange* out, uint32_t most) {
  char text[4096];
  const auto length = read_file(Root{}, "/proc/self/uid_map", text, sizeof(text));
  if (!length) return 0;
  const char* at = text;
  const char* end = text + *length;
  uint32_t lines = 0;
  while (lines < most) {
    uint64_t numbers[3];
    for (uint64_t& number : numbers) {
      while (at < end && (*at == ' ' || *at == '\n')) ++at;
      if (!read_u64(&at, end, &number)) return lines;
    }
    out[lines++] = {numbers[0], numbers[1], numbers[2]};
  }
  return lines;
}

constexpr uint32_t kMostRanges = 16;

}  // namespace

uint32_t machine_user_id(bool* in_namespace) {
  UidRange ranges[kMostRanges];
  const uint32_t count = read_uid_map(ranges, kMostRanges);
  *in_namespace = count > 0 && ranges[0].count < UINT32_MAX;
  const uint32_t uid = user_id();
  for (uint32_t i = 0; i < count && *in_namespace; ++i) {
    if (uid >= ranges[i].inside && uid - ranges[i].inside < ranges[i].count)
      return static_cast<uint32_t>(ranges[i].outside + (uid - ranges[i].inside));
  }
  return uid;
}

bool means_root(uint32_t uid) {
  if (uid == 0) return true;
  char text[64];
  const auto length = read_file(Root{}, "/proc/sys/kernel/overflowuid", text, sizeof(text));
  const char* at = text;
  uint64_t overflow = 0;
  if (!length || !read_u64(&at, text + *length, &overflow) || overflow != uid) return false;
  bool in_namespace = false;
  (void)machine_user_id(&in_namespace);
  return in_namespace;
}

}  // namespace allot::sys
