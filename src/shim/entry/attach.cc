// The process joins its slice: at cuInit, and not before.
//
// The process finds and joins its slice before the real cuInit, so that a slice which fails closed
// leaves the driver uninitialised, and the driver itself refuses every later call. Then the driver
// initialises. (It forks helpers, which inherit everything; they never call us, and the fork guard
// is not up yet.) Then the driver's devices are matched with the region's by UUID. This honours
// CUDA_VISIBLE_DEVICES in any form, because the driver has read it.
//
// Where the slice cannot be set up and fails closed, cuInit returns CUDA_ERROR_NOT_PERMITTED: after
// NO_DEVICE frameworks would silently fall back to the CPU.
//
// The end. A process does not end its own slot; the next process that looks does (at a refusal, in
// cuMemGetInfo, `allot ps`). /proc shows that a process has ended only after the kernel has closed
// its devices and its memory is really free, whereas a slot ended in a destructor would admit
// others while the GPU still holds the memory. Only where slots cannot be locked a process of
// another pid namespace than the slice's creator ends its slot itself: nobody there can check
// whether it lives.
#include <sys/mman.h>

#include <cerrno>
#include <ctime>

#include "base/text.h"
#include "core/ledger.h"
#include "core/shared.h"
#include "core/time_policy.h"
#include "shim/entry/visible_devices.h"
#include "shim/memory/exported.h"
#include "shim/memory/pool.h"
#include "shim/memory/slabs.h"
#include "shim/memory/vmm.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/hook_guard.h"
#include "shim/process/hook_lists.h"
#include "shim/process/limits_read.h"
#include "shim/process/log.h"
#include "shim/process/process.h"
#include "shim/process/real_library.h"
#include "shim/process/slice_search.h"
#include "shim/process/start_environment.h"
#include "shim/swap/swap.h"
#include "shim/time/agent.h"
#include "shim/time/streams.h"
#include "shm/promises.h"
#include "shm/region_folder.h"
#include "shm/slice_file.h"
#include "shm/time_view.h"
#include "sys/clock.h"
#include "sys/file.h"
#include "sys/keep_errno.h"
#include "sys/process.h"

