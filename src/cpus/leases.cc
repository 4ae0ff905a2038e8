// The ledger of CPU leases: see leases.h.
#include "cpus/leases.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <nlohmann/json.hpp>

#include "cpus/cpuset_fs.h"
#include "cpus/topology.h"

namespace allot::cpus {
namespace {

constexpr std::string_view kSuffix = ".lease";

std::string to_json(const Lease& lease) {
  return nlohmann::json{{"name", lease.name},
                        {"cpus", to_list(lease.cpus)},
                        {"blocked", to_list(lease.blocked)},
                        {"exclusive", lease.exclusive},
                        {"launcher", {lease.launcher.pid, lease.launcher.start_ticks}},
                        {"member", {lease.member.pid, lease.member.start_ticks}},
                        {"group", lease.group},
                        {"mems", to_list(lease.mems)}}
      .dump();
}

// Other users can write into a shared folder. Only a plain file of a lease's size is read, so that
// nobody is kept waiting at a pipe or fed without end.
std::optional<std::string> lease_text(const std::string& path, uint32_t* owner) {
  constexpr off_t kMost = 64 << 10;
  int fd = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  struct stat info {};
  std::optional<std::string> text;
  if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size <= kMost) {
    *owner = info.st_uid;
    text.emplace(static_cast<size_t>(info.st_size), '\0');
    ssize_t n = pread(fd, text->data(), text->size(), 0);
    text->resize(static_cast<size_t>(std::max<ssize_t>(n, 0)));
  }
  close(fd);
  return text;
}

// A user's lease may speak of that user's processes and groups only: root acts on what is written
// there. Root's may speak of anybody's, as root attaches them. What else it speaks of is dropped.
void drop_foreign(const FsRoot& fs, Lease* lease) {
  const auto owned = [&](const std::string& path) {
    struct stat info {};
    if (stat(fs.path(path).c_str(), &info) != 0) return errno == ENOENT;
    return lease->owner == 0 || info.st_uid == lease->owner;
  };
  std::string name = lease->group.substr(lease->group.rfind('/') + 1);
  if (!lease->group.empty() && (launcher_in_name(name) != lease->launcher || !owned(lease->group)))
    lease->group.clear();
  if (lease->member.pid != 0 && !owned(fmt::format("/proc/{}", lease->member.pid)))
    lease->member = {};
}

// Whatever does not read as a lease is no lease.
std::optional<Lease> from_json(const std::string& text) {
  nlohmann::json j = nlohmann::json::parse(text, nullptr, false);
  if (!j.is_object()) return std::nullopt;
  Lease lease;
  try {
    Result<CpuSet> cpus = parse_list(j.at("cpus").get<std::string>());
    Result<CpuSet> blocked = parse_list(j.at("blocked").get<std::string>());
    if (!cpus || !blocked) return std::nullopt;
    lease.cpus = *cpus;
    lease.blocked = *blocked;
    lease.name = j.at("name").get<std::string>();
    lease.exclusive = j.at("exclusive").get<bool>();
    lease.launcher = {j.at("launcher").at(0).get<pid_t>(), j.at("launcher").at(1).get<uint64_t>()};
    lease.member = {j.at("member").at(0).get<pid_t>(), j.at("member").at(1).get<uint64_t>()};
    lease.group = j.at("group").get<std::string>();
    if (Result<CpuSet> mems = parse_list(j.value("mems", ""))) lease.mems = *mems;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
  return lease;
}

// A lock of the open file, which every copy of the descriptor shares and which ends with the last
// one.
struct flock whole_file(short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return lock;
}

int try_lock(int fd) {
  struct flock lock = whole_file(F_WRLCK);
  return fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : errno;
}

bool file_locked(const std::string& path) {
  int fd = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return false;
  struct flock lock = whole_file(F_WRLCK);
  bool locked = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
  close(fd);
  return locked;
}

bool group_populated(const FsRoot& fs, const std::string& group) {
  if (group.empty()) return false;
  if (!fs.read_line(procs_file(group)).value_or("").empty()) return true;
  // A slice that was made inside lies below, and may outlive who made it.
  for (const std::string& below : groups_below(fs, group)) {
    if (group_populated(fs, below)) return true;
  }
  return false;
}

int write_whole(int fd, const std::string& text) {
  if (ftruncate(fd, 0) != 0) return errno;
  ssize_t n = pwrite(fd, text.data(), text.size(), 0);
  if (n < 0) return errno;
  return n == static_cast<ssize_t>(text.size()) ? 0 : ENOSPC;
}

}  // namespace

bool anybody_left(const FsRoot& fs, const Lease& lease) {
  if (!lease.group.empty()) return group_populated(fs, lease.group);
  // A shared lease promises nothing that could be broken, and a mask of all CPUs tells
  // nobody apart.
  Expected<CpuSet> everybody = cpus_within_cpuset();
  if (lease.member.pid == 0 || !lease.exclusive || !everybody || lease.cpus.contains(*everybody))
    return false;
  for (const std::string& name : fs.list("/proc")) {
    pid_t pid = 0;
    auto [end, ec] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (ec != std::errc{} || end != name.data() + name.size()) continue;
    struct stat info {};
    if (stat(fs.path("/proc/" + name).c_str(), &info) != 0) continue;
    CpuSet mask;
    if (info.st_uid != lease.owner || get_affinity(pid, &mask) != 0) continue;
    if (mask.empty() || !lease.cpus.contains(mask)) continue;
    std::optional<ThreadStat> thread = thread_stat(fs, pid, pid);
    if (!thread || (thread->flags & kPfKthread) != 0 || thread->state == 'Z') continue;
    if (thread->start_ticks >= lease.member.start_ticks) return true;
  }
  return false;
}

std::string lease_folder(const char* dir) {
  if (dir != nullptr && dir[0] != '\0') return dir;
  struct stat info {};
  if (stat("/run/allot", &info) == 0 && S_ISDIR(info.st_mode) && access("/run/allot", W_OK) == 0) {
    return "/run/allot";
  }
  return fmt::format("/dev/shm/allot-{}", geteuid());
}

Expected<LockedLedger> LockedLedger::open(const std::string& folder) {
  if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return failure(Errc::kNoPermission,
                   fmt::format("cannot make {}: {}", folder, std::strerror(errno)), errno);
  }
  struct stat info {};
  if (lstat(folder.c_str(), &info) != 0 || !S_ISDIR(info.st_mode) ||
      (info.st_uid != geteuid() && info.st_uid != 0)) {
    return failure(Errc::kNoPermission,
                   fmt::format("{} is not a folder of this user or of root", folder));
  }
  std::string path = folder + "/cpus.lock";
  // Reading is enough for flock, so that any user of the folder can lock it, whatever the umask of
  // who made it was. It is opened without O_CREAT first: with fs.protected_regular the kernel
  // refuses that flag on another user's file in a sticky folder.
  // A pipe in its place, which another user may have made, holds up nobody.
  constexpr int kHow = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  int fd = ::open(path.c_str(), kHow);
  if (fd < 0 && errno == ENOENT) {
    fd = ::open(path.c_str(), O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd >= 0) static_cast<void>(fchmod(fd, 0644));
    if (fd < 0 && errno == EEXIST) fd = ::open(path.c_str(), kHow);
  }
  if (fd < 0) {
    return failure(Errc::kNoPermission,
                   fmt::format("cannot open {}: {}", path, std::strerror(errno)), errno);
  }
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    return failure(Errc::kNoPermission, fmt::format("{} is not a file; remove it", path));
  }
  using Clock = std::chrono::steady_clock;
  Clock::time_point end = Clock::now() + std::chrono::seconds(10);
  while (syscall(SYS_flock, fd, LOCK_EX | LOCK_NB) != 0) {
    if (Clock::now() >= end) {
      ::close(fd);
      return failure(Errc::kSystem, fmt::format("another run has held {} for 10 s", path),
                     ETIMEDOUT);
    }
    poll(nullptr, 0, 1);
  }
  return LockedLedger(folder, fd);
}

