// The table of RM objects behind rm_tracker.h: devices, channel groups and channels of this
// process, behind a spin lock.
//
// RM calls that make objects are rare (some hundred at a context's birth). An object that finds no
// place makes every answer of rm_channels() say that there is more. What must not happen here: a
// call to the driver or the kernel.
#pragma once

#include <atomic>
#include <cstdint>

#include "driver/rm_abi.h"
#include "shim/process/spin.h"
#include "shim/time/rm_tracker.h"

namespace allot::shim::rm {

inline constexpr uint32_t kObjects = 2048;
inline constexpr uint32_t kInstances = 32;  // GPUs as the driver numbers them (NV_MAX_DEVICES)
inline constexpr uint32_t kNoInstance = UINT32_MAX;

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

struct Objects {
  SpinLock lock;
  Object all[kObjects] = {};
  uint32_t high = 0;                      // places at and above it were never used
  bool lost = false;                      // one found no place
  int ordinal_plus_one[kInstances] = {};  // of a GPU by the driver's number; 0 = not known
};
extern constinit Objects objects;

// What is told of an object when it is made, beside its name.
struct Birth {
  uint32_t instance = kNoInstance;  // of a device
  bool runs_kernels = false;        // of a group: its engine does
};

// `making_on`: the GPU on which this thread makes a context, -1 = none.
void made(NvHandle client, NvHandle parent, NvHandle handle, uint32_t rm_class, Birth birth,
          int making_on);
// Takes away `handle` and what hangs below it; a client's own handle is its root.
void freed(NvHandle client, NvHandle handle);
void runs_kernels(NvHandle client, NvHandle group);

// An eviction begins: what is there now was made before it. It is over: if the driver has made new
// objects in their place, those of before are forgotten.
void all_are_before();
void forget_those_before();

// Channels or groups that run kernels came or went: rm_generation().
void changed();

// Fills all of `out` but `fd`; false when no group that runs kernels is known there on that page.
bool channels_of(int ordinal, uint32_t page, RmChannels* out);

void forget_objects();

}  // namespace allot::shim::rm
