// See channels.h.
#include "shim/time/channels.h"

namespace allot::shim {

bool Channels::refresh(int ordinal) {
  const uint32_t now = rm_generation();
  if (fresh_ && now == generation_) return known_.channel_count > 0;
  generation_ = now;
  fresh_ = true;
  if (!rm_channels(ordinal, &known_)) {
    known_ = {};
    known_.fd = -1;
    return false;
  }
  open_ = true;
  timeslice_us_ = 0;
  return true;
}

bool Channels::control(NvHandle object, uint32_t cmd, void* params, uint32_t bytes) {
  NVOS54_PARAMETERS call = {};
  call.hClient = known_.client;
  call.hObject = object;
  call.cmd = cmd;
  call.params = reinterpret_cast<uint64_t>(params);
  call.paramsSize = bytes;
  const int result = rm_call(known_.fd, ALLOT_RM_CONTROL, &call);
  if (result == 0 && call.status == NV_OK) return true;
  last_status_ = result == 0 ? call.status : UINT32_MAX;
  return false;
}

AllotLevelReason Channels::probe() {
  if (known_.channel_count == 0) return ALLOT_REASON_NO_CHANNELS;
  NVA06C_CTRL_TIMESLICE_PARAMS slice = {};
  if (!control(known_.groups[0], NVA06C_CTRL_CMD_GET_TIMESLICE, &slice, sizeof(slice)) ||
      slice.timesliceUs == 0) {
    slice.timesliceUs = ALLOT_RM_LIBCUDA_TIMESLICE_US;
  }
  if (!control(known_.groups[0], NVA06C_CTRL_CMD_SET_TIMESLICE, &slice, sizeof(slice))) {
    return ALLOT_REASON_NO_TIMESLICE;
  }
  return switch_channels(false) ? ALLOT_REASON_NONE : ALLOT_REASON_NO_DISABLE;
}

bool Channels::switch_channels(bool disable) {
  bool all = true;
  for (uint32_t first = 0; first < known_.channel_count;) {
    NV2080_CTRL_FIFO_DISABLE_CHANNELS_PARAMS params = {};
    params.bDisable = disable ? 1 : 0;
    uint32_t n = 0;
    while (n < NV2080_CTRL_FIFO_DISABLE_CHANNELS_MAX_ENTRIES && first + n < known_.channel_count) {
      params.hClientList[n] = known_.client;
      params.hChannelList[n] = known_.channels[first + n];
      ++n;
    }
    params.numChannels = n;
    first += n;
    const bool done =
        control(known_.subdevice, NV2080_CTRL_CMD_FIFO_DISABLE_CHANNELS, &params, sizeof(params));
    all = all && done;
    if (!done && disable) break;
  }
  return all;
}

void Channels::let_all_run(int ordinal) {
  for (uint32_t page = 0; rm_channels(ordinal, &known_, page); ++page) {
    switch_channels(false);
    for (uint32_t i = 0; i < known_.group_count; ++i) set_group(known_.groups[i], 0);
  }
  fresh_ = false;
  refresh(ordinal);
}

bool Channels::set_open(bool open) {
  if (open == open_ || known_.channel_count == 0) return true;
  if (switch_channels(!open)) {
    open_ = open;
    return true;
  }
  // A channel that went meanwhile makes the call fail; the next refresh leaves it out. Until then
  // all run.
  const uint32_t status = last_status_;
  switch_channels(false);
  last_status_ = status;
  open_ = true;
  fresh_ = false;
  return open;
}

bool Channels::set_group(NvHandle group, uint32_t us) {
  NVA06C_CTRL_TIMESLICE_PARAMS slice = {};
  slice.timesliceUs = us != 0 ? us : ALLOT_RM_LIBCUDA_TIMESLICE_US;
  return control(group, NVA06C_CTRL_CMD_SET_TIMESLICE, &slice, sizeof(slice));
}

bool Channels::set_timeslice(uint32_t us) {
  if (us == timeslice_us_ || known_.channel_count == 0) return true;
  bool all = true;
  for (uint32_t i = 0; i < known_.group_count; ++i) all = set_group(known_.groups[i], us) && all;
  if (all) timeslice_us_ = us;
  return all;
}

}  // namespace allot::shim
