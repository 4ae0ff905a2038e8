// Looks on while the driver talks to the kernel and remembers the handles of this process's
// channels.
//
//     client -> device -> subdevice                    where FIFO_DISABLE_CHANNELS goes
//                     \-> channel group -> channels    where SET_TIMESLICE goes; what is disabled
//
// Handles belong to a client, and a process has several (NVML makes its own), so they are kept
// together by
// (client, device). A group counts whose engine runs kernels, as is said when it is made; or one
// whose timeslice libcuda sets, which it does for just those. Which GPU a device object is, is
// learned from the context that is being made. What must not happen here: a call to the driver or
// the kernel (but one dup of the descriptor), a change of what is looked at, a lock held across
// either.
#pragma once

#include <cstdint>

#include "driver/rm_abi.h"

namespace allot::shim {

// After every RM call of the process, with the kernel's answer in *argument. Must not change it,
// block, allocate or call the driver. Any thread.
void watch_rm_call(int fd, unsigned long request, const void* argument, int result);

// RM calls seen so far, by this process.
uint64_t rm_calls_seen();

// Makes an RM call that is not watched: our own. Returns what ioctl returns; the status is in
// *argument. Blocks as long as the kernel module does (0.3-0.5 ms for the calls we make). Any
// thread.
int rm_call(int fd, unsigned long request, void* argument);

inline constexpr uint32_t kMaxGroups = 64;
inline constexpr uint32_t kMaxChannels = 512;

// The channels of one GPU under one client: what one set of RM calls is about. A process may have
// more than one set holds. Then whoever stops some of them has not stopped the process.
struct RmChannels {
  int fd;  // ours, for calls; -1 = could not be kept
  NvHandle client;
  NvHandle subdevice;
  uint32_t group_count;    // groups that run kernels
  uint32_t channel_count;  // all channels, of copy engines too
  bool more;               // there are others, on the next page or where nobody knows
  NvHandle groups[kMaxGroups];
  NvHandle channels[kMaxChannels];
};

// Fills `out` with the channels of the GPU with this CUDA ordinal; false when none are known. A
// process has one client for each GPU it uses (libcuda has one in all). Page 1 has the channels and
// groups that page 0 has no room for, and so on; false behind the last. Any thread; waits for no
// call.
bool rm_channels(int ordinal, RmChannels* out, uint32_t page = 0);

// Raised whenever a channel or a group that runs kernels comes or goes. Any thread, signal-safe.
uint32_t rm_generation();

// The slice is being evicted. The driver gives its objects and descriptors back, and whoever keeps
// a copy of one keeps the card's memory taken: ours are closed, and none is made until
// rm_take_hold(). That one takes a descriptor again and forgets the objects of before, if the
// driver has made new ones in their place. The agent's thread, while nobody makes calls by
// rm_channels().
void rm_let_go();
void rm_take_hold();

// Closes the copies of descriptors that are not in use any more. The agent's thread, when all its
// Channels have been refreshed.
void rm_close_old_copies();

class Call;  // process/hook_guard.h

// While one lives, contexts made by this thread are on that GPU. Inside a hook only.
class MakingContextOn {
 public:
  MakingContextOn(const Call&, int ordinal);
  ~MakingContextOn();
  MakingContextOn(const MakingContextOn&) = delete;
  MakingContextOn& operator=(const MakingContextOn&) = delete;

 private:
  int outer_;
};

// Whether one lives for that GPU, or did in a thread that was cancelled. Any thread.
bool making_context_on(int ordinal);

// In a forked child that starts afresh: forgets everything. One thread.
void forget_rm();

}  // namespace allot::shim
