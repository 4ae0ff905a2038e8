// RM calls of any content past the watcher: it must neither crash nor hand out handles of two
// clients.
//
// The input is a list of calls: kind (1 byte), status (1), then 4 handles or classes of one byte
// each, so that the fuzzer finds objects that belong together.
#include <cstdint>
#include <cstdlib>

#include "shim/time/rm_tracker.h"

namespace allot::shim {
void table_full(uint32_t) {}  // what a process says of its tables (time/tables.h)
}  // namespace allot::shim

using namespace allot::shim;

namespace {

constexpr uint32_t kClasses[] = {NV01_DEVICE_0,           NV20_SUBDEVICE_0, KEPLER_CHANNEL_GROUP_A,
                                 HOPPER_CHANNEL_GPFIFO_A, NV01_ROOT_CLIENT, VOLTA_CHANNEL_GPFIFO_A};

void require(bool condition) {
  if (!condition) std::abort();
}

void call(const uint8_t* at) {
  const uint32_t status = at[1] < 200 ? NV_OK : at[1];
  switch (at[0] % 6) {
    case 0: {
      NV0080_ALLOC_PARAMETERS_HEAD device = {at[3]};
      NV_CHANNEL_GROUP_ALLOCATION_PARAMETERS_HEAD group = {0, 0, 0, at[3]};
      NVOS64_PARAMETERS p = {};
      p.hRoot = at[2];
      p.hObjectParent = at[3];
      p.hObjectNew = at[4];
      p.hClass = kClasses[at[5] % 6];
      p.status = status;
      if (p.hClass == NV01_DEVICE_0) p.pAllocParms = reinterpret_cast<uint64_t>(&device);
      if (p.hClass == KEPLER_CHANNEL_GROUP_A && at[1] % 4 != 0) {
        p.pAllocParms = reinterpret_cast<uint64_t>(&group);
      }
      static const char nobody = 0;  // the guard is only asked for, never looked at
      const MakingContextOn making(reinterpret_cast<const Call&>(nobody), at[5] % 3);
      watch_rm_call(-1, ALLOT_RM_ALLOC, &p, 0);
      break;
    }
    case 1: {
      NVOS00_PARAMETERS p = {at[2], at[3], at[4], status};
      watch_rm_call(-1, ALLOT_RM_FREE, &p, 0);
      break;
    }
    case 2: {
      NVOS54_PARAMETERS p = {};
      p.hClient = at[2];
      p.hObject = at[3];
      p.cmd = NVA06C_CTRL_CMD_SET_TIMESLICE;
      p.status = status;
      watch_rm_call(-1, ALLOT_RM_CONTROL, &p, 0);
      break;
    }
    case 4:  // an eviction and its end, in any order
      at[1] % 2 == 0 ? rm_let_go() : rm_take_hold();
      break;
    default:  // a size that fits no structure, and none at all
      watch_rm_call(-1, ALLOT_RM_REQUEST(at[2], at[3]), nullptr, 0);
      watch_rm_call(-1, ALLOT_RM_REQUEST(NV_ESC_RM_ALLOC, 8), at, 0);
      break;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static RmChannels channels;
  for (size_t at = 0; at + 6 <= size; at += 6) call(data + at);
  for (int ordinal = 0; ordinal < 3; ++ordinal) {
    rm_channels(ordinal, &channels);
    require(channels.group_count <= kMaxGroups && channels.channel_count <= kMaxChannels);
    require(channels.group_count == 0 || channels.client != 0 || size > 0);
  }
  forget_rm();
  return 0;
}
