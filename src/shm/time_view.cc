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

// A seat that was taken a moment ago has no slot yet, but a fresh heartbeat.
bool live_seat(const AllotTenantFile& file, const AllotTimeSeat& seat, uint64_t now_ns) {
  const uint64_t owner = core::load(seat.owner);
  if (owner == 0) return false;
  const uint32_t slot = core::load(seat.slot);
  if (slot < ALLOT_MAX_SLOTS && core::load(file.slot_words[slot]) == owner) return true;
  const uint64_t heartbeat_ns = core::load(seat.heartbeat_ns);
  return heartbeat_ns >= now_ns || now_ns - heartbeat_ns < ALLOT_SEAT_STALE_NS;
}

}  // namespace

Result<void> read_time_view(const char* path, TimeView* out) {
  auto fd = sys::open_file(sys::Root{}, path, O_RDONLY | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
  if (!fd) return tl::unexpected<Error>(fd.error());
  auto have = sys::read_at(fd->get(), out, sizeof(*out), 0);
  if (!have) return tl::unexpected<Error>(have.error());
  const AllotHeader& header = out->header;
  if (*have != sizeof(*out) || header.magic != ALLOT_REGION_MAGIC) return fail(Errc::kDamaged);
  if (header.major != ALLOT_REGION_MAJOR) return fail(Errc::kWrongVersion);
  if (header.file_bytes != sizeof(AllotTenantFile) || header.header_bytes != sizeof(AllotHeader) ||
      header.gpu_bytes != sizeof(AllotGpu) || header.gpu_count > ALLOT_MAX_GPUS) {
    return fail(Errc::kDamaged);
  }
  return {};
}

Result<uint32_t> take_seat(Tenant& tenant, core::SlotId slot, uint32_t gpu) {
  AllotTenantFile& file = *tenant.file;
  const uint64_t mine = core::load(file.slot_words[slot.index]);
  for (uint32_t i = 0; i < ALLOT_MAX_SEATS; ++i) {
    AllotTimeSeat& seat = file.seats[i];
    if (core::load(seat.owner) == mine && core::load(seat.gpu) == gpu) return i;
  }
  for (uint32_t i = 0; i < ALLOT_MAX_SEATS; ++i) {
    AllotTimeSeat& seat = file.seats[i];
    uint64_t owner = core::load(seat.owner);
    const uint64_t now = sys::monotonic_ns();
    if (live_seat(file, seat, now)) continue;
    // Two who find the same dead seat: one wins the owner word, and fills in the rest.
    core::store(seat.flags, 0u);
    core::store(seat.heartbeat_ns, now);
    if (!core::cas(seat.owner, owner, mine)) continue;
    core::store(seat.slot, slot.index);
    core::store(seat.gpu, gpu);
    core::store(seat.used_ns, uint64_t{0});
    core::store(seat.throttled_ns, uint64_t{0});
    core::store(seat.level, uint32_t{ALLOT_LEVEL_AUTO});
    core::store(seat.reason, uint32_t{ALLOT_REASON_NONE});
    core::store(seat.slice_us, 0u);
    core::store(seat.busy_permille, 0u);
    core::store(seat.window_permille, 1000u);
    return i;
  }
  return fail(Errc::kFull);
}

void ring(Tenant& tenant) {
  uint32_t& bell = tenant.file->header.bell;
  __atomic_fetch_add(&bell, 1u, __ATOMIC_SEQ_CST);
  sys::futex_wake(&bell, sys::FutexScope::kShared);
}

void ring_other(const char* path) {
  auto fd = sys::open_file(sys::Root{}, path, O_RDONLY | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
  if (!fd) return;
  auto map = sys::map_file(fd->get(), sizeof(AllotHeader), false);
  if (!map) return;
  sys::futex_wake(&static_cast<AllotHeader*>(*map)->bell, sys::FutexScope::kShared);
  sys::unmap(*map, sizeof(AllotHeader));
}

void wait_for_bell(const Tenant& tenant, uint32_t seen, uint64_t timeout_ns) {
  sys::futex_wait(&tenant.file->header.bell, seen, timeout_ns, sys::FutexScope::kShared);
}

}  // namespace allot::shm
