// One small table of objects behind a spin lock; RM calls that make objects are rare (some hundred at a
// context's birth) and those that do not are turned away by two comparisons. See rm_watch.h.
#include "shim/rm_watch.h"

#include <fcntl.h>

#include <atomic>

#include "shim/spin.h"

namespace allot::shim {
namespace {

constexpr uint32_t kObjects = 2048;
constexpr int kFirstOwnFd = 700;  // out of the way of programs that count on low numbers

struct Object {
  NvHandle client;
  NvHandle parent;
  NvHandle handle;  // 0 = free
  uint32_t rm_class;
  int ordinal;        // of a device: the GPU, -1 = not known yet
  bool runs_kernels;  // of a group
};

struct Registry {
  SpinLock lock;
  Object objects[kObjects] = {};
  uint32_t high = 0;
  int fd = -1;  // the descriptor of the last SET_TIMESLICE, our copy
  int fd_original = -1;
};

constinit Registry registry;
constinit std::atomic<uint64_t> seen{0};
constinit std::atomic<uint32_t> generation{0};
constinit std::atomic<bool> overflow{false};
constinit thread_local int making_on __attribute__((tls_model("initial-exec"))) = -1;

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

void made(NvHandle client, NvHandle parent, NvHandle handle, uint32_t rm_class) {
  if (handle == 0 || !interesting(rm_class)) return;
  registry.lock.lock();
  Object* free = nullptr;
  for (uint32_t i = 0; i < registry.high && free == nullptr; ++i) {
    if (registry.objects[i].handle == 0) free = &registry.objects[i];
  }
  if (free == nullptr && registry.high < kObjects) free = &registry.objects[registry.high++];
  if (free != nullptr) {
    *free = Object{client, parent, handle, rm_class, -1, false};
    if (rm_class == KEPLER_CHANNEL_GROUP_A && making_on >= 0) {
      Object* device = find(client, parent);
      if (device != nullptr && device->ordinal < 0) device->ordinal = making_on;
    }
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

// libcuda sets the timeslice of the group that runs kernels.
void timeslice_set(int fd, NvHandle client, NvHandle group) {
  int copy = -1;
  if (__atomic_load_n(&registry.fd_original, __ATOMIC_ACQUIRE) != fd) {
    copy = fcntl(fd, F_DUPFD_CLOEXEC, kFirstOwnFd);
    if (copy < 0) copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  }
  registry.lock.lock();
  if (Object* object = find(client, group); object != nullptr) object->runs_kernels = true;
  if (copy >= 0) {
    registry.fd = copy;  // an earlier copy stays open: somebody may be using it
    __atomic_store_n(&registry.fd_original, fd, __ATOMIC_RELEASE);
  }
  registry.lock.unlock();
  changed();
}

template <class T>
const T* as(unsigned long request, const void* argument) {
  return ALLOT_RM_REQUEST_SIZE(request) == sizeof(T) ? static_cast<const T*>(argument) : nullptr;
}

void watch_alloc(unsigned long request, const void* argument) {
  if (const auto* p = as<NVOS64_PARAMETERS>(request, argument)) {
    if (p->status == NV_OK) made(p->hRoot, p->hObjectParent, p->hObjectNew, p->hClass);
  } else if (const auto* q = as<NVOS21_PARAMETERS>(request, argument)) {
    if (q->status == NV_OK) made(q->hRoot, q->hObjectParent, q->hObjectNew, q->hClass);
  }
}

}  // namespace

void watch_rm_call(int fd, unsigned long request, const void* argument, int result) {
  seen.fetch_add(1, std::memory_order_relaxed);
  if (result != 0 || argument == nullptr) return;
  switch (ALLOT_RM_REQUEST_NR(request)) {
    case NV_ESC_RM_ALLOC:
      watch_alloc(request, argument);
      break;
    case NV_ESC_RM_CONTROL:
      if (const auto* p = as<NVOS54_PARAMETERS>(request, argument)) {
        if (p->cmd == NVA06C_CTRL_CMD_SET_TIMESLICE) timeslice_set(fd, p->hClient, p->hObject);
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

MakingContextOn::MakingContextOn(int ordinal) : outer_(making_on) {
  making_on = ordinal;
}
MakingContextOn::~MakingContextOn() {
  making_on = outer_;
}

void forget_rm() {
  registry.lock.abandon();
  for (uint32_t i = 0; i < registry.high; ++i) registry.objects[i].handle = 0;
  registry.high = 0;
  registry.fd = -1;
  registry.fd_original = -1;
  overflow.store(false, std::memory_order_relaxed);
}

}  // namespace allot::shim
