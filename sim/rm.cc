// RM calls: those that libcuda makes for a context, and what they do to the scheduler.
//
// The calls of a context go out through ioctl(), so that whoever watches a process's RM calls sees
// them as on a card. The descriptor is a memfd, for which the kernel answers ENOTTY; then the call
// is carried out here. A watcher that took the call over brings it here itself, through
// allot_sim_ioctl().
//
// Seen on an H100 (driver 580) and kept here: one client per process, a device and a subdevice per
// GPU, per context four channel groups of two channels, each told its engine, SET_TIMESLICE 2048 on
// the group that runs kernels; but not when the driver restores a context. Handles belong to a
// client: with others the status is 0x23. SET_TIMESLICE takes 0.35 ms, PREEMPT 0.45 ms, disabling
// and enabling channels 0.5 ms each.
#include "rm.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <map>

#include "driver/rm_abi.h"
#include "runtime.h"

namespace allot::sim {
namespace {

constexpr int kGroups = 4, kChannels = 8;

struct RmContext {
  NvHandle groups[kGroups] = {};
  NvHandle channels[kChannels] = {};
  uint32_t disabled = 0;  // by channel
  bool open = true;
};

struct Object {
  uint32_t cls;
  NvHandle parent;
  Context* context = nullptr;  // of groups and channels
  int index = 0;               // among the context's groups or channels
  uint64_t timeslice_us = kDefaultTimesliceUs;
};

struct Rm {
  std::mutex mutex;
  std::map<NvHandle, std::map<NvHandle, Object>> clients;
  NvHandle next_client = 0xc1d00001, next_object = 0x5c000001;
  int fd = -1;
  NvHandle client = 0;  // libcuda's
  NvHandle device[kMaxGpus] = {}, subdevice[kMaxGpus] = {};
};

Rm& rm() {
  static Rm& state = *new Rm;
  return state;
}

// Context being made by this thread: its allocations belong to it, and its calls take no time.
thread_local Context* t_making;
thread_local int t_index;

void take_time(int64_t us) {
  if (t_making != nullptr) return;
  timespec t{0, us * 1000};
  nanosleep(&t, nullptr);
}

Object* find_object(NvHandle client, NvHandle object, uint32_t* status) {
  auto c = rm().clients.find(client);
  if (c == rm().clients.end()) {
    *status = NV_ERR_INVALID_CLIENT;
    return nullptr;
  }
  auto o = c->second.find(object);
  if (o == c->second.end()) {
    *status = NV_ERR_INVALID_OBJECT_HANDLE;
    return nullptr;
  }
  *status = NV_OK;
  return &o->second;
}

uint32_t allocate(NvHandle root, NvHandle parent, NvHandle* made, uint32_t cls) {
  Rm& state = rm();
  if (cls == NV01_ROOT || cls == NV01_ROOT_CLIENT) {
    if (*made == 0) *made = state.next_client++;
    if (!state.clients.try_emplace(*made).second) return NV_ERR_INVALID_ARGUMENT;
    return NV_OK;
  }
  auto client = state.clients.find(root);
  if (client == state.clients.end()) return NV_ERR_INVALID_CLIENT;
  if (parent != root && client->second.count(parent) == 0) return NV_ERR_INVALID_OBJECT_PARENT;
  if (*made == 0) *made = state.next_object++;
  Object object{cls, parent};
  object.context = t_making;
  object.index = t_index;
  if (!client->second.try_emplace(*made, object).second) return NV_ERR_INVALID_ARGUMENT;
  return NV_OK;
}

uint32_t release(NvHandle root, NvHandle handle) {
  auto client = rm().clients.find(root);
  if (client == rm().clients.end()) return NV_ERR_INVALID_CLIENT;
  if (handle == root) {
    rm().clients.erase(client);
    return NV_OK;
  }
  if (client->second.erase(handle) == 0) return NV_ERR_INVALID_OBJECT_HANDLE;
  std::vector<NvHandle> below;
  for (const auto& [h, object] : client->second) {
    if (object.parent == handle) below.push_back(h);
  }
  for (NvHandle h : below) release(root, h);
  return NV_OK;
}

// A group's own calls. rm().mutex held; the time a call takes is spent by the caller.
uint32_t control_group(Object* group, uint32_t cmd, void* params, uint32_t size, int64_t* cost_us) {
  Context* c = group->context;
  const bool runs_kernels = c != nullptr && group->index == 0 && c->group != UINT32_MAX;
  auto* slice = static_cast<NVA06C_CTRL_TIMESLICE_PARAMS*>(params);
  switch (cmd) {
    case NVA06C_CTRL_CMD_SET_TIMESLICE:
      if (size != sizeof *slice) return NV_ERR_INVALID_PARAM_STRUCT;
      *cost_us = 350;
      group->timeslice_us = slice->timesliceUs;
      if (runs_kernels && slice->timesliceUs != 0) {
        set_timeslice(c->gpu, c->group, static_cast<uint32_t>(slice->timesliceUs));
      }
      return NV_OK;
    case NVA06C_CTRL_CMD_GET_TIMESLICE:
      if (size != sizeof *slice) return NV_ERR_INVALID_PARAM_STRUCT;
      slice->timesliceUs = group->timeslice_us;
      return NV_OK;
    case NVA06C_CTRL_CMD_PREEMPT:
      *cost_us = 446;
      if (runs_kernels) preempt_group(c->gpu, c->group);
      return NV_OK;
    case NVA06C_CTRL_CMD_GPFIFO_SCHEDULE:  // returns 0; unscheduling changes nothing
      return NV_OK;
    default:
      return NV_ERR_NOT_SUPPORTED;
  }
}

void apply(Context* c, RmContext* own) {
  if (c->group == UINT32_MAX) return;
  // Channels 0 and 1 are the kernels' group.
  if ((own->disabled & 3u) == 3u) {
    stop_group(c->gpu, c->group);
  } else {
    resume_group(c->gpu, c->group);
  }
}

uint32_t disable_channels(NvHandle client, const NV2080_CTRL_FIFO_DISABLE_CHANNELS_PARAMS* p,
                          int64_t* cost_us) {
  const uint32_t count = p->numChannels;
  if (count > NV2080_CTRL_FIFO_DISABLE_CHANNELS_MAX_ENTRIES) return NV_ERR_INVALID_ARGUMENT;
  std::vector<Object*> channels;
  for (uint32_t i = 0; i < count; i++) {
    if (p->hClientList[i] != client) return NV_ERR_INVALID_CLIENT;
    uint32_t status;
    Object* o = find_object(client, p->hChannelList[i], &status);
    if (o == nullptr) return status;
    if (!ALLOT_RM_IS_CHANNEL_CLASS(o->cls)) return NV_ERR_INVALID_OBJECT_HANDLE;
    channels.push_back(o);
  }
  if (count > 0) *cost_us = 500;
  for (Object* o : channels) {
    if (o->context == nullptr || o->context->rm == nullptr) continue;
    auto* own = static_cast<RmContext*>(o->context->rm);
    const uint32_t bit = 1u << o->index;
    own->disabled = p->bDisable != 0 ? own->disabled | bit : own->disabled & ~bit;
  }
  for (Object* o : channels) {
    if (o->context != nullptr && o->context->rm != nullptr) {
      apply(o->context, static_cast<RmContext*>(o->context->rm));
    }
  }
  return NV_OK;
}

const char* fault_name(uint32_t cmd) {
  switch (cmd) {
    case NVA06C_CTRL_CMD_SET_TIMESLICE:
      return "rm:SET_TIMESLICE";
    case NVA06C_CTRL_CMD_GET_TIMESLICE:
      return "rm:GET_TIMESLICE";
    case NVA06C_CTRL_CMD_PREEMPT:
      return "rm:PREEMPT";
    case NVA06C_CTRL_CMD_GPFIFO_SCHEDULE:
      return "rm:GPFIFO_SCHEDULE";
    case NV2080_CTRL_CMD_FIFO_DISABLE_CHANNELS:
      return "rm:FIFO_DISABLE_CHANNELS";
    default:
      return "rm:CONTROL";
  }
}

void control(NVOS54_PARAMETERS* p) {
  int fault = 0;
  if (g_faults && take_fault(fault_name(p->cmd), &fault)) {
    p->status = static_cast<uint32_t>(fault);
    return;
  }
  int64_t cost_us = 0;
  {
    std::lock_guard<std::mutex> lock(rm().mutex);
    Object* object = find_object(p->hClient, p->hObject, &p->status);
    if (object == nullptr) return;
    auto* params = reinterpret_cast<void*>(p->params);
    if (params == nullptr && p->paramsSize != 0) {
      p->status = NV_ERR_INVALID_ARGUMENT;
    } else if (p->cmd == NV2080_CTRL_CMD_FIFO_DISABLE_CHANNELS) {
      if (object->cls != NV20_SUBDEVICE_0) {
        p->status = NV_ERR_NOT_SUPPORTED;
      } else if (p->paramsSize != sizeof(NV2080_CTRL_FIFO_DISABLE_CHANNELS_PARAMS)) {
        p->status = NV_ERR_INVALID_PARAM_STRUCT;
      } else {
        p->status = disable_channels(
            p->hClient, static_cast<NV2080_CTRL_FIFO_DISABLE_CHANNELS_PARAMS*>(params), &cost_us);
      }
    } else if (object->cls == KEPLER_CHANNEL_GROUP_A) {
      p->status = control_group(object, p->cmd, params, p->paramsSize, &cost_us);
    } else {
      p->status = NV_ERR_NOT_SUPPORTED;
    }
  }
  if (cost_us > 0) take_time(cost_us);
}

// True when the request is one of RM's. Fills in the status.
bool perform(unsigned long request, void* arg) {
  if (ALLOT_RM_REQUEST_TYPE(request) != NV_IOCTL_MAGIC || arg == nullptr) return false;
  const auto size = ALLOT_RM_REQUEST_SIZE(request);
  switch (ALLOT_RM_REQUEST_NR(request)) {
    case NV_ESC_RM_CONTROL:
      if (size != sizeof(NVOS54_PARAMETERS)) return false;
      control(static_cast<NVOS54_PARAMETERS*>(arg));
      return true;
    case NV_ESC_RM_ALLOC: {
      std::lock_guard<std::mutex> lock(rm().mutex);
      if (size == sizeof(NVOS64_PARAMETERS)) {
        auto* p = static_cast<NVOS64_PARAMETERS*>(arg);
        p->status = allocate(p->hRoot, p->hObjectParent, &p->hObjectNew, p->hClass);
        return true;
      }
      if (size != sizeof(NVOS21_PARAMETERS)) return false;
      auto* p = static_cast<NVOS21_PARAMETERS*>(arg);
      p->status = allocate(p->hRoot, p->hObjectParent, &p->hObjectNew, p->hClass);
      return true;
    }
    case NV_ESC_RM_FREE: {
      if (size != sizeof(NVOS00_PARAMETERS)) return false;
      std::lock_guard<std::mutex> lock(rm().mutex);
      auto* p = static_cast<NVOS00_PARAMETERS*>(arg);
      p->status = release(p->hRoot, p->hObjectOld);
      return true;
    }
    default:
      return false;
  }
}

// As libcuda calls RM: through ioctl(), which others may interpose.
bool call(unsigned long request, void* arg) {
  const int saved = errno;
  if (ioctl(rm().fd, request, arg) == 0) return true;
  errno = saved;
  return perform(request, arg);
}

// `detail`: a device's number, a group's engine.
bool make(NvHandle root, NvHandle parent, uint32_t cls, NvHandle* made, uint32_t detail = 0) {
  NVOS64_PARAMETERS p{};
  NV0080_ALLOC_PARAMETERS_HEAD device{detail};
  NV_CHANNEL_GROUP_ALLOCATION_PARAMETERS_HEAD group{0, 0, 0, detail};
  if (cls == NV01_DEVICE_0) p.pAllocParms = reinterpret_cast<uint64_t>(&device);
  if (cls == KEPLER_CHANNEL_GROUP_A) p.pAllocParms = reinterpret_cast<uint64_t>(&group);
  p.hRoot = root;
  p.hObjectParent = parent;
  p.hObjectNew = *made;
  p.hClass = cls;
  if (!call(ALLOT_RM_ALLOC, &p) || p.status != NV_OK) return false;
  *made = p.hObjectNew;
  return true;
}

NvHandle new_handle() {
  std::lock_guard<std::mutex> lock(rm().mutex);
  return rm().next_object++;
}

// Client, device and subdevice, made when the first context of a GPU comes. One thread at a time.
bool prepare(uint32_t gpu) {
  Rm& state = rm();
  if (state.fd < 0) state.fd = memfd_create("allot-sim-control", MFD_CLOEXEC);
  if (state.fd < 0) return false;
  if (state.client == 0 && !make(0, 0, NV01_ROOT_CLIENT, &state.client)) return false;
  if (state.subdevice[gpu] != 0) return true;
  NvHandle device = new_handle(), subdevice = new_handle();
  if (!make(state.client, state.client, NV01_DEVICE_0, &device, gpu)) return false;
  if (!make(state.client, device, NV20_SUBDEVICE_0, &subdevice)) return false;
  state.device[gpu] = device;
  state.subdevice[gpu] = subdevice;
  return true;
}

bool make_channels(Context* c, RmContext* own, bool again) {
  Rm& state = rm();
  for (int g = 0; g < kGroups; g++) {
    own->groups[g] = new_handle();
    t_index = g;
    const uint32_t engine =
        g == 0 ? NV2080_ENGINE_TYPE_GR0 : NV2080_ENGINE_TYPE_COPY0 + static_cast<uint32_t>(g);
    if (!make(state.client, state.device[c->gpu], KEPLER_CHANNEL_GROUP_A, &own->groups[g], engine))
      return false;
    if (g == 0 && !again) {
      NVA06C_CTRL_TIMESLICE_PARAMS slice{kDefaultTimesliceUs};
      NVOS54_PARAMETERS p{state.client,
                          own->groups[0],
                          NVA06C_CTRL_CMD_SET_TIMESLICE,
                          0,
                          reinterpret_cast<uint64_t>(&slice),
                          sizeof slice,
                          0};
      call(ALLOT_RM_CONTROL, &p);  // a driver that refuses it keeps its default
    }
    for (int i = 0; i < 2; i++) {
      t_index = g * 2 + i;
      own->channels[t_index] = new_handle();
      if (!make(state.client, own->groups[g], HOPPER_CHANNEL_GPFIFO_A, &own->channels[t_index]))
        return false;
    }
  }
  return true;
}

}  // namespace

CUresult rm_open_context(Context* c, bool again) {
  static std::mutex& making = *new std::mutex;
  std::lock_guard<std::mutex> lock(making);
  auto* own = new RmContext;
  c->rm = own;
  t_making = c;
  const bool ok = prepare(c->gpu) && make_channels(c, own, again);
  t_making = nullptr;
  return ok ? CUDA_SUCCESS : CUDA_ERROR_OPERATING_SYSTEM;
}

void rm_close_context(Context* c) {
  auto* own = static_cast<RmContext*>(c->rm);
  if (own == nullptr) return;
  for (NvHandle group : own->groups) {
    if (group == 0) continue;
    NVOS00_PARAMETERS p{rm().client, 0, group, 0};
    call(ALLOT_RM_FREE, &p);
  }
  std::lock_guard<std::mutex> lock(rm().mutex);
  c->rm = nullptr;
  delete own;
}

bool rm_let_go() {
  Rm& state = rm();
  if (state.fd < 0) return true;
  NVOS00_PARAMETERS p{state.client, 0, state.client, 0};
  call(ALLOT_RM_FREE, &p);
  struct stat ours = {};
  fstat(state.fd, &ours);
  close(state.fd);
  state.fd = -1;
  state.client = 0;
  for (uint32_t g = 0; g < kMaxGpus; g++) state.device[g] = state.subdevice[g] = 0;
  bool last = true;
  if (DIR* folder = opendir("/proc/self/fd")) {
    while (const dirent* entry = readdir(folder)) {
      struct stat other = {};
      if (entry->d_name[0] == '.' || fstat(atoi(entry->d_name), &other) != 0) continue;
      if (other.st_dev == ours.st_dev && other.st_ino == ours.st_ino) last = false;
    }
    closedir(folder);
  }
  return last;
}

}  // namespace allot::sim

// The seam for the shim: does what the kernel module's ioctl() would do for requests of type 'F',
// on any descriptor. 0, or -1 and ENOTTY for other requests. Any thread.
SIM_EXPORT int allot_sim_ioctl(int, unsigned long request, void* arg) {
  if (allot::sim::perform(request, arg)) return 0;
  errno = ENOTTY;
  return -1;
}
