// Reads the RM calls that pass, and keeps the descriptor on which they are made. See rm_tracker.h;
// the table of objects is in rm_objects.h.
//
// Calls that make no objects are turned away by two comparisons.
#include "shim/time/rm_tracker.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>

#include "abi/region.h"
#include "shim/process/process.h"
#include "shim/process/spin.h"
#include "shim/time/rm_objects.h"
#include "shim/time/tables.h"
#include "sys/file.h"

namespace allot::shim {
namespace {

constexpr int kFirstOwnFd = 700;  // out of the way of programs that count on low numbers
constexpr uint32_t kCopies = 16;

// Which file a descriptor is, to tell whether a number still means it.
struct FileIdentity {
  uint64_t device;
  uint64_t inode;
};

struct Descriptors {
  SpinLock lock;
  int fd = -1;  // the descriptor on which the last group that runs kernels came, our copy
  int fd_original = -1;
  FileIdentity file = {};
  int copies[kCopies] = {};  // all that are open
  uint32_t copy_count = 0;
  bool detached = false;  // evicted: no copies now
};

constinit Descriptors descriptors;
constinit std::atomic<uint64_t> seen{0};
constinit thread_local int making_on __attribute__((tls_model("initial-exec"))) = -1;
constinit std::atomic<uint32_t> makers[kMaxDevices] = {};  // threads that make a context there

bool known_ordinal(int ordinal) {
  return ordinal >= 0 && static_cast<uint32_t>(ordinal) < kMaxDevices;
}

int copy_of(int fd) {
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, kFirstOwnFd);
  return copy >= 0 ? copy : fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

FileIdentity identity_of(int fd) {
  const auto info = sys::info_of(fd);
  if (!info) return {};
  return {info->device, info->inode};
}

// Keeps `copy` of `fd` as the descriptor for calls; false when there is no place to remember it by.
// `descriptors.lock` is held.
bool keep(int copy, int fd, const FileIdentity& file) {
  if (copy >= 0 && descriptors.copy_count == kCopies) return false;
  if (copy >= 0) {
    descriptors.fd = copy;  // an earlier copy stays open: somebody may be using it
    descriptors.copies[descriptors.copy_count++] = copy;
  }
  if (copy >= 0 || descriptors.detached) {
    descriptors.file = file;
    __atomic_store_n(&descriptors.fd_original, fd, __ATOMIC_RELEASE);
  }
  return true;
}

// A group that runs kernels was made, or libcuda has set its timeslice: the descriptor is the
// client's. Other users of the GPU (OpenGL) make such groups, too, on descriptors of their own, but
// set no timeslice.
void runs_kernels(int fd, NvHandle client, NvHandle group, bool by_timeslice) {
  int copy = -1;
  const bool detached = __atomic_load_n(&descriptors.detached, __ATOMIC_ACQUIRE);
  const int known = __atomic_load_n(&descriptors.fd_original, __ATOMIC_ACQUIRE);
  const bool news = known != fd && (by_timeslice || detached || known < 0);
  if (news && !detached) copy = copy_of(fd);
  const FileIdentity file = news || detached ? identity_of(fd) : FileIdentity{};
  rm::runs_kernels(client, group);
  if (news || detached) {
    descriptors.lock.lock();
    const bool kept = keep(copy, fd, file);
    descriptors.lock.unlock();
    // Without it its channels cannot be stopped: the first call is refused, and the gate holds.
    if (!kept) {
      close(copy);
      table_full(ALLOT_TABLE_DESCRIPTORS);
    }
  }
  rm::changed();
}

// From what comes with a device or a group when it is made.
rm::Birth birth_of(uint32_t rm_class, uint64_t parameters) {
  rm::Birth birth;
  if (parameters == 0) return birth;
  if (rm_class == NV01_DEVICE_0) {
    birth.instance = reinterpret_cast<const NV0080_ALLOC_PARAMETERS_HEAD*>(parameters)->deviceId;
  } else if (rm_class == KEPLER_CHANNEL_GROUP_A) {
    const uint32_t engine =
        reinterpret_cast<const NV_CHANNEL_GROUP_ALLOCATION_PARAMETERS_HEAD*>(parameters)
            ->engineType;
    birth.runs_kernels = engine >= NV2080_ENGINE_TYPE_GR0 && engine <= NV2080_ENGINE_TYPE_GR7;
  }
  return birth;
}

template <class T>
const T* as(unsigned long request, const void* argument) {
  return ALLOT_RM_REQUEST_SIZE(request) == sizeof(T) ? static_cast<const T*>(argument) : nullptr;
}

template <class Parameters>
void watch_made(int fd, const Parameters& p) {
  if (p.status != NV_OK) return;
  const rm::Birth birth = birth_of(p.hClass, p.pAllocParms);
  rm::made(p.hRoot, p.hObjectParent, p.hObjectNew, p.hClass, birth, making_on);
  if (birth.runs_kernels) runs_kernels(fd, p.hRoot, p.hObjectNew, false);
}

void watch_alloc(int fd, unsigned long request, const void* argument) {
  if (const auto* p = as<NVOS64_PARAMETERS>(request, argument)) {
    watch_made(fd, *p);
  } else if (const auto* q = as<NVOS21_PARAMETERS>(request, argument)) {
    watch_made(fd, *q);
  }
}

}  // namespace

void watch_rm_call(int fd, unsigned long request, const void* argument, int result) {
  seen.fetch_add(1, std::memory_order_relaxed);
  if (result != 0 || argument == nullptr) return;
  switch (ALLOT_RM_REQUEST_NR(request)) {
    case NV_ESC_RM_ALLOC:
      watch_alloc(fd, request, argument);
      break;
    case NV_ESC_RM_CONTROL:
      if (const auto* p = as<NVOS54_PARAMETERS>(request, argument)) {
        if (p->cmd == NVA06C_CTRL_CMD_SET_TIMESLICE) runs_kernels(fd, p->hClient, p->hObject, true);
      }
      break;
    case NV_ESC_RM_FREE:
      if (const auto* p = as<NVOS00_PARAMETERS>(request, argument)) {
        if (p->status == NV_OK) rm::freed(p->hRoot, p->hObjectOld);
      }
      break;
    default:
      break;
  }
}

uint64_t rm_calls_seen() {
  return seen.load(std::memory_order_relaxed);
}

bool rm_channels(int ordinal, RmChannels* out, uint32_t page) {
  *out = {};
  const bool known = rm::channels_of(ordinal, page, out);
  descriptors.lock.lock();
  out->fd = descriptors.fd;
  descriptors.lock.unlock();
  return known && out->fd >= 0;
}

void rm_close_old_copies() {
  int old[kCopies];
  uint32_t count = 0, kept = 0;
  descriptors.lock.lock();
  for (uint32_t i = 0; i < descriptors.copy_count; ++i) {
    const int copy = descriptors.copies[i];
    if (copy == descriptors.fd) {
      descriptors.copies[kept++] = copy;
    } else {
      old[count++] = copy;
    }
  }
  descriptors.copy_count = kept;
  descriptors.lock.unlock();
  for (uint32_t i = 0; i < count; ++i) close(old[i]);
}

void rm_let_go() {
  int copies[kCopies];
  rm::all_are_before();
  descriptors.lock.lock();
  const uint32_t count = descriptors.copy_count;
  for (uint32_t i = 0; i < count; ++i) copies[i] = descriptors.copies[i];
  descriptors.copy_count = 0;
  descriptors.fd = -1;
  __atomic_store_n(&descriptors.detached, true, __ATOMIC_RELEASE);
  descriptors.lock.unlock();
  for (uint32_t i = 0; i < count; ++i) close(copies[i]);
  rm::changed();
}

void rm_take_hold() {
  descriptors.lock.lock();
  const int original = descriptors.fd_original;
  const FileIdentity wanted = descriptors.file;
  descriptors.lock.unlock();
  const FileIdentity found = original >= 0 ? identity_of(original) : FileIdentity{};
  const bool same = original >= 0 && found.device == wanted.device && found.inode == wanted.inode;
  const int copy = same ? copy_of(original) : -1;
  rm::forget_those_before();
  descriptors.lock.lock();
  descriptors.fd = copy;
  if (copy >= 0) descriptors.copies[descriptors.copy_count++] = copy;  // rm_let_go has made room
  if (copy < 0) __atomic_store_n(&descriptors.fd_original, -1, __ATOMIC_RELEASE);
  __atomic_store_n(&descriptors.detached, false, __ATOMIC_RELEASE);
  descriptors.lock.unlock();
  rm::changed();
}

MakingContextOn::MakingContextOn(const Call&, int ordinal) : outer_(making_on) {
  if (known_ordinal(ordinal)) makers[ordinal].fetch_add(1);
  making_on = ordinal;
}
MakingContextOn::~MakingContextOn() {
  if (known_ordinal(making_on)) makers[making_on].fetch_sub(1);
  making_on = outer_;
}

bool making_context_on(int ordinal) {
  return known_ordinal(ordinal) && makers[ordinal].load() != 0;
}

void forget_rm() {
  rm::forget_objects();
  descriptors.lock.abandon();
  descriptors.fd = -1;
  descriptors.fd_original = -1;
  descriptors.copy_count = 0;  // inherited copies stay open: they are the parent's numbers
  descriptors.detached = false;
  for (std::atomic<uint32_t>& count : makers) count.store(0);
}

}  // namespace allot::shim
