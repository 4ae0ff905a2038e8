// See slice_body.h.
#include "shm/slice_body.h"

#include <sys/stat.h>

#include <string_view>

#include "base/text.h"
#include "core/shared.h"
#include "shm/living.h"
#include "sys/clock.h"

namespace allot::shm {
namespace {

constexpr std::string_view kSuffix = ALLOT_BODY_SUFFIX;
constexpr uint32_t kDigits = 16;
constexpr size_t kNameBytes = ALLOT_NAME_BYTES + kDigits + 16;
constexpr uint64_t kSlotsAt = offsetof(AllotSliceFile, slots);
constexpr uint64_t kExportsAt = offsetof(AllotSliceFile, exports);
constexpr uint64_t kSwapsAt = offsetof(AllotSliceFile, swaps);
constexpr int kToRead = O_RDONLY | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK;

void body_name(const AllotHeader& header, char* out) {
  TextBuf(out, kNameBytes)
      .put('.')
      .text(header.name)
      .put('-')
      .hex(header.created_unix_ns, kDigits)
      .text(ALLOT_BODY_SUFFIX);
}

// Whether the slice to which a file of this name belongs is there; its name is between the dot and
// the digits.
bool has_head(int folder, std::string_view body) {
  AllotHeader header = {};
  char name[kNameBytes];
  const size_t length = body.size() - kSuffix.size() - kDigits - 2;
  TextBuf(name, sizeof(name)).text({body.data() + 1, length}).text(ALLOT_REGION_SUFFIX);
  auto head = sys::open_at(folder, name, kToRead);
  if (!head) return head.error().code != Errc::kNotFound;
  auto have = sys::read_at(head->get(), &header, sizeof(header), 0);
  if (!have || *have != sizeof(header)) return true;
  header.name[ALLOT_NAME_BYTES - 1] = '\0';
  body_name(header, name);
  return body == name;
}

struct Sweep {
  int folder;
  uint32_t removed;
};

bool sweep(void* context, const char* name) {
  Sweep& state = *static_cast<Sweep*>(context);
  const std::string_view body(name);
  if (body.size() < kSuffix.size() + kDigits + 3 || body.size() >= kNameBytes || body[0] != '.' ||
      !body.ends_with(kSuffix)) {
    return true;
  }
  auto fd = sys::open_at(state.folder, name, kToRead);
  if (!fd) return true;
  auto info = sys::info_of(fd->get());
  if (!info || info->uid != sys::user_id() || !S_ISREG(info->mode)) return true;
  // A creator has it locked. The lock comes first: then a head that is not there does not come.
  if (!sys::lock_now(fd->get()) || has_head(state.folder, body)) return true;
  if (sys::remove_at(state.folder, name)) ++state.removed;
  return true;
}

}  // namespace

Result<sys::NewFile> new_body(const Folder& folder) {
  auto body = sys::NewFile::create(folder.fd.get(), folder.members ? 0640 : 0600);
  if (!body) return body;
  Result<void> ready = sys::lock_now(body->fd());
  if (ready) ready = sys::set_size(body->fd(), kFileBytes);
  if (ready) return body;
  body->discard();
  return tl::unexpected<Error>(ready.error());
}

Result<void> publish_body(sys::NewFile& body, const AllotHeader& header) {
  char name[kNameBytes];
  body_name(header, name);
  return body.publish(name);
}

void remove_body(int folder, const AllotHeader& header) {
  char name[kNameBytes];
  body_name(header, name);
  (void)sys::remove_at(folder, name);
}

Result<sys::Fd> open_body(int folder, const AllotHeader& header, uint32_t owner, bool writable) {
  char name[kNameBytes];
  body_name(header, name);
  auto fd = sys::open_at(folder, name,
                         (writable ? O_RDWR : O_RDONLY) | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
  if (!fd) return fd;
  auto info = sys::info_of(fd->get());
  if (!info) return tl::unexpected<Error>(info.error());
  if (!S_ISREG(info->mode) || info->uid != owner || info->bytes != kFileBytes) {
    return fail(Errc::kDamaged);
  }
  return fd;
}

Result<AllotSliceFile*> map_whole(int head, int body, bool writable) {
  auto map = sys::map_file(body >= 0 ? body : head, kFileBytes, writable);
  if (!map) return tl::unexpected<Error>(map.error());
  if (body >= 0) {
    if (auto over = sys::map_over(*map, head, kHeadBytes, writable); !over) {
      sys::unmap(*map, kFileBytes);
      return tl::unexpected<Error>(over.error());
    }
  }
  return static_cast<AllotSliceFile*>(*map);
}

bool read_whole(int head, int body, AllotSliceFile* file) {
  char* at = reinterpret_cast<char*>(file);
  bool whole = true;
  const auto copy = [&](int fd, uint64_t from, uint64_t bytes) {
    if (!whole) return;
    auto have = sys::read_at(fd, at + from, bytes, from);
    whole = have && *have == bytes;
  };
  const int rest = body >= 0 ? body : head;
  copy(head, 0, kHeadBytes);
  copy(rest, kHeadBytes, kSlotsAt - kHeadBytes);
  const uint64_t high = whole ? core::slots_of(*file) : 0;
  copy(rest, kSlotsAt, high * sizeof(AllotSlot));
  copy(rest, kExportsAt, kSwapsAt - kExportsAt);
  copy(rest, kSwapsAt, high * sizeof(AllotSwap));
  return whole;
}

void complete_head(AllotSliceFile* file, int head) {
  AllotHeader& header = file->header;
  header.slots_high = 0;
  const uint64_t now = sys::monotonic_ns();
  bool any_recent = false;
  for (const AllotGpuClient& client : file->clients) {
    if (client.owner == 0 || client.slot >= ALLOT_MAX_SLOTS) continue;
    const bool recent =
        client.heartbeat_ns >= now || now - client.heartbeat_ns < ALLOT_CLIENT_STALE_NS;
    if (!recent) continue;
    file->slot_words[client.slot] = client.owner;
    any_recent = true;
  }
  // Whether it lives: any lock, of the launcher or of a process; an agent that runs. Where that
  // cannot be known it counts as alive.
  auto held = sys::byte_locked(head, ALLOT_LOCK_SLOT(0), ALLOT_MAX_SLOTS + 1);
  const bool known = held && header.held == ALLOT_HELD_BY_LOCK;
  header.held = known && !*held && !any_recent ? kSeenFree : kSeenHeld;
}

bool may_be_in_use(const char* path) {
  auto fd = sys::open_file(sys::Root{}, path, kToRead);
  if (!fd) return fd.error().code != Errc::kNotFound;
  auto held = sys::byte_locked(fd->get(), ALLOT_LOCK_SLOT(0), ALLOT_MAX_SLOTS + 1);
  return !held || *held;
}

uint32_t clear_orphans(const char* folder) {
  auto open = open_folder(folder);
  if (!open || !open->open) return 0;
  Sweep state{open->fd.get(), 0};
  (void)sys::list_folder(open->fd.get(), sweep, &state);
  return state.removed;
}

}  // namespace allot::shm
