// Reconciliation of the accounts with NVML's figure for this process.
//
//     ALLOT_KIND_DRIVER = max(0, NVML's used bytes of this pid - what the hooks have charged)
//
// A hook charges before it calls the driver and releases after it, so while calls are under way the
// charges are above the driver's figure. Therefore the difference is lowered only when no call was
// under way and none ended during the NVML query. Raising it is always right, within the size of
// one call. Managed and imported memory is neither in NVML's figure nor in the sum that it is
// compared with.
//
// A program of the runtime API loads a kernel when it first launches it, and we hook no call there:
// we would find the memory that it takes (77-90 MB for a few PyTorch kernels on an H100) only after
// a full slice has exceeded its limit. So for such programs the charge is kHeadroom above the
// measurement, as far as the slice has room (docs/adr/0005-headroom-for-kernels.md).
#include "shim/memory/driver_memory.h"

#include "shim/memory/charge.h"
#include "shim/memory/exported.h"
#include "shim/memory/graph.h"
#include "shim/memory/pool.h"
#include "shim/memory/vmm.h"
#include "shim/nvml/client.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/swap_gate.h"
#include "sys/clock.h"

namespace allot::shim {
namespace {

// 100 ms cost at most 0.1 % of a thread's time, with the slowest NVML answer measured.
constexpr uint64_t kPeriodMs = 100;
constexpr uint64_t kHeadroom = 128 * kMiB;

uint64_t now_ms() {
  return sys::clock_ns(CLOCK_MONOTONIC_COARSE) / 1000000;
}

bool due() {
  const uint64_t now = now_ms();
  uint64_t next = process.next_reconcile_ms.load(std::memory_order_relaxed);
  return now >= next && process.next_reconcile_ms.compare_exchange_strong(next, now + kPeriodMs);
}

// The charge for `measured` bytes when it is `before` now: never above what fits.
uint64_t with_headroom(const Device& device, uint64_t measured, uint64_t before) {
  if (!process.loads_lazily.load(std::memory_order_relaxed)) return measured;
  const uint64_t room = room_left(device) + before;
  const uint64_t wanted = measured + kHeadroom;
  if (wanted <= room) return wanted;
  return room > measured ? room : measured;
}

// One measurement: what ALLOT_KIND_DRIVER should be when it is `before` now.
bool driver_bytes(Device& device, uint64_t before, uint64_t* out) {
  const uint32_t gpu = static_cast<uint32_t>(device.gpu);
  if (!swap_is_open()) return false;  // charged memory is not on the GPU now
  const uint64_t flights = process.flights.load(std::memory_order_acquire);
  const uint64_t charged_before = tracked_bytes(gpu);
  uint64_t used = 0;
  if (!nvml_used_by_me(device, &used)) return false;
  const uint64_t charged_after = tracked_bytes(gpu);
  const bool quiet = flights % kFlightEnded == 0 &&
                     flights == process.flights.load(std::memory_order_acquire) &&
                     charged_before == charged_after;
  const uint64_t charged = charged_before > charged_after ? charged_before : charged_after;
  const uint64_t measured = used > charged ? used - charged : 0;
  device.driver_measured.store(measured, std::memory_order_relaxed);
  const uint64_t floor = device.driver_floor.load(std::memory_order_relaxed);
  const uint64_t target = with_headroom(device, measured > floor ? measured : floor, before);
  const bool certain = quiet && !descriptors_keep_memory();
  *out = target < before && !certain ? before : target;
  return true;
}

// Pools and graphs of all devices, and NVML's figure of the next device in turn: one NVML query per
// period, however many GPUs a process uses.
void reconcile() {
  settle_pools(false);
  settle_graphs();
  const uint32_t count = process.device_count;
  const uint32_t turn = process.reconcile_turn.fetch_add(1, std::memory_order_relaxed);
  for (uint32_t i = 0; i < count; ++i) {
    Device& device = process.devices[(turn + i) % count];
    if (device.gpu < 0 || !device.context_seen.load(std::memory_order_acquire)) continue;
    measure_driver_memory(device, 0);
    break;
  }
  reclaim_dead(false);
  settle_exported_allocations();
  take_over_ended_loans();
}

}  // namespace

bool measure_driver_memory(Device& device, uint64_t prepaid) {
  const bool measured = device.driver.settle(
      static_cast<uint32_t>(device.gpu), ALLOT_KIND_DRIVER, prepaid,
      [&device](uint64_t before, uint64_t* now) { return driver_bytes(device, before, now); });
  if (!measured) device.driver.accept(prepaid);
  return measured;
}

void keep_accounts(Device& device) {
  // A context made through an export table or before we attached: measure it before granting
  // anything.
  if (!device.context_seen.load(std::memory_order_acquire) && !device.context_seen.exchange(true)) {
    measure_driver_memory(device, 0);
    learn_context_bytes(device, device.driver_measured.load(std::memory_order_relaxed));
    return;
  }
  if (due()) reconcile();
}

void keep_all_accounts() {
  if (due()) reconcile();
}

uint64_t learned_context_bytes(const Device& device) {
  return __atomic_load_n(&process.slice.file->gpus[device.gpu].context_bytes, __ATOMIC_RELAXED);
}

void learn_context_bytes(const Device& device, uint64_t bytes) {
  if (bytes > 0)
    __atomic_store_n(&process.slice.file->gpus[device.gpu].context_bytes, bytes, __ATOMIC_RELAXED);
}

}  // namespace allot::shim
