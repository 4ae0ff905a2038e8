// One small table of objects behind a spin lock; RM calls that make objects are rare (some hundred
// at a context's birth) and those that do not are turned away by two comparisons. See rm_tracker.h.
#include "shim/time/rm_tracker.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>

#include "shim/process/process.h"
#include "shim/process/spin.h"
#include "sys/file.h"

namespace allot::shim {
namespace {

constexpr uint32_t kObjects = 2048;
constexpr int kFirstOwnFd = 700;  // out of the way of programs that count on low numbers
constexpr uint32_t kCopies = 16;
constexpr uint32_t kInstances = 32;  // GPUs as the driver numbers them (NV_MAX_DEVICES)
constexpr uint32_t kNoInstance = UINT32_MAX;

struct Object {
  NvHandle client;
  NvHandle parent;
  NvHandle handle;  // 0 = free
  uint32_t rm_class;
  int ordinal;        // of a device: the GPU, -1 = not known yet
  uint32_t instance;  // of a device: its number in the driver
  bool runs_kernels;  // of a group
  bool before;        // made before an eviction that is not over yet
};

// Which file a descriptor is, to tell whether a number still means it.
struct FileIdentity {
  uint64_t device;
  uint64_t inode;
};

struct Registry {
  SpinLock lock;
  Object objects[kObjects] = {};
  uint32_t high = 0;
  int fd = -1;  // the descriptor on which the last group that runs kernels came, our copy
  int fd_original = -1;
  FileIdentity file = {};
  int copies[kCopies] = {};  // all that are open
  uint32_t copy_count = 0;
  bool detached = false;                  // evicted: no copies now
  int ordinal_plus_one[kInstances] = {};  // of a GPU by the driver's number; 0 = not known
};

constinit Registry registry;
constinit std::atomic<uint64_t> seen{0};
constinit std::atomic<uint32_t> generation{0};
constinit std::atomic<bool> overflow{false};
constinit thread_local int making_on __attribute__((tls_model("initial-exec"))) = -1;

constinit std::atomic<uint32_t> makers[kMaxDevices] = {};  // threads that make a context there

bool known_ordinal(int ordinal) {
  return ordinal >= 0 && static_cast<uint32_t>(ordinal) < kMaxDevices;
}

bool interesting(uint32_t rm_class) {
  return rm_class == NV01_DEVICE_0 || rm_class == NV20_SUBDEVICE_0 ||
         rm_class == KEPLER_CHANNEL_GROUP_A || ALLOT_RM_IS_CHANNEL_CLASS(rm_class);
}

Object* find(NvHandle client, NvHandle handle) {
  for (uint32_t i = 0; i < registry.high; ++i) {
    Object& object = registry.objects[i];
    if (object.handle == handle && object.client == client) return &object;
  }
  return nullptr;
}

void changed() {
  generation.fetch_add(1, std::memory_order_acq_rel);
}

// A place for an object: its own, where an eviction has let it come again under its old handle.
Object* place_for(NvHandle client, NvHandle handle) {
  if (Object* same = find(client, handle); same != nullptr) return same;
  for (uint32_t i = 0; i < registry.high; ++i) {
    if (registry.objects[i].handle == 0) return &registry.objects[i];
  }
  return registry.high < kObjects ? &registry.objects[registry.high++] : nullptr;
}

// The GPU of a device that is made while no context is: after an eviction, by a thread of the
// driver.
int ordinal_of_instance(uint32_t instance) {
  return instance < kInstances ? registry.ordinal_plus_one[instance] - 1 : -1;
}

void learn_ordinal(Object* device) {
  if (device == nullptr || device->ordinal >= 0) return;
  device->ordinal = making_on;
  if (device->instance < kInstances) registry.ordinal_plus_one[device->instance] = making_on + 1;
}

// What is told of an object when it is made, beside its name.
struct Birth {
  uint32_t instance = kNoInstance;  // of a device
  bool runs_kernels = false;        // of a group: its engine does
};

void made(NvHandle client, NvHandle parent, NvHandle handle, uint32_t rm_class, Birth birth) {
  if (handle == 0 || !interesting(rm_class)) return;
  registry.lock.lock();
  Object* free = place_for(client, handle);
  if (free != nullptr) {
    *free = Object{client,
                   parent,
                   handle,
                   rm_class,
                   ordinal_of_instance(birth.instance),
                   birth.instance,
                   birth.runs_kernels,
                   false};
    if (rm_class == KEPLER_CHANNEL_GROUP_A && making_on >= 0) learn_ordinal(find(client, parent));
  }
  registry.lock.unlock();
  if (free == nullptr) overflow.store(true, std::memory_order_relaxed);
  if (ALLOT_RM_IS_CHANNEL_CLASS(rm_class)) changed();
}

// Takes away `handle` and what hangs below it; a client's own handle is its root.
void freed(NvHandle client, NvHandle handle) {
  bool channels_went = false;
  registry.lock.lock();
  for (int depth = 0; depth < 4; ++depth) {  // device > group > channel: no deeper
    bool any = false;
    for (uint32_t i = 0; i < registry.high; ++i) {
      Object& object = registry.objects[i];
      if (object.handle == 0 || object.client != client) continue;
      const bool orphan =
          object.handle == handle || client == handle || object.parent == handle ||
          (object.rm_class != NV01_DEVICE_0 && find(client, object.parent) == nullptr);
      if (!orphan) continue;
      channels_went = channels_went || ALLOT_RM_IS_CHANNEL_CLASS(object.rm_class);
      object.handle = 0;
      any = true;
    }
    if (!any) break;
  }
  registry.lock.unlock();
  if (channels_went) changed();
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

// A group that runs kernels was made, or libcuda has set its timeslice: the descriptor is the
// client's. Other users of the GPU (OpenGL) make such groups, too, on descriptors of their own, but
// set no timeslice.
void runs_kernels(int fd, NvHandle client, NvHandle group, bool by_timeslice) {
  int copy = -1;
  const bool detached = __atomic_load_n(&registry.detached, __ATOMIC_ACQUIRE);
  const int known = __atomic_load_n(&registry.fd_original, __ATOMIC_ACQUIRE);
  const bool news = known != fd && (by_timeslice || detached || known < 0);
  if (news && !detached) copy = copy_of(fd);
  const FileIdentity file = news || detached ? identity_of(fd) : registry.file;
  registry.lock.lock();
  if (Object* object = find(client, group); object != nullptr) object->runs_kernels = true;
  if (copy >= 0) {
    registry.fd = copy;  // an earlier copy stays open: somebody may be using it
    if (registry.copy_count < kCopies) registry.copies[registry.copy_count++] = copy;
  }
  if (copy >= 0 || detached) {
    registry.file = file;
    __atomic_store_n(&registry.fd_original, fd, __ATOMIC_RELEASE);
  }
  registry.lock.unlock();
  changed();
}

// From what comes with a device or a group when it is made.
Birth birth_of(uint32_t rm_class, uint64_t parameters) {
  Birth birth;
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
  const Birth birth = birth_of(p.hClass, p.pAllocParms);
  made(p.hRoot, p.hObjectParent, p.hObjectNew, p.hClass, birth);
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
        if (p->status == NV_OK) freed(p->hRoot, p->hObjectOld);
      }
      break;
    default:
      break;
  }
}

uint64_t rm_calls_seen() {
  return seen.load(std::memory_order_relaxed);
}

uint32_t rm_generation() {
  return generation.load(std::memory_order_acquire);
}

bool rm_overflow() {
  return overflow.load(std::memory_order_relaxed);
}

bool rm_channels(int ordinal, RmChannels* out) {
  *out = {};
  out->fd = -1;
  NvHandle device = 0;
  registry.lock.lock();
  for (uint32_t i = 0; i < registry.high; ++i) {
    const Object& object = registry.objects[i];
    if (object.handle == 0 || object.rm_class != KEPLER_CHANNEL_GROUP_A || !object.runs_kernels)
      continue;
    const Object* parent = find(object.client, object.parent);
    if (parent == nullptr || parent->ordinal != ordinal) continue;
    if (out->group_count > 0 && (out->client != object.client || device != object.parent)) continue;
    out->client = object.client;
    device = object.parent;
    if (out->group_count < kMaxGroups) out->groups[out->group_count++] = object.handle;
  }
  for (uint32_t i = 0; i < registry.high && device != 0; ++i) {
    const Object& object = registry.objects[i];
    if (object.handle == 0 || object.client != out->client) continue;
    if (object.rm_class == NV20_SUBDEVICE_0 && object.parent == device && out->subdevice == 0) {
      out->subdevice = object.handle;
    } else if (ALLOT_RM_IS_CHANNEL_CLASS(object.rm_class)) {
      const Object* group = find(object.client, object.parent);
      const bool here = object.parent == device || (group != nullptr && group->parent == device);
      if (here && out->channel_count < kMaxChannels)
        out->channels[out->channel_count++] = object.handle;
    }
  }
  out->fd = registry.fd;
  registry.lock.unlock();
  return out->fd >= 0 && out->group_count > 0 && out->channel_count > 0 && out->subdevice != 0;
}

void rm_let_go() {
  int copies[kCopies];
  registry.lock.lock();
  const uint32_t count = registry.copy_count;
  for (uint32_t i = 0; i < count; ++i) copies[i] = registry.copies[i];
  registry.copy_count = 0;
  registry.fd = -1;
  __atomic_store_n(&registry.detached, true, __ATOMIC_RELEASE);
  for (uint32_t i = 0; i < registry.high; ++i) registry.objects[i].before = true;
  registry.lock.unlock();
  for (uint32_t i = 0; i < count; ++i) close(copies[i]);
  changed();
}

void rm_take_hold() {
  registry.lock.lock();
  const int original = registry.fd_original;
  const FileIdentity wanted = registry.file;
  registry.lock.unlock();
  const FileIdentity found = original >= 0 ? identity_of(original) : FileIdentity{};
  const bool same = original >= 0 && found.device == wanted.device && found.inode == wanted.inode;
  const int copy = same ? copy_of(original) : -1;
  registry.lock.lock();
  registry.fd = copy;
  if (copy >= 0 && registry.copy_count < kCopies) registry.copies[registry.copy_count++] = copy;
  if (copy < 0) __atomic_store_n(&registry.fd_original, -1, __ATOMIC_RELEASE);
  bool made_anew = false;
  for (uint32_t i = 0; i < registry.high; ++i) {
    const Object& object = registry.objects[i];
    if (object.handle != 0 && !object.before && object.runs_kernels) made_anew = true;
  }
  for (uint32_t i = 0; i < registry.high; ++i) {
    Object& object = registry.objects[i];
    if (object.before && made_anew) object.handle = 0;
    object.before = false;
  }
  __atomic_store_n(&registry.detached, false, __ATOMIC_RELEASE);
  registry.lock.unlock();
  changed();
}

MakingContextOn::MakingContextOn(int ordinal) : outer_(making_on) {
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
  registry.lock.abandon();
  for (uint32_t i = 0; i < registry.high; ++i) registry.objects[i].handle = 0;
  registry.high = 0;
  registry.fd = -1;
  registry.fd_original = -1;
  registry.copy_count = 0;  // inherited copies stay open: they are the parent's numbers
  registry.detached = false;
  for (std::atomic<uint32_t>& count : makers) count.store(0);
  overflow.store(false, std::memory_order_relaxed);
}

}  // namespace allot::shim