namespace allot::shim {

constinit Process process;
constinit thread_local uint32_t hook_depth = 0;

namespace {

constexpr uint64_t kGuardBytes = 4096;
constinit char slice_path[shm::kPathBytes] = {};
constinit bool limits_by_environment = false;  // the environment alone sets them
constinit bool share_free = true;              // all shares that it asks for
constexpr uint64_t kEvictedLookNs = 200'000'000;
// Another thread may be initialising the driver.

// A page that is 0 in every child forked from now on (Linux 4.14; gVisor has no such page).
void raise_fork_guard() {
  const sys::KeepErrno keep;
  const Result<void*> page = sys::map_memory(kGuardBytes);
  if (!page || madvise(*page, kGuardBytes, MADV_WIPEONFORK) != 0) {
    if (page) sys::unmap(*page, kGuardBytes);
    process.compare_pids.store(true, std::memory_order_release);
    return;
  }
  auto* guard = static_cast<std::atomic<uint32_t>*>(*page);
  guard->store(1, std::memory_order_relaxed);
  process.fork_guard.store(guard, std::memory_order_release);
}

// A forked child has inherited our state and may start afresh: it owns nothing that the parent
// held.
void forget_parent() {
  process.table.abandon();
  abandon_pools();
  abandon_slabs();
  abandon_exports();
  abandon_vmm();
  abandon_bound_memory();
  abandon_streams();
  forget_agent();
  forget_swap();
  for (Device& device : process.devices) {
    device.driver.abandon();
    device.graph.abandon();
    device.context_seen.store(false);
    device.contexts.store(0);
    device.driver_floor.store(0);
    device.listed.store(false);
    device.nvml.store(nullptr);
    device.gpu = -1;
    device.refused = false;
  }
  process.visible_count = 0;
  process.refused_from = UINT32_MAX;
  process.flights.store(0);
  process.device_count = 0;
  process.slice = {};
  process.fork_guard.store(nullptr);
  process.compare_pids.store(false);
  process.state.store(State::kOff, std::memory_order_release);
}

struct Outcome {
  bool joined;
  const char* trouble;  // null: not in a slice, and that is fine
  int os_errno;
};

const char* why_not_joined(const Error& error) {
  switch (error.code) {
    case Errc::kFull:
      return error.os_errno != 0 ? "the slice cannot be joined: the disk of its folder is full"
                                 : "the slice cannot be joined: it has 4096 processes already";
    case Errc::kNotFound:
      return "the slice cannot be joined: it does not exist";
    case Errc::kNoPermission:
      return "the slice cannot be joined: it is another user's, or its folder is not safe";
    case Errc::kDamaged:
    case Errc::kWrongVersion:
      return "the slice cannot be joined: its file is damaged or of another version";
    default:
      if (error.os_errno == EFBIG)
        return "the slice's file cannot be made: it is larger than this process may write (ulimit "
               "-f)";
      return "the slice cannot be joined";
  }
}
static_assert(ALLOT_MAX_SLOTS == 4096, "the message says so");

// Joining a slice that is there makes none.
bool too_many_slices(const SliceChoice& choice) {
  const uint64_t most = house_rules().value(shm::kRuleMostSlices, ALLOT_UNLIMITED);
  char path[shm::kPathBytes];
  if (most == ALLOT_UNLIMITED || !shm::slice_path(choice.folder, choice.name, path)) return false;
  return shm::slices_of(choice.folder, sys::user_id(), path) >= most;
}

Outcome join_slice() {
  SliceChoice choice;
  const Result<void> chosen = choose_slice(&choice);
  if (!chosen)
    return {false, "the region's folder or the slice's name cannot be used",
            chosen.error().os_errno};
  if (choice.kind != SliceChoice::Kind::kFile) {
    static constinit char unreadable[256] = {};
    if (!limits_can_be_read(unreadable, sizeof(unreadable))) return {false, unreadable, 0};
    if (choice.kind != SliceChoice::Kind::kNone && rules_problem() != nullptr)
      return {false, rules_problem(), 0};
    if (choice.kind == SliceChoice::Kind::kByLimits && too_many_slices(choice))
      return {false, "the administrator's rules allow this user no further slice", 0};
  }
  if (choice.kind == SliceChoice::Kind::kNone) return {false, nullptr, 0};
  uint32_t flags = fails_closed() ? ALLOT_SLICE_FAIL_CLOSED : 0u;
  if (real_cuda.find("allot_sim_version") != nullptr) flags |= ALLOT_SLICE_SOFTWARE;
  if (wants_fast_swap()) flags |= ALLOT_SLICE_SWAP_FAST;
  const shm::NewSlice fresh = {choice.name, flags, 0, wanted_priority(), wanted_level()};
  const Result<shm::Joined> joined = choice.kind == SliceChoice::Kind::kFile
                                         ? shm::join_slice(choice.path)
                                         : shm::join_or_create(choice.folder, fresh);
  if (!joined) return {false, why_not_joined(joined.error()), joined.error().os_errno};
  limits_by_environment = choice.kind == SliceChoice::Kind::kByLimits;
  process.slice = joined->slice;
  process.slot = joined->slot;
  if (choice.kind == SliceChoice::Kind::kFile) {
    TextBuf(slice_path, sizeof(slice_path)).text(choice.path);
  } else if (!shm::slice_path(choice.folder, choice.name, slice_path)) {
    slice_path[0] = '\0';
  }
  process.pid = sys::current_pid();
  return {true, nullptr, 0};
}

void leave_slice() {
  core::Ledger(process.slice.file).end_slot(process.slot);
  shm::unmap(process.slice);
}

// Like the memory limit: the first process of the slice sets it. False: the share is not free.
// Other slices' shares are counted and ours is written under one lock, as `allot run` does; no call
// of the driver is made meanwhile.
bool ask_for_time(AllotGpu& gpu, uint32_t visible_index) {
  const WantedTime time = wanted_time(visible_index);
  uint32_t share = time.share_permille;
  if (share != 0 && core::load(gpu.share_permille) == 0 && !wants_overcommit()) {
    shm::SplitPath parts;
    if (!shm::split_path(slice_path, &parts)) return false;
    const shm::PromiseLock lock(parts.folder);
    const shm::Promised others = shm::promised_share(parts.folder, gpu.uuid, slice_path);
    const bool free = !others.uncounted && others.share_permille + share <= core::kWhole;
    if (!free) share = 0;
    uint32_t none = 0;
    core::cas(gpu.share_permille, none, share);
    none = 0;
    core::cas(gpu.max_permille, none, time.max_permille);
    return free || time.only_limit;
  }
  uint32_t none = 0;
  if (core::cas(gpu.share_permille, none, share)) {
    none = 0;
    core::cas(gpu.max_permille, none, time.max_permille);
  }
  return true;
}

bool slice_fails_closed() {
  const uint32_t flags = __atomic_load_n(&process.slice.file->header.flags, __ATOMIC_RELAXED);
  return (flags & ALLOT_SLICE_FAIL_CLOSED) != 0 || fails_closed();
}

bool has_own_gpus() {
  return (core::load(process.slice.file->header.flags) & ALLOT_SLICE_OWN_GPUS) != 0;
}

bool knows_gpu(const uint8_t uuid[16]) {
  const AllotSliceFile& file = *process.slice.file;
  const uint32_t count = core::load(file.header.gpu_count);
  for (uint32_t i = 0; i < count && i < ALLOT_MAX_GPUS; ++i) {
    if (__builtin_memcmp(file.gpus[i].uuid, uuid, sizeof(file.gpus[i].uuid)) == 0) return true;
  }
  return false;
}

// Matches the driver's devices with the region's. A GPU that the region has no room for is refused
// where the slice fails closed, and without limits where it fails open; the others keep theirs.
// False: the driver names a device that it does not know.
bool map_devices() {
  int count = 0;
  if (real::cuDeviceGetCount(&count) != CUDA_SUCCESS || count < 0) return true;
  process.visible_count = static_cast<uint32_t>(count);
  process.device_count = process.visible_count < kMaxDevices ? process.visible_count : kMaxDevices;
  uint32_t beyond = process.visible_count - process.device_count;
  for (uint32_t i = 0; i < process.device_count; ++i) {
    Device& device = process.devices[i];
    CUdevice ordinal = 0;
    CUuuid uuid = {};
    size_t bytes = 0;
    if (real::cuDeviceGet(&ordinal, static_cast<int>(i)) != CUDA_SUCCESS) return false;
    CUresult known = real::cuDeviceGetUuid_v2(&uuid, ordinal);
    if (known != CUDA_SUCCESS) known = real::cuDeviceGetUuid(&uuid, ordinal);
    if (known != CUDA_SUCCESS || real::cuDeviceTotalMem_v2(&bytes, ordinal) != CUDA_SUCCESS)
      return false;
    for (int k = 0; k < 16; ++k) device.uuid[k] = static_cast<uint8_t>(uuid.bytes[k]);
    device.physical_bytes = bytes;
    // A slice that was given its GPUs by name takes no other.
    const bool foreign = has_own_gpus() && !knows_gpu(device.uuid);
    const Result<uint32_t> gpu =
        foreign ? fail(Errc::kFull)
                : shm::find_or_add_gpu(process.slice, device.uuid, limit_of(i), bytes);
    if (!gpu && gpu.error().code != Errc::kFull) return false;
    if (!gpu) {
      device.refused = foreign || slice_fails_closed();
      ++beyond;
      continue;
    }
    if (limits_by_environment && !ask_for_time(process.slice.file->gpus[*gpu], i))
      share_free = false;
    device.gpu = static_cast<int>(*gpu);
  }
  if (slice_fails_closed()) process.refused_from = process.device_count;
  core::store(process.slice.file->slots[process.slot.index].gpus_beyond, beyond);
  if (beyond > 0) log_gpus_beyond(beyond, slice_fails_closed());
  return true;
}

bool limits_time() {
  const AllotSliceFile& file = *process.slice.file;
  if (core::load(file.header.priority) != ALLOT_PRIORITY_NORMAL) return true;
  for (const AllotGpu& gpu : file.gpus) {
    if (core::load(gpu.share_permille) != 0 || core::load(gpu.max_permille) != 0) return true;
  }
  return false;
}

// The driver is initialised already, so the hooks refuse its use. The file stays mapped, because an
// agent's thread may be reading it.
CUresult refuse_joined(const char* why) {
  log_no_slice(why, 0, true);
  core::Ledger(process.slice.file).end_slot(process.slot);
  process.state.store(State::kRefused, std::memory_order_release);
  return CUDA_ERROR_NOT_PERMITTED;
}

// What happens to a process whose slice could not be set up.
State without_slice(const Outcome& outcome) {
  if (outcome.trouble == nullptr) return State::kDisabled;
  const bool closed = fails_closed();
  log_no_slice(outcome.trouble, outcome.os_errno, closed);
  return closed ? State::kRefused : State::kDisabled;
}

// A new process of an evicted slice waits like the older ones, whose calls the driver holds: it
// publishes that it wants to run, and continues when the slice is restored. It waits before it
// initialises the driver, so that it holds no GPU memory that the eviction would have to move.
void wait_while_evicted() {
  AllotSliceFile& file = *process.slice.file;
  for (;;) {
    const uint32_t wake_seq = core::load(file.header.wake_seq);
    if ((core::load(file.header.flags) & ALLOT_SLICE_EVICTED) == 0) break;
    if (core::load(file.slots[process.slot.index].wants) == 0) {
      core::store(file.slots[process.slot.index].wants, 1u);
      shm::notify(process.slice);
      continue;
    }
    shm::wait_for_wake(process.slice, wake_seq, kEvictedLookNs);
  }
  core::store(file.slots[process.slot.index].wants, 0u);
}

constexpr const char* kShareTaken =
    "the share of GPU time that it asks for is not free; ALLOT_OVERCOMMIT=1 takes it all the same";

CUresult start(unsigned flags) {
  const Outcome outcome = join_slice();
  if (!outcome.joined) {
    const State state = without_slice(outcome);
    process.state.store(state, std::memory_order_release);
    return state == State::kRefused ? CUDA_ERROR_NOT_PERMITTED : real::cuInit(flags);
  }
  wait_while_evicted();
  const CUresult result = [flags] {
    const NarrowedDevices narrowed_devices(*process.slice.file);
    return real::cuInit(flags);
  }();
  if (result != CUDA_SUCCESS) {
    leave_slice();
    process.state.store(State::kOff, std::memory_order_release);
    return result;
  }
  if (map_devices()) {
    raise_fork_guard();
    const uint32_t unknown = process.unknown_symbols.exchange(0, std::memory_order_relaxed);
    __atomic_fetch_add(&process.slice.file->header.unknown_symbols, unknown, __ATOMIC_RELAXED);
    if (!share_free && slice_fails_closed()) return refuse_joined(kShareTaken);
    if (!share_free) log_less(kShareTaken);
    start_swap();
    process.state.store(State::kOn, std::memory_order_release);
    if (start_agent(slice_path) || !slice_fails_closed() || !limits_time()) return result;
    return refuse_joined("its GPU time cannot be held: no thread can be started");
  }
  constexpr const char* kNoRoom = "this machine's GPUs cannot be identified";
  if (slice_fails_closed()) return refuse_joined(kNoRoom);
  log_no_slice(kNoRoom, 0, false);
  leave_slice();
  process.state.store(State::kDisabled, std::memory_order_release);
  return result;
}

CUresult init(unsigned flags) {
  if (!real_cuda.there()) return CUDA_ERROR_NO_DEVICE;
  if (inside_hook()) return real::cuInit(flags);
  if (forked_child()) {
    // Where the driver allows a fresh start after fork, the child becomes a process of the slice of
    // its own.
    const CUresult result = real::cuInit(flags);
    if (result != CUDA_SUCCESS) return result;
    forget_parent();
  }
  State state = State::kOff;
  if (process.state.compare_exchange_strong(state, State::kStarting, std::memory_order_acq_rel)) {
    process.starter.store(sys::current_pid(), std::memory_order_release);
    const OwnCall own;
    return start(flags);
  }
  wait_for_start();
  state = process.state.load(std::memory_order_acquire);
  return state == State::kRefused ? CUDA_ERROR_NOT_PERMITTED : real::cuInit(flags);
}

// See the top of the file.
__attribute__((destructor)) void process_ends() {
  if (process.state.load(std::memory_order_acquire) != State::kOn || forked_child()) return;
  if (process.pid != sys::current_pid()) return;  // children of vfork and clone share our memory
  const AllotSliceFile* file = process.slice.file;
  const AllotSlot& slot = file->slots[process.slot.index];
  if (slot.held == ALLOT_HELD_BY_LOCK || slot.pid_namespace == file->header.pid_namespace) return;
  process.state.store(State::kDisabled, std::memory_order_release);
  core::Ledger(process.slice.file).end_slot(process.slot);
}

}  // namespace

CUresult start_late() {
  int count = 0;
  const CUresult result = real::cuDeviceGetCount(&count);
  if (result == CUDA_ERROR_NOT_INITIALIZED || result == CUDA_ERROR_DEINITIALIZED) return result;
  return result == CUDA_SUCCESS ? init(0) : CUDA_SUCCESS;
}

void wait_for_start() {
  const sys::KeepErrno keep;
  while (process.state.load(std::memory_order_acquire) == State::kStarting) {
    const uint32_t starter = process.starter.load(std::memory_order_acquire);
    if (starter != 0 && starter != sys::current_pid()) return;
    constexpr timespec kMoment = {0, 1'000'000};
    nanosleep(&kMoment, nullptr);
  }
}

bool time_limited() {
  const uint32_t flags = core::load(process.slice.file->header.flags);
  return limits_time() || (flags & ALLOT_SLICE_FROZEN) != 0;
}

bool must_hold_time() {
  return slice_fails_closed() && time_limited();
}

Device* current_device(CUcontext* context) {
  CUdevice ordinal = 0;
  if (real::cuCtxGetDevice(&ordinal) != CUDA_SUCCESS) return nullptr;
  if (real::cuCtxGetCurrent(context) != CUDA_SUCCESS) return nullptr;
  return device_of(ordinal);
}

std::span<const Hook> init_hooks() {
  // It is what the guards of all others wait for.
  static constexpr Hook hooks[] = {unguarded<init>("cuInit")};
  return hooks;
}

}  // namespace allot::shim
