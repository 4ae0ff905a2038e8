// See time_view.h.
#include "shm/time_view.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>

#include <ctime>

#include "core/shared.h"
#include "sys/clock.h"
#include "sys/file.h"
#include "sys/futex.h"

namespace allot::shm {
namespace {

// A client that was registered a moment ago has no slot yet, but a fresh heartbeat.
bool live_client(const AllotSliceFile& file, const AllotGpuClient& client, uint64_t now_ns) {
  const uint64_t owner = core::load(client.owner);
  if (owner == 0) return false;
  const uint32_t slot = core::load(client.slot);
  if (slot < ALLOT_MAX_SLOTS && core::load(file.slot_words[slot]) == owner) return true;
  const uint64_t heartbeat_ns = core::load(client.heartbeat_ns);
  return heartbeat_ns >= now_ns || now_ns - heartbeat_ns < ALLOT_CLIENT_STALE_NS;
}

constexpr int kToRead = O_RDONLY | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK;

Result<void> read_open(const Result<sys::Fd>& fd, TimeView* out) {
  if (!fd) return tl::unexpected<Error>(fd.error());
  auto have = sys::read_at(fd->get(), out, sizeof(*out), 0);
  if (!have) return tl::unexpected<Error>(have.error());
  const AllotHeader& header = out->header;
  if (*have != sizeof(*out) || header.magic != ALLOT_REGION_MAGIC) return fail(Errc::kDamaged);
  if (header.major != ALLOT_REGION_MAJOR) return fail(Errc::kWrongVersion);
  if ((header.file_bytes != sizeof(AllotSliceFile) && header.file_bytes != ALLOT_HEAD_BYTES) ||
      header.header_bytes != sizeof(AllotHeader) || header.gpu_bytes != sizeof(AllotGpu) ||
      header.gpu_count > ALLOT_MAX_GPUS) {
    return fail(Errc::kDamaged);
  }
  return {};
}

}  // namespace

Result<void> read_time_view(const char* path, TimeView* out) {
  return read_open(sys::open_file(sys::Root{}, path, kToRead), out);
}

Result<void> read_time_view_at(int folder, const char* file_name, TimeView* out) {
  return read_open(sys::open_at(folder, file_name, kToRead), out);
}

Result<uint32_t> take_client(Slice& slice, core::SlotId slot, uint32_t gpu) {
  AllotSliceFile& file = *slice.file;
  const uint64_t mine = core::load(file.slot_words[slot.index]);
  for (uint32_t i = 0; i < ALLOT_MAX_CLIENTS; ++i) {
    AllotGpuClient& client = file.clients[i];
    if (core::load(client.owner) == mine && core::load(client.gpu) == gpu) return i;
  }
  for (uint32_t i = 0; i < ALLOT_MAX_CLIENTS; ++i) {
    AllotGpuClient& client = file.clients[i];
    uint64_t owner = core::load(client.owner);
    const uint64_t now = sys::monotonic_ns();
    if (live_client(file, client, now)) continue;
    // Two processes may find the same dead client: one wins the owner word and fills in the rest.
    core::store(client.flags, 0u);
    core::store(client.heartbeat_ns, now);
    if (!core::cas(client.owner, owner, mine)) continue;
    core::store(client.slot, slot.index);
    core::store(client.gpu, gpu);
    core::store(client.used_ns, uint64_t{0});
    core::store(client.throttled_ns, uint64_t{0});
    core::store(client.level, uint32_t{ALLOT_LEVEL_AUTO});
    core::store(client.reason, uint32_t{ALLOT_REASON_NONE});
    core::store(client.timeslice_us, 0u);
    core::store(client.busy_permille, uint16_t{0});
    core::store(client.footprint_permille, uint16_t{0});
    core::store(client.window_permille, 1000u);
    return i;
  }
  return fail(Errc::kFull);
}

void notify(Slice& slice) {
  uint32_t& wake_seq = slice.file->header.wake_seq;
  __atomic_fetch_add(&wake_seq, 1u, __ATOMIC_SEQ_CST);
  sys::futex_wake(&wake_seq, sys::FutexScope::kShared);
}

void notify_other(const char* path) {
  auto fd = sys::open_file(sys::Root{}, path, kToRead);
  if (!fd) return;
  auto map = sys::map_file(fd->get(), sizeof(AllotHeader), false);
  if (!map) return;
  sys::futex_wake(&static_cast<AllotHeader*>(*map)->wake_seq, sys::FutexScope::kShared);
  sys::unmap(*map, sizeof(AllotHeader));
}

bool wait_for_wake(const Slice& slice, uint32_t seen, uint64_t timeout_ns) {
  return sys::futex_wait(&slice.file->header.wake_seq, seen, timeout_ns, sys::FutexScope::kShared);
}

}  // namespace allot::shm
