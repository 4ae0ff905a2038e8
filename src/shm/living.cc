// See living.h. What must not happen here: a live process is taken for dead, because then others
// get its memory; so every doubt says "alive".
#include "shm/living.h"

#include <cerrno>
#include <string_view>

#include "abi/env.h"
#include "base/text.h"
#include "core/shared.h"
#include "sys/process.h"

namespace allot::shm {
namespace {

constexpr uint64_t kPage = 4096;

// Whether a process may still run, judged by pid and start time (0 = any).
bool may_run(uint32_t pid, uint64_t start_time) {
  auto process = sys::read_process(sys::Root{}, pid);
  // May not be inspected; or hidden from us (hidepid).
  if (!process) return process.error().code != Errc::kNotFound || sys::process_exists(pid);
  if (process->gone()) return false;
  return start_time == 0 || process->start_time == start_time;
}

bool foreign_namespace(uint64_t inode) {
  auto mine = sys::pid_namespace(sys::Root{}, 0);
  return !mine || *mine != inode;
}

// The image that exec put in place of ours no longer maps the file. The NVML library maps the file,
// too, for reading: an image that uses it alone holds no GPU memory.
bool still_mapped(const Slice& slice, uint32_t pid) {
  if (slice.file == nullptr || slice.copied) return true;
  auto key = sys::mapped_at(sys::Root{}, slice.file);
  if (!key) return true;
  auto mapped = sys::writable_maps(sys::Root{}, pid, *key);
  return !mapped || *mapped > 0;
}

// The environment that a process was started with has an entry `text`. Reads it in parts, each
// beginning with the end of the one before.
bool started_with(uint32_t pid, std::string_view text) {
  char path[40];
  TextBuf(path, sizeof(path)).text("/proc/").u64(pid).text("/environ");
  auto fd = sys::open_file(sys::Root{}, path, O_RDONLY);
  if (!fd) return false;
  char part[4096];
  uint64_t offset = 0;
  bool at_start = true;  // of an entry
  size_t matched = 0;    // of `text`; kNoMatch while skipping an entry
  constexpr size_t kNoMatch = ~size_t{0};
  for (;;) {
    auto have = sys::read_at(fd->get(), part, sizeof(part), offset);
    if (!have || *have == 0) return false;
    offset += *have;
    for (uint64_t i = 0; i < *have; ++i) {
      if (at_start) matched = 0;
      at_start = part[i] == '\0';
      if (matched == kNoMatch) continue;
      if (at_start) {
        if (matched == text.size()) return true;
      } else if (matched < text.size() && part[i] == text[matched]) {
        ++matched;
      } else {
        matched = kNoMatch;
      }
    }
  }
}

bool has_open(uint32_t pid, uint32_t fd, std::string_view file) {
  char path[64];
  TextBuf(path, sizeof(path)).text("/proc/").u64(pid).text("/fd/").u64(fd);
  char target[kPathBytes + 16];
  auto length = sys::read_link(sys::Root{}, path, target, sizeof(target));
  return length && std::string_view(target, *length) == file;
}

struct MemberWalk {
  std::string_view file;  // as the kernel names it
  std::string_view entries[2];
  uint32_t members_fd;
  bool (*visit)(void* context, uint32_t pid);
  void* context;
  bool whole;
};

bool visit_process(void* context, const char* name) {
  MemberWalk& walk = *static_cast<MemberWalk*>(context);
  const std::string_view text(name);
  const char* at = text.data();
  uint64_t pid;
  if (!read_u64(&at, text.data() + text.size(), &pid) || *at != '\0') return true;
  const uint32_t number = static_cast<uint32_t>(pid);
  const bool inherits = walk.members_fd != 0 && has_open(number, walk.members_fd, walk.file);
  if (!inherits && !started_with(number, walk.entries[0]) && !started_with(number, walk.entries[1]))
    return true;
  walk.whole = walk.visit(walk.context, number);
  return walk.whole;
}

}  // namespace

Result<void*> lock_slot(int fd, uint32_t index) {
  auto own = sys::open_again(fd, O_RDWR);
  if (!own) return tl::unexpected<Error>(own.error());
  if (auto locked = sys::lock_byte(own->get(), ALLOT_LOCK_SLOT(index), false); !locked) {
    return tl::unexpected<Error>(locked.error());
  }
  auto mapping = sys::map_file(own->get(), kPage, false);
  if (!mapping) return mapping;
  if (auto kept = sys::keep_from_children(*mapping, kPage); !kept) {
    sys::unmap(*mapping, kPage);
    return tl::unexpected<Error>(kept.error());
  }
  // On overlayfs a mapping holds the file below, not the opening with the lock.
  own->close();
  if (auto held = sys::byte_locked(fd, ALLOT_LOCK_SLOT(index)); !held || !*held) {
    sys::unmap(*mapping, kPage);
    return fail(Errc::kUnsupported);
  }
  return mapping;
}

void drop_slot_lock(void* mapping) {
  if (mapping != nullptr) sys::unmap(mapping, kPage);
}

// The number is high, out of the way of programs that expect theirs from 3 on.
Result<sys::Fd> hold_slice(Slice& slice) {
  auto fd = sys::open_file(sys::Root{}, slice.path, O_RDWR | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
  if (!fd) return fd;
  if (auto locked = sys::lock_byte(fd->get(), ALLOT_LOCK_MEMBERS, true); !locked) {
    return tl::unexpected<Error>(locked.error());
  }
  for (const int lowest : {1000, 500, 240, 100, 50, 20}) {
    auto high = sys::duplicate_from(fd->get(), lowest);
    if (!high) continue;
    core::store(slice.file->header.members_fd, static_cast<uint32_t>(high->get()));
    core::store(slice.file->header.held, uint32_t{ALLOT_HELD_BY_LOCK});
    return high;
  }
  return fail(Errc::kFull, EMFILE);
}

Living::Living(const Slice& slice) : slice_(slice) {
  if (slice.copied || slice.path[0] == '\0') return;
  auto fd = sys::open_file(sys::Root{}, slice.path, O_RDONLY | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
  if (!fd) return;
  // Seen from another mount namespace the path may lead to another file.
  auto info = sys::info_of(fd->get());
  if (info && info->inode == slice.inode && info->device == slice.device) fd_ = std::move(*fd);
}

Living::Lock Living::lock_at(uint64_t offset) const {
  if (!fd_) return Lock::kUnknown;
  auto locked = sys::byte_locked(fd_.get(), offset);
  if (!locked) return Lock::kUnknown;
  return *locked ? Lock::kHeld : Lock::kFree;
}

// With a lock that is free the process has ended, or exec has replaced our image. But while the
// kernel takes an ended process apart it still closes its devices: its GPU memory is not free yet.
bool Living::judge(Lock lock, uint32_t pid, const AllotSlot& slot) const {
  if (lock == Lock::kHeld) return true;
  const bool foreign = foreign_namespace(slot.pid_namespace);
  if (lock == Lock::kUnknown) {
    if (foreign || pid == 0) return true;
    return may_run(pid, slot.start_time) && (slot.execing == 0 || still_mapped(slice_, pid));
  }
  if (foreign || pid == 0 || !may_run(pid, slot.start_time)) return false;
  return sys::is_ending(sys::Root{}, pid);
}

bool Living::alive(void* context, uint32_t index, uint32_t pid, const AllotSlot& slot) {
  const Living& self = *static_cast<const Living*>(context);
  Lock lock = Lock::kUnknown;
  if (self.slice_.copied) {
    if (slot.held == kSeenHeld) lock = Lock::kHeld;
    if (slot.held == kSeenFree) lock = Lock::kFree;
  } else if (slot.held == ALLOT_HELD_BY_LOCK) {
    lock = self.lock_at(ALLOT_LOCK_SLOT(index));
  }
  return self.judge(lock, pid, slot);
}

bool Living::slot(uint32_t index) const {
  if (index >= ALLOT_MAX_SLOTS) return false;
  const AllotSliceFile& file = *slice_.file;
  const uint64_t word = core::load(file.slot_words[index]);
  const uint8_t state = ALLOT_SLOT_STATE(word);
  if (state == ALLOT_SLOT_FREE) return false;
  AllotSlot copy = {};
  copy.pid_namespace = core::load(file.header.pid_namespace);
  // A taker with a pid is asked for by that: region 1.2 had no locks.
  if (ALLOT_SLOT_PID(word) == 0) copy.held = core::load(file.header.held);
  if (state != ALLOT_SLOT_TAKING) {
    const AllotSlot& slot = file.slots[index];
    copy.pid_namespace = core::load(slot.pid_namespace);
    copy.start_time = core::load(slot.start_time);
    copy.execing = core::load(slot.execing);
    copy.held = core::load(slot.held);
  } else if (slice_.copied && copy.held != 0) {
    copy.held = core::load(file.slots[index].held);
  }
  return alive(const_cast<Living*>(this), index, ALLOT_SLOT_PID(word), copy);
}

bool Living::launcher() const {
  const AllotHeader& header = slice_.file->header;
  const int32_t pid = header.launcher_pid;
  if (pid <= 0) return false;
  if (!foreign_namespace(header.pid_namespace))
    return may_run(static_cast<uint32_t>(pid), header.launcher_start);
  const uint32_t held = core::load(header.held);
  if (slice_.copied) return held != kSeenFree;
  return held != ALLOT_HELD_BY_LOCK || lock_at(ALLOT_LOCK_MEMBERS) != Lock::kFree;
}

bool Living::launcher_waits() const {
  const int32_t pid = slice_.file->header.launcher_pid;
  char entry[kPathBytes + 32];
  TextBuf(entry, sizeof(entry)).text(ALLOT_ENV_SLICE).put('=').text(slice_.path);
  return launcher() && !started_with(static_cast<uint32_t>(pid), entry);
}

bool Living::has_members() const {
  const AllotHeader& header = slice_.file->header;
  if (slice_.copied) return core::load(header.held) == kSeenHeld;
  return core::load(header.held) == ALLOT_HELD_BY_LOCK &&
         lock_at(ALLOT_LOCK_MEMBERS) == Lock::kHeld;
}

void note_locks(AllotSliceFile* file, int fd) {
  const auto seen = [fd](uint64_t offset) {
    auto locked = sys::byte_locked(fd, offset);
    return !locked ? 0u : *locked ? kSeenHeld : kSeenFree;
  };
  const uint32_t header_held = file->header.held;
  file->header.held = header_held == ALLOT_HELD_BY_LOCK ? seen(ALLOT_LOCK_MEMBERS) : 0;
  const uint32_t high = core::slots_of(*file);
  for (uint32_t i = 0; i < high; ++i) {
    const uint8_t state = ALLOT_SLOT_STATE(file->slot_words[i]);
    uint32_t& held = file->slots[i].held;
    if (state == ALLOT_SLOT_FREE) continue;
    const uint32_t way = state == ALLOT_SLOT_TAKING ? header_held : held;
    held = way == ALLOT_HELD_BY_LOCK ? seen(ALLOT_LOCK_SLOT(i)) : 0;
  }
}

bool visit_members(const Slice& slice, bool (*visit)(void* context, uint32_t pid), void* context) {
  auto proc = sys::open_file(sys::Root{}, "/proc", O_RDONLY | O_DIRECTORY);
  if (!proc || slice.path[0] == '\0') return true;
  // ALLOT_DIR may have led there by another text.
  char file[kPathBytes];
  TextBuf(file, sizeof(file)).text(slice.path);
  if (auto fd = sys::open_file(sys::Root{}, slice.path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)) {
    char link[40];
    TextBuf(link, sizeof(link)).text("/proc/self/fd/").i64(fd->get());
    if (!sys::read_link(sys::Root{}, link, file, sizeof(file))) return true;
  }
  char entries[2][kPathBytes + 32];
  TextBuf(entries[0], sizeof(entries[0])).text(ALLOT_ENV_SLICE).put('=').text(slice.path);
  TextBuf(entries[1], sizeof(entries[1])).text(ALLOT_ENV_SLICE).put('=').text(file);
  const uint32_t members_fd = core::load(slice.file->header.members_fd);
  MemberWalk walk{file, {entries[0], entries[1]}, members_fd, visit, context, true};
  (void)sys::list_folder(proc->get(), visit_process, &walk);
  return walk.whole;
}

}  // namespace allot::shm
