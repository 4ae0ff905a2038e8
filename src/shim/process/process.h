// What the shim knows about the process it runs in: one constant-initialised object, never
// destroyed.
//
//             cuInit                    attached
//     kOff ------------> kStarting ---------------> kOn
//       ^                    |    no slice, failed open
//       |                    +---------------------> kDisabled   hooks forward
//       | forked child       |    failed closed
//       | calls cuInit       +---------------------> kRefused    hooks refuse
//
// Before cuInit and in kDisabled every hook forwards. The fork guard, a page that the kernel wipes
// on fork (MADV_WIPEONFORK), tells a forked child: it only forwards, because the driver does not
// work there, and never touches the parent's slot. What must not happen here: a constructor, a
// destructor that runs, a lock.
#pragma once

#include <atomic>
#include <cstdint>

#include "abi/region.h"
#include "core/ledger.h"
#include "driver/cuda_abi.h"
#include "shim/process/pointer_table.h"
#include "shim/process/settled_charge.h"
#include "shm/slice_file.h"
#include "sys/process.h"

namespace allot::shim {

inline constexpr uint32_t kMaxDevices = 64;
inline constexpr uint64_t kMiB = 1024 * 1024;
inline constexpr uint64_t kFlightEnded = uint64_t{1} << 32;  // of Process::flights
inline constexpr uint64_t kPage = 2 * kMiB;  // the driver's granule for everything but small blocks

enum class State : uint32_t { kOff, kStarting, kOn, kDisabled, kRefused };

// A device as this process numbers it (CUDA_VISIBLE_DEVICES), and its account in the region.
struct Device {
  int gpu = -1;          // index in the region; -1 = not accounted
  bool refused = false;  // then: no place in the region, and the slice fails closed
  uint64_t physical_bytes = 0;
  uint8_t uuid[16] = {};
  std::atomic<bool> context_seen{false};     // a context here has been measured
  std::atomic<void*> nvml{nullptr};          // its NVML handle, once asked for
  std::atomic<bool> listed{false};           // NVML has listed this process on it
  std::atomic<uint32_t> graph_trims{0};      // raised when reserved graph memory went back
  SettledCharge driver;                      // ALLOT_KIND_DRIVER
  std::atomic<uint64_t> driver_measured{0};  // the same as NVML showed it last, without headroom
  std::atomic<uint64_t> driver_floor{0};  // the least ALLOT_KIND_DRIVER: heaps that will be taken
  SettledCharge graph;                    // ALLOT_KIND_GRAPH
  std::atomic<uint32_t> contexts{0};      // made by calls, alive; the primary one does not count
};

struct Process {
  std::atomic<State> state{State::kOff};
  uint32_t pid = 0;
  std::atomic<uint32_t> starter{0};  // the process whose thread is in kStarting
  std::atomic<std::atomic<uint32_t>*> fork_guard{nullptr};
  // The kernel has no MADV_WIPEONFORK: compare the pid instead.
  std::atomic<bool> compare_pids{false};
  shm::Slice slice;
  core::SlotId slot{0, 0};
  uint32_t device_count = 0;
  uint32_t refused_from = UINT32_MAX;  // ordinals of GPUs past kMaxDevices, if they are refused
  uint32_t visible_count = 0;          // as the driver says
  Device devices[kMaxDevices];
  PointerTable table;

  // Operations between their charge and their end (low half), and how many have ended (high half).
  // While the first is 0 and the second does not change, the ledger and the driver agree.
  std::atomic<uint64_t> flights{0};
  std::atomic<uint64_t> next_reconcile_ms{0};
  std::atomic<bool> loads_lazily{false};  // loads a kernel at its first launch: keep headroom
  std::atomic<uint32_t> reconcile_turn{0};
  std::atomic<uint32_t> unknown_symbols{0};  // asked for, not in the table, not yet in the region
};

extern constinit Process process;

// Depth of hooks on this thread: the driver may call its own exported entries and so enter a hook
// again (hook_guard.h).
extern constinit thread_local uint32_t hook_depth __attribute__((tls_model("initial-exec")));

// True in a child that was forked after the process attached. One load, except on kernels without
// the guard.
inline bool forked_child() {
  const std::atomic<uint32_t>* guard = process.fork_guard.load(std::memory_order_acquire);
  if (guard != nullptr) return guard->load(std::memory_order_relaxed) == 0;
  return process.compare_pids.load(std::memory_order_relaxed) && process.pid != sys::current_pid();
}

// The device with this ordinal if its memory is accounted, else null.
inline Device* device_of(CUdevice ordinal) {
  if (ordinal < 0 || static_cast<uint32_t>(ordinal) >= process.device_count) return nullptr;
  Device& device = process.devices[ordinal];
  return device.gpu >= 0 ? &device : nullptr;
}
// Whether it is a GPU that the slice's tables have no room for, in a slice that fails closed.
inline bool refused_gpu(CUdevice ordinal) {
  if (ordinal < 0 || static_cast<uint32_t>(ordinal) >= process.visible_count) return false;
  const uint32_t at = static_cast<uint32_t>(ordinal);
  return at < process.device_count ? process.devices[at].refused : at >= process.refused_from;
}
inline CUdevice ordinal_of(const Device& device) {
  return static_cast<CUdevice>(&device - process.devices);
}

// The slice fails closed and its GPU time is limited: by a share, a ceiling, a priority or a
// freeze.
bool must_hold_time();
// Whether the slice limits GPU time, or is frozen.
bool time_limited();

// The accounted device of the current context, and the context itself; null if either is missing.
Device* current_device(CUcontext* context);

// Rounds up to a multiple of `step` (a power of two). Sizes near 2^64 become 2^63, which no GPU
// has.
inline uint64_t round_up(uint64_t bytes, uint64_t step) {
  return bytes > (uint64_t{1} << 62) ? uint64_t{1} << 63 : (bytes + step - 1) & ~(step - 1);
}

}  // namespace allot::shim