LockedLedger::LockedLedger(LockedLedger&& other) noexcept
    : folder_(std::move(other.folder_)), fd_(std::exchange(other.fd_, -1)) {}

LockedLedger::~LockedLedger() {
  if (fd_ >= 0) ::close(fd_);
}

std::string LockedLedger::path_of(const Lease& lease) const {
  return fmt::format("{}/{}{}", folder_, group_name(lease.name, lease.launcher), kSuffix);
}

std::vector<Lease> LockedLedger::read(const FsRoot& fs) {
  std::vector<Lease> leases;
  FsRoot here;
  for (const std::string& name : here.list(folder_)) {
    if (!std::string_view(name).ends_with(kSuffix)) continue;
    std::string path = folder_ + "/" + name;
    uint32_t owner = 0;
    std::optional<std::string> text = lease_text(path, &owner);
    std::optional<Lease> lease = from_json(text.value_or(""));
    // Under another name it would stand for the file of that name.
    if (lease && path_of(*lease) != path) lease.reset();
    if (lease) lease->owner = owner;
    if (lease) drop_foreign(fs, &*lease);
    bool counts = text && file_locked(path);
    if (lease && !counts) {
      counts = (lease->member.pid != 0 && alive(fs, lease->member)) || anybody_left(fs, *lease);
    }
    if (lease && counts) leases.push_back(*lease);
    if (!counts) unlink(path.c_str());
  }
  return leases;
}

Expected<int> LockedLedger::add(const Lease& lease) {
  std::string path = path_of(lease);
  unlink(path.c_str());
  int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd >= 0) static_cast<void>(fchmod(fd, 0644));
  int error = fd < 0 ? errno : write_whole(fd, to_json(lease));
  if (error == 0) error = try_lock(fd);
  if (error != 0) {
    if (fd >= 0) ::close(fd);
    unlink(path.c_str());
    return failure(Errc::kSystem, fmt::format("cannot write {}: {}", path, std::strerror(error)),
                   error);
  }
  return fd;
}

Expected<int> LockedLedger::update(const Lease& lease, int fd) {
  if (int error = write_whole(fd, to_json(lease)); error != 0) {
    return failure(Errc::kSystem,
                   fmt::format("cannot write {}: {}", path_of(lease), std::strerror(error)), error);
  }
  return fd;
}

Expected<void> LockedLedger::rewrite(const Lease& lease) {
  std::string path = path_of(lease);
  int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
  int error = fd < 0 ? errno : write_whole(fd, to_json(lease));
  if (fd >= 0) ::close(fd);
  if (error == 0) return {};
  return failure(error == EACCES || error == EPERM ? Errc::kNoPermission : Errc::kSystem,
                 fmt::format("cannot write {}: {}", path, std::strerror(error)), error);
}

void LockedLedger::remove(const Lease& lease) {
  unlink(path_of(lease).c_str());
}

}  // namespace allot::cpus
