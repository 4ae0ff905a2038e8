// See rm_objects.h.
#include "shim/time/rm_objects.h"

#include "abi/region.h"
#include "shim/time/tables.h"

namespace allot::shim {
namespace rm {

constinit Objects objects;

namespace {

constinit std::atomic<uint32_t> generation{0};

bool interesting(uint32_t rm_class) {
  return rm_class == NV01_DEVICE_0 || rm_class == NV20_SUBDEVICE_0 ||
         rm_class == KEPLER_CHANNEL_GROUP_A || ALLOT_RM_IS_CHANNEL_CLASS(rm_class);
}

Object* find(NvHandle client, NvHandle handle) {
  for (uint32_t i = 0; i < objects.high; ++i) {
    Object& object = objects.all[i];
    if (object.handle == handle && object.client == client) return &object;
  }
  return nullptr;
}

// A place for an object: its own, where an eviction has let it come again under its old handle.
Object* place_for(NvHandle client, NvHandle handle) {
  if (Object* same = find(client, handle); same != nullptr) return same;
  for (uint32_t i = 0; i < objects.high; ++i) {
    if (objects.all[i].handle == 0) return &objects.all[i];
  }
  return objects.high < kObjects ? &objects.all[objects.high++] : nullptr;
}

// The GPU of a device that is made while no context is: after an eviction, by a thread of the
// driver.
int ordinal_of_instance(uint32_t instance) {
  return instance < kInstances ? objects.ordinal_plus_one[instance] - 1 : -1;
}

void learn_ordinal(Object* device, int making_on) {
  if (device == nullptr || device->ordinal >= 0) return;
  device->ordinal = making_on;
  if (device->instance < kInstances) objects.ordinal_plus_one[device->instance] = making_on + 1;
}

// One more of a kind: whether it is on the page, whose first has number `first`.
bool on_page(uint32_t number, uint32_t first, uint32_t room, bool* more) {
  if (number >= first + room) *more = true;
  return number >= first && number < first + room;
}

}  // namespace

void changed() {
  generation.fetch_add(1, std::memory_order_acq_rel);
}

void made(NvHandle client, NvHandle parent, NvHandle handle, uint32_t rm_class, Birth birth,
          int making_on) {
  if (handle == 0 || !interesting(rm_class)) return;
  objects.lock.lock();
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
    if (rm_class == KEPLER_CHANNEL_GROUP_A && making_on >= 0) {
      learn_ordinal(find(client, parent), making_on);
    }
  } else {
    objects.lost = true;
  }
  objects.lock.unlock();
  if (free == nullptr) table_full(ALLOT_TABLE_CHANNELS);
  if (ALLOT_RM_IS_CHANNEL_CLASS(rm_class) || free == nullptr) changed();
}

void freed(NvHandle client, NvHandle handle) {
  bool channels_went = false;
  objects.lock.lock();
  for (int depth = 0; depth < 4; ++depth) {  // device > group > channel: no deeper
    bool any = false;
    for (uint32_t i = 0; i < objects.high; ++i) {
      Object& object = objects.all[i];
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
  objects.lock.unlock();
  if (channels_went) changed();
}

void runs_kernels(NvHandle client, NvHandle group) {
  objects.lock.lock();
  if (Object* object = find(client, group); object != nullptr) object->runs_kernels = true;
  objects.lock.unlock();
}

void all_are_before() {
  objects.lock.lock();
  for (uint32_t i = 0; i < objects.high; ++i) objects.all[i].before = true;
  objects.lock.unlock();
}

void forget_those_before() {
  bool made_anew = false;
  objects.lock.lock();
  for (uint32_t i = 0; i < objects.high; ++i) {
    const Object& object = objects.all[i];
    if (object.handle != 0 && !object.before && object.runs_kernels) made_anew = true;
  }
  for (uint32_t i = 0; i < objects.high; ++i) {
    Object& object = objects.all[i];
    if (object.before && made_anew) object.handle = 0;
    object.before = false;
  }
  objects.lock.unlock();
}

bool channels_of(int ordinal, uint32_t page, RmChannels* out) {
  NvHandle device = 0;
  uint32_t groups = 0, channels = 0;  // seen, of all pages
  objects.lock.lock();
  out->more = objects.lost;
  for (uint32_t i = 0; i < objects.high; ++i) {
    const Object& object = objects.all[i];
    if (object.handle == 0 || object.rm_class != KEPLER_CHANNEL_GROUP_A || !object.runs_kernels)
      continue;
    const Object* parent = find(object.client, object.parent);
    if (parent == nullptr || parent->ordinal != ordinal) continue;
    if (groups > 0 && (out->client != object.client || device != object.parent)) continue;
    out->client = object.client;
    device = object.parent;
    if (on_page(groups++, page * kMaxGroups, kMaxGroups, &out->more)) {
      out->groups[out->group_count++] = object.handle;
    }
  }
  for (uint32_t i = 0; i < objects.high && device != 0; ++i) {
    const Object& object = objects.all[i];
    if (object.handle == 0 || object.client != out->client) continue;
    if (object.rm_class == NV20_SUBDEVICE_0 && object.parent == device && out->subdevice == 0) {
      out->subdevice = object.handle;
    } else if (ALLOT_RM_IS_CHANNEL_CLASS(object.rm_class)) {
      const Object* group = find(object.client, object.parent);
      const bool here = object.parent == device || (group != nullptr && group->parent == device);
      if (here && on_page(channels++, page * kMaxChannels, kMaxChannels, &out->more)) {
        out->channels[out->channel_count++] = object.handle;
      }
    }
  }
  objects.lock.unlock();
  return groups > 0 && out->subdevice != 0 && out->channel_count + out->group_count > 0 &&
         (page > 0 || out->channel_count > 0);
}

void forget_objects() {
  objects.lock.abandon();
  for (uint32_t i = 0; i < objects.high; ++i) objects.all[i].handle = 0;
  objects.high = 0;
  objects.lost = false;
}

}  // namespace rm

uint32_t rm_generation() {
  return rm::generation.load(std::memory_order_acquire);
}

}  // namespace allot::shim
