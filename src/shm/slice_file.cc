// The life of a slice's file: made, opened, removed.
//
// What must not happen here: another process sees a half-made file; two creators of one name both
// succeed; a file is removed while a process has just joined it. Each function says how it prevents
// this.
#include "shm/slice_file.h"

#include <sys/stat.h>

#include <cerrno>
#include <string_view>

#include "base/text.h"
#include "core/shared.h"
#include "shm/living.h"
#include "shm/region_folder.h"
#include "shm/slice_body.h"
#include "sys/clock.h"
#include "sys/hold_signal.h"
#include "sys/process.h"

namespace allot::shm {
namespace {

// How often to try again for a name that others take and remove at the same time.
constexpr uint32_t kNameTries = 200;

constexpr uint64_t kSlotsAt = offsetof(AllotSliceFile, slots);
constexpr uint64_t kExportsAt = offsetof(AllotSliceFile, exports);
constexpr uint64_t kSwapsAt = offsetof(AllotSliceFile, swaps);

// Makes sure that touching a range which only we use cannot raise SIGBUS. On file systems that
// cannot allocate (ramfs, some network file systems) it writes zeros there instead.
Result<void> make_safe(int fd, uint64_t offset, uint64_t bytes) {
  static constexpr char kZeros[4096] = {};
  auto made = sys::allocate(fd, offset, bytes);
  if (made || made.error().code != Errc::kUnsupported) return made;
  while (bytes > 0) {
    const uint64_t part = bytes < sizeof(kZeros) ? bytes : sizeof(kZeros);
    if (auto written = sys::write_at(fd, kZeros, part, offset); !written) return written;
    offset += part;
    bytes -= part;
  }
  return {};
}

// What take_slot gets ready: the space of a slot, and its lock where there can be one.
struct SlotSpace {
  int head;  // has the locks
  int body;  // has the slots: the same file where there is no other
  void* lock = nullptr;
  uint32_t held = ALLOT_HELD_BY_PID;
};

int prepare_slot(void* context, uint32_t index) {
  SlotSpace& space = *static_cast<SlotSpace*>(context);
  const int fd = space.body;
  drop_slot_lock(space.lock);
  space.lock = nullptr;
  space.held = ALLOT_HELD_BY_PID;
  auto locked = lock_slot(space.head, index);
  if (!locked && locked.error().code == Errc::kExists) return EAGAIN;
  if (locked) {
    space.lock = *locked;
    space.held = ALLOT_HELD_BY_LOCK;
  }
  const sys::HoldSignal too_large(SIGXFSZ);
  auto made = make_safe(fd, kSlotsAt + uint64_t{index} * sizeof(AllotSlot), sizeof(AllotSlot));
  if (made) made = make_safe(fd, kSwapsAt + uint64_t{index} * sizeof(AllotSwap), sizeof(AllotSwap));
  if (made) return 0;
  return made.error().os_errno != 0 ? made.error().os_errno : ENOSPC;
}

Result<core::SlotOwner> this_process(sys::Process* process) {
  auto self = sys::read_process(sys::Root{}, 0);
  if (!self) return tl::unexpected<Error>(self.error());
  auto home = sys::pid_namespace(sys::Root{}, 0);
  if (!home) return tl::unexpected<Error>(home.error());
  *process = *self;
  return core::SlotOwner{sys::current_pid(), process->start_time, *home, process->command,
                         sys::realtime_ns()};
}

Result<void> fill_header(AllotHeader& header, const NewSlice& slice, bool apart) {
  auto home = sys::pid_namespace(sys::Root{}, 0);
  if (!home) return tl::unexpected<Error>(home.error());
  if (auto boot = sys::boot_id(sys::Root{}, header.boot_id); !boot) return boot;
  if (slice.launcher_pid != 0) {
    auto launcher = sys::read_process(sys::Root{}, static_cast<uint32_t>(slice.launcher_pid));
    if (!launcher) return fail(Errc::kBadValue, launcher.error().os_errno);
    header.launcher_start = launcher->start_time;
  }
  header.major = ALLOT_REGION_MAJOR;
  header.minor = ALLOT_REGION_MINOR;
  header.file_bytes = apart ? kHeadBytes : kFileBytes;
  header.header_bytes = sizeof(AllotHeader);
  header.gpu_bytes = sizeof(AllotGpu);
  header.slot_bytes = sizeof(AllotSlot);
  header.slot_count = ALLOT_MAX_SLOTS;
  TextBuf(header.name, sizeof(header.name)).text(slice.name);
  header.uid = sys::user_id();
  header.flags = slice.flags & ~ALLOT_SLICE_LEAVING;
  header.launcher_pid = slice.launcher_pid;
  header.created_unix_ns = sys::realtime_ns();
  header.pid_namespace = *home;
  header.priority = slice.priority;
  header.level = slice.level;
  __atomic_store_n(&header.magic, ALLOT_REGION_MAGIC, __ATOMIC_RELEASE);
  return {};
}

// A slice's files before they have names.
struct NewFiles {
  sys::NewFile head;
  sys::NewFile body;
  bool apart = false;
  int slots() const { return apart ? body.fd() : head.fd(); }
};

Result<void> make_files(const Folder& folder, NewFiles& files) {
  const uint32_t mode = folder.open ? 0644 : folder.shared ? 0640 : 0600;
  auto head = sys::NewFile::create(folder.fd.get(), mode);
  if (!head) return tl::unexpected<Error>(head.error());
  files.head = std::move(*head);
  files.apart = folder.open;
  // Above the file size limit (ulimit -f) the kernel also sends a signal that would end the
  // program.
  const sys::HoldSignal too_large(SIGXFSZ);
  if (files.apart) {
    auto body = new_body(folder);
    if (!body) return tl::unexpected<Error>(body.error());
    files.body = std::move(*body);
  }
  auto sized = sys::set_size(files.head.fd(), files.apart ? kHeadBytes : kFileBytes);
  if (!sized) return sized;
  if (auto safe = make_safe(files.head.fd(), 0, kHeadBytes); !safe) return safe;
  if (auto safe = make_safe(files.slots(), kHeadBytes, kSlotsAt - kHeadBytes); !safe) return safe;
  return make_safe(files.slots(), kExportsAt, kSwapsAt - kExportsAt);
}

// A slot for this process in a slice that nobody else has seen yet.
Result<void> take_first_slot(const NewFiles& files, Slice& made, core::SlotId* slot) {
  sys::Process process;
  SlotSpace space{files.head.fd(), files.slots()};
  auto owner = this_process(&process);
  if (!owner) return tl::unexpected<Error>(owner.error());
  owner->held = &space.held;
  auto taken = core::Ledger(made.file).take_slot(*owner, prepare_slot, &space);
  made.lock = space.lock;
  if (!taken) return tl::unexpected<Error>(taken.error());
  *slot = *taken;
  made.file->header.held = space.held;
  return {};
}

// A complete, mapped slice that has no name yet; with a slot for this process if `slot` is given.
Result<Slice> build(const Folder& folder, const NewSlice& slice, NewFiles& files,
                    core::SlotId* slot) {
  if (auto made = make_files(folder, files); !made) return tl::unexpected<Error>(made.error());
  auto map = map_whole(files.head.fd(), files.apart ? files.body.fd() : -1, true);
  if (!map) return tl::unexpected<Error>(map.error());
  Slice made{*map, true};
  made.owner_uid = sys::user_id();
  auto filled = fill_header(made.file->header, slice, files.apart);
  if (filled && slot != nullptr) filled = take_first_slot(files, made, slot);
  if (!filled) {
    unmap(made);
    return tl::unexpected<Error>(filled.error());
  }
  return made;
}

// Checks everything about a header that other code relies on. `header` is a copy.
Result<void> check_header(const AllotHeader& header) {
  if (header.magic != ALLOT_REGION_MAGIC) return fail(Errc::kDamaged);
  if (header.major != ALLOT_REGION_MAJOR) return fail(Errc::kWrongVersion);
  if ((header.file_bytes != kFileBytes && !has_body(header)) ||
      header.header_bytes != sizeof(AllotHeader) || header.gpu_bytes != sizeof(AllotGpu) ||
      header.slot_bytes != sizeof(AllotSlot) || header.slot_count != ALLOT_MAX_SLOTS ||
      header.gpu_count > ALLOT_MAX_GPUS || header.slots_high > ALLOT_MAX_SLOTS) {
    return fail(Errc::kDamaged);
  }
  const void* end = __builtin_memchr(header.name, '\0', sizeof(header.name));
  if (end == nullptr || !valid_name(header.name)) return fail(Errc::kDamaged);
  return {};
}

Result<void> check_boot(const AllotHeader& header) {
  uint8_t now[16];
  if (auto boot = sys::boot_id(sys::Root{}, now); !boot) return boot;
  if (__builtin_memcmp(now, header.boot_id, sizeof(now)) != 0) return fail(Errc::kNotFound);
  return {};
}

struct OpenFile {
  sys::Fd fd;
  sys::FileInfo info;
  sys::Fd body;            // of a head whose body we may open
  bool head_only = false;  // of a head whose body we may not
  int slots() const { return body ? body.get() : fd.get(); }
};

// Opens the file only if it is a regular file and no link.
Result<OpenFile> open_regular(int folder, const char* name, bool writable) {
  const int mode = writable ? O_RDWR : O_RDONLY;
  auto fd = sys::open_at(folder, name, mode | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
  if (!fd) {
    auto there = sys::info_at(folder, name);
    if (there && !S_ISREG(there->mode)) return fail(Errc::kNotAFile, fd.error().os_errno);
    return tl::unexpected<Error>(fd.error());
  }
  auto info = sys::info_of(fd->get());
  if (!info) return tl::unexpected<Error>(info.error());
  if (!S_ISREG(info->mode)) return fail(Errc::kNotAFile);
  const uint32_t user = sys::user_id();
  if (writable && info->uid != user && user != 0) return fail(Errc::kNoPermission);
  return OpenFile{std::move(*fd), *info, {}, false};
}

// The name in the header must be the file's: listings show the first and act on the second.
bool same_name(const AllotHeader& header, const char* file_name) {
  char wanted[ALLOT_NAME_BYTES + sizeof(ALLOT_REGION_SUFFIX)];
  TextBuf(wanted, sizeof(wanted)).text(header.name).text(ALLOT_REGION_SUFFIX);
  return std::string_view(wanted) == file_name;
}

// Checks the open file; opens its body where it has one.
Result<void> check_open(int folder, OpenFile& open, const char* file_name, bool writable) {
  AllotHeader header;
  auto have = sys::read_at(open.fd.get(), &header, sizeof(header), 0);
  if (!have) return tl::unexpected<Error>(have.error());
  if (*have >= 16 && header.magic == ALLOT_REGION_MAGIC && header.major != ALLOT_REGION_MAJOR) {
    return fail(Errc::kWrongVersion);  // whatever its size
  }
  if (*have != sizeof(header)) return fail(Errc::kDamaged);
  if (auto checked = check_header(header); !checked) return checked;
  if (open.info.bytes != header.file_bytes || !same_name(header, file_name)) {
    return fail(Errc::kDamaged);
  }
  if (auto checked = check_boot(header); !checked || !has_body(header)) return checked;
  auto body = open_body(folder, header, open.info.uid, writable);
  if (body) {
    open.body = std::move(*body);
    return {};
  }
  open.head_only = !writable && body.error().code == Errc::kNoPermission;
  if (open.head_only) return {};
  const bool lost = body.error().code == Errc::kNotFound;
  return lost ? fail(Errc::kDamaged) : tl::unexpected<Error>(body.error());
}

// Makes a private copy: everything before the slots, the slots that may be in use, the exports, and
// the swap entries of those slots; of another user's slice perhaps the head alone.
Result<AllotSliceFile*> copy_file(const OpenFile& open) {
  auto memory = sys::map_memory(kFileBytes);
  if (!memory) return tl::unexpected<Error>(memory.error());
  AllotSliceFile* file = static_cast<AllotSliceFile*>(*memory);
  bool whole;
  if (open.head_only) {
    auto have = sys::read_at(open.fd.get(), file, kHeadBytes, 0);
    whole = have && *have == kHeadBytes;
  } else {
    whole = read_whole(open.fd.get(), open.slots(), file);
  }
  // The owner may have changed the header since the check.
  Result<void> checked = whole ? check_header(file->header) : fail(Errc::kDamaged);
  if (!checked) {
    sys::unmap(*memory, kFileBytes);
    return tl::unexpected<Error>(checked.error());
  }
  if (open.head_only) {
    complete_head(file, open.fd.get());
  } else {
    note_locks(file, open.fd.get());
  }
  (void)sys::protect_read_only(*memory, kFileBytes);
  return file;
}

void locate(Slice& slice, const sys::FileInfo& info, const char* path) {
  slice.owner_uid = info.uid;
  slice.device = info.device;
  slice.inode = info.inode;
  TextBuf(slice.path, sizeof(slice.path)).text(path);
}

Result<Slice> map_open(int folder, OpenFile& open, const SplitPath& split, bool writable) {
  if (auto checked = check_open(folder, open, split.name, writable); !checked)
    return tl::unexpected<Error>(checked.error());
  auto file = writable ? map_whole(open.fd.get(), open.body.get(), true) : copy_file(open);
  if (!file) return tl::unexpected<Error>(file.error());
  Slice slice{*file, writable};
  slice.copied = !writable;
  slice.head_only = open.head_only;
  locate(slice, open.info, split.whole);
  return slice;
}

// Removes the open file by its name if nobody uses it.
//
// Two processes may want to replace a stale file; the slower must not remove the new file of the
// faster. So a remover locks the *file* and then checks that the name still means that file: nobody
// else can remove it meanwhile, and a new file cannot get a name that is still taken. The kernel
// drops the lock when its holder dies.
//
// Another process may join at the same moment. It takes its slot first and then checks LEAVING; we
// set LEAVING first and then check the slots. At least one of the two sees the other.
Result<void> remove_open(int folder, const SplitPath& split, OpenFile& open, uint32_t except_pid) {
  const char* name = split.name;
  if (auto locked = sys::lock_now(open.fd.get()); !locked) return locked;
  auto named = sys::info_at(folder, name);
  if (!named) return tl::unexpected<Error>(named.error());
  if (named->inode != open.info.inode || named->device != open.info.device) {
    return fail(Errc::kNotFound);
  }
  auto slice = map_open(folder, open, split, true);
  AllotHeader header = {};  // names the body, also of a file that cannot be mapped
  auto have = sys::read_at(open.fd.get(), &header, sizeof(header), 0);
  const bool apart = have && *have == sizeof(header) && check_header(header) && has_body(header);
  if (slice) {
    uint32_t& flags = slice->file->header.flags;
    __atomic_fetch_or(&flags, ALLOT_SLICE_LEAVING, __ATOMIC_SEQ_CST);
    const bool used = slice_in_use(*slice, except_pid);
    if (used) __atomic_fetch_and(&flags, ~ALLOT_SLICE_LEAVING, __ATOMIC_SEQ_CST);
    unmap(*slice);
    if (used) return fail(Errc::kExists);
  } else if (slice.error().code != Errc::kDamaged && slice.error().code != Errc::kWrongVersion &&
             slice.error().code != Errc::kNotFound) {
    return tl::unexpected<Error>(slice.error());
  }
  auto removed = sys::remove_at(folder, name);
  if (removed && apart) remove_body(folder, header);
  return removed;
}

// Makes room for a new file of this name; succeeds when the name is, or has become, free.
Result<void> remove_stale(int folder, const SplitPath& split) {
  auto open = open_regular(folder, split.name, true);
  if (!open) {
    if (open.error().code == Errc::kNotFound) return {};
    return tl::unexpected<Error>(open.error());
  }
  auto removed = remove_open(folder, split, *open, 0);
  if (!removed && removed.error().code == Errc::kNotFound) return {};
  return removed;
}

Result<Slice> create_in(const char* folder_path, const NewSlice& slice, core::SlotId* slot) {
  if (!valid_name(slice.name)) return fail(Errc::kBadValue);
  auto folder = open_folder(folder_path);
  if (!folder) return tl::unexpected<Error>(folder.error());
  char path[kPathBytes];
  if (auto pathed = slice_path(folder_path, slice.name, path); !pathed)
    return tl::unexpected<Error>(pathed.error());
  SplitPath split;
  if (auto cut = split_path(path, &split); !cut) return tl::unexpected<Error>(cut.error());
  NewFiles files;
  auto made = build(*folder, slice, files, slot);
  Result<void> published = made ? Result<void>{} : tl::unexpected<Error>(made.error());
  if (made && files.apart) published = publish_body(files.body, made->file->header);
  const bool body_named = made && files.apart && published;
  for (uint32_t i = 0; published && i < kNameTries; ++i) {
    published = files.head.publish(split.name);
    if (published || published.error().code != Errc::kExists) break;
    published = remove_stale(folder->fd.get(), split);
    if (published && i + 1 == kNameTries) published = fail(Errc::kExists);
  }
  if (made && published) {
    auto info = sys::info_of(files.head.fd());
    if (info) locate(*made, *info, path);
    return made;
  }
  if (body_named) remove_body(folder->fd.get(), made->file->header);
  files.head.discard();
  files.body.discard();
  if (made) unmap(*made);
  return tl::unexpected<Error>(published.error());
}

// Whether `path` is a valid slice file with a live process in it. A file without one is stale, and
// joining it would bring back the limits of a program that ended long ago.
bool in_use_at(const char* path) {
  auto slice = open_slice(path, true);
  if (!slice) return false;
  const bool used = slice_in_use(*slice);
  unmap(*slice);
  return used;
}

}  // namespace

Result<Slice> create_slice(const char* folder, const NewSlice& slice) {
  return create_in(folder, slice, nullptr);
}

Result<Slice> open_slice(const char* path, bool writable) {
  SplitPath split;
  if (auto cut = split_path(path, &split); !cut) return tl::unexpected<Error>(cut.error());
  auto folder = open_folder(split.folder);
  if (!folder) return tl::unexpected<Error>(folder.error());
  auto open = open_regular(folder->fd.get(), split.name, writable);
  if (!open) return tl::unexpected<Error>(open.error());
  return map_open(folder->fd.get(), *open, split, writable);
}

Result<Slice> watch_slice(const char* path) {
  SplitPath split;
  if (auto cut = split_path(path, &split); !cut) return tl::unexpected<Error>(cut.error());
  auto folder = open_folder(split.folder);
  if (!folder) return tl::unexpected<Error>(folder.error());
  auto open = open_regular(folder->fd.get(), split.name, false);
  if (!open) return tl::unexpected<Error>(open.error());
  if (open->info.uid != sys::user_id()) return fail(Errc::kNoPermission);
  if (auto checked = check_open(folder->fd.get(), *open, split.name, false); !checked)
    return tl::unexpected<Error>(checked.error());
  if (open->head_only) return fail(Errc::kNoPermission);
  auto map = map_whole(open->fd.get(), open->body.get(), false);
  if (!map) return tl::unexpected<Error>(map.error());
  Slice slice{*map, false};
  locate(slice, open->info, split.whole);
  return slice;
}

void unmap(Slice& slice) {
  drop_slot_lock(slice.lock);
  if (slice.file != nullptr) sys::unmap(slice.file, kFileBytes);
  slice = Slice{};
}

Result<void> remove_slice(const char* path, uint32_t except_pid) {
  SplitPath split;
  if (auto cut = split_path(path, &split); !cut) return cut;
  auto folder = open_folder(split.folder);
  if (!folder) return tl::unexpected<Error>(folder.error());
  auto open = open_regular(folder->fd.get(), split.name, true);
  if (!open) return tl::unexpected<Error>(open.error());
  return remove_open(folder->fd.get(), split, *open, except_pid);
}

Result<Joined> join_slice(const char* path) {
  SplitPath split;
  if (auto cut = split_path(path, &split); !cut) return tl::unexpected<Error>(cut.error());
  auto folder = open_folder(split.folder);
  if (!folder) return tl::unexpected<Error>(folder.error());
  auto open = open_regular(folder->fd.get(), split.name, true);
  if (!open) return tl::unexpected<Error>(open.error());
  auto slice = map_open(folder->fd.get(), *open, split, true);
  if (!slice) return tl::unexpected<Error>(slice.error());
  reclaim_dead(*slice);
  core::Ledger ledger(slice->file);
  sys::Process process;
  SlotSpace space{open->fd.get(), open->slots()};
  auto owner = this_process(&process);
  if (owner) owner->held = &space.held;
  // A copy of us in another link namespace (dlmopen) has mapped the file before.
  const auto key = sys::mapped_at(sys::Root{}, slice->file);
  const auto maps = key ? sys::writable_maps(sys::Root{}, 0, *key) : Result<uint32_t>(0u);
  if (owner) owner->another_copy = maps && *maps > 1;
  auto slot = owner ? ledger.take_slot(*owner, prepare_slot, &space)
                    : Result<core::SlotId>(tl::unexpected<Error>(owner.error()));
  slice->lock = space.lock;
  if (slot && (core::load(slice->file->header.flags) & ALLOT_SLICE_LEAVING) != 0) {
    ledger.end_slot(*slot);
    slot = fail(Errc::kNotFound);
  }
  if (!slot) {
    unmap(*slice);
    return tl::unexpected<Error>(slot.error());
  }
  return Joined{*slice, *slot};
}

Result<Joined> join_or_create(const char* folder, const NewSlice& slice) {
  char path[kPathBytes];
  if (auto made = slice_path(folder, slice.name, path); !made) {
    return tl::unexpected<Error>(made.error());
  }
  Result<Joined> joined = fail(Errc::kNotFound);
  for (uint32_t i = 0; i < kNameTries; ++i) {
    if (in_use_at(path)) {
      joined = join_slice(path);
      if (joined || joined.error().code != Errc::kNotFound) break;
    }
    core::SlotId slot;
    auto made = create_in(folder, slice, &slot);
    if (made) return Joined{*made, slot};
    joined = tl::unexpected<Error>(made.error());
    if (made.error().code != Errc::kExists) break;
  }
  return joined;
}

}  // namespace allot::shm
