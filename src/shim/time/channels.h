// Level `channel`: stops and lets run the channels of this process on one GPU, and sets their
// timeslices.
//
// Two RM calls, both open to ordinary users, on the process's own handles (rm_tracker.h):
// SET_TIMESLICE on the groups that run kernels, FIFO_DISABLE_CHANNELS on their subdevice for all
// channels. They act on kernels that run, of any length, and on graphs. Each costs the agent
// 0.3-0.5 ms, the program nothing.
//
// What must not happen here: channels that stay disabled because a call failed; a call with handles
// of two clients mixed, which answers OK and does nothing. Used by the agent's thread only.
#pragma once

#include <cstdint>

#include "abi/region.h"
#include "shim/time/rm_tracker.h"

namespace allot::shim {

class Channels {
 public:
  // Takes in what rm_tracker.h knows now. True when there are channels to work on. What is new runs
  // (as the driver made it) until set_open is called again. Cheap when nothing has changed.
  bool refresh(int ordinal);

  // Asks the driver for both calls in a form that changes nothing: the timeslice as it is, channels
  // that run enabled once more. kNone = both answer. Calls the kernel.
  AllotLevelReason probe();

  // Stops all channels (false) or lets them run. False when the driver refuses; then all were
  // enabled again as far as it lets us. ~0.5 ms per 64 channels.
  bool set_open(bool open);

  // Microseconds; 0 = what libcuda had set. False when the driver refuses. ~0.35 ms per group.
  bool set_timeslice(uint32_t us);

  // There are more channels than one set of calls is about: whoever stops these has not stopped the
  // process. let_all_run() enables every one that is known, on all pages, and gives groups their
  // timeslice back; ~0.5 ms per 64 channels and 0.35 ms per group.
  bool more() const { return known_.more; }
  void let_all_run(int ordinal);

  bool open() const { return open_; }
  uint32_t timeslice_us() const { return timeslice_us_; }
  uint32_t channel_count() const { return known_.channel_count; }
  // Status of the last call that was refused, as RM gave it; 0xffffffff when the ioctl itself
  // failed.
  uint32_t last_status() const { return last_status_; }

 private:
  bool control(NvHandle object, uint32_t cmd, void* params, uint32_t bytes);
  bool switch_channels(bool disable);
  bool set_group(NvHandle group, uint32_t us);

  RmChannels known_ = {};
  uint32_t generation_ = 0;
  bool fresh_ = false;
  bool open_ = true;
  uint32_t timeslice_us_ = 0;
  uint32_t last_status_ = 0;
};

}  // namespace allot::shim
