// The slice is looked up at the first call that concerns memory or processes, not when the library
// loads.
#include "shim/nvml/slice.h"

#include <atomic>

#include "base/text.h"
#include "core/ledger.h"
#include "shim/nvml/hooks.h"
#include "shim/process/slice_search.h"
#include "shim/process/spin.h"
#include "shm/living.h"
#include "sys/clock.h"

namespace allot::shim {
namespace {

constinit NvmlCall<nvmlDevice_t, char*, unsigned> get_uuid{"nvmlDeviceGetUUID"};
constinit NvmlCall<nvmlDevice_t, unsigned*> get_index{"nvmlDeviceGetIndex"};

// The slice of our own user, kept mapped until the process ends; the first who finds it keeps it.
enum class Keeping { kNothing, kStoring, kSlice };
constinit std::atomic<Keeping> keeping{Keeping::kNothing};
constinit shm::Slice kept;

constexpr uint64_t kSearchPeriodNs = 1'000'000'000;
constinit std::atomic<uint64_t> next_search_ns{0};  // after a search that found nothing

struct Known {
  nvmlDevice_t handle;
  uint8_t uuid[16];
  uint32_t index;
};
constexpr uint32_t kMostKnown = 64;
constinit Known known[kMostKnown] = {};
constinit uint32_t known_count = 0;
constinit SpinLock known_lock;

bool find_known(nvmlDevice_t handle, uint8_t uuid[16], uint32_t* index) {
  known_lock.lock();
  bool found = false;
  for (uint32_t i = 0; i < known_count && !found; ++i) {
    if (known[i].handle != handle) continue;
    for (int k = 0; k < 16; ++k) uuid[k] = known[i].uuid[k];
    *index = known[i].index;
    found = true;
  }
  known_lock.unlock();
  return found;
}

// Reads the 32 hexadecimal digits after "GPU-" or "MIG-".
bool parse_uuid(const char* text, uint8_t uuid[16]) {
  while (*text != '\0' && *text != '-') ++text;
  int digits = 0;
  for (; *text != '\0' && digits < 32; ++text) {
    const char c = *text;
    int value = 0;
    if (c >= '0' && c <= '9')
      value = c - '0';
    else if (c >= 'a' && c <= 'f')
      value = c - 'a' + 10;
    else if (c >= 'A' && c <= 'F')
      value = c - 'A' + 10;
    else if (c == '-')
      continue;
    else
      return false;
    uuid[digits / 2] =
        static_cast<uint8_t>(digits % 2 == 0 ? value << 4 : uuid[digits / 2] | value);
    ++digits;
  }
  return digits == 32;
}

Result<shm::Slice> open_chosen(const SliceChoice& choice, bool* seen_live) {
  char path[shm::kPathBytes];
  const char* at = choice.path;
  if (choice.kind == SliceChoice::Kind::kByLimits) {
    if (const Result<void> named = shm::slice_path(choice.folder, choice.name, path); !named) {
      return tl::unexpected<Error>(named.error());
    }
    at = path;
  }
  const Result<shm::Slice> live = shm::watch_slice(at);
  *seen_live = live.has_value();
  return live ? live : shm::open_slice(at, false);
}

}  // namespace

SliceLook::SliceLook() {
  if (keeping.load(std::memory_order_acquire) == Keeping::kSlice) {
    slice_ = kept;
    in_slice_ = true;
    return;
  }
  // The search reads /proc and the region's folder, so a monitor outside every slice searches only
  // once a second.
  const uint64_t now = sys::monotonic_ns();
  if (now < next_search_ns.load(std::memory_order_relaxed)) return;
  SliceChoice choice;
  if (!choose_slice(&choice) || choice.kind == SliceChoice::Kind::kNone) {
    next_search_ns.store(now + kSearchPeriodNs, std::memory_order_relaxed);
    return;
  }
  in_slice_ = true;
  bool live = false;
  const Result<shm::Slice> opened = open_chosen(choice, &live);
  if (!opened) return;
  slice_ = *opened;
  Keeping nothing = Keeping::kNothing;
  ours_ = !live ||
          !keeping.compare_exchange_strong(nothing, Keeping::kStoring, std::memory_order_acq_rel);
  if (ours_) return;
  kept = slice_;
  keeping.store(Keeping::kSlice, std::memory_order_release);
}

SliceLook::~SliceLook() {
  if (ours_) shm::unmap(slice_);
}

int SliceLook::gpu_of(const uint8_t uuid[16]) const {
  if (slice_.file == nullptr) return -1;
  uint32_t count = __atomic_load_n(&slice_.file->header.gpu_count, __ATOMIC_ACQUIRE);
  if (count > ALLOT_MAX_GPUS) count = ALLOT_MAX_GPUS;
  for (uint32_t i = 0; i < count; ++i) {
    if (__builtin_memcmp(slice_.file->gpus[i].uuid, uuid, 16) == 0) return static_cast<int>(i);
  }
  return -1;
}

uint64_t SliceLook::used(int gpu) const {
  shm::Living living(slice_);
  return core::Ledger(slice_.file)
      .used_by_living(static_cast<uint32_t>(gpu), shm::Living::alive, &living);
}

bool SliceLook::has_process(uint32_t pid) const {
  if (slice_.file == nullptr) return false;
  uint32_t high = __atomic_load_n(&slice_.file->header.slots_high, __ATOMIC_ACQUIRE);
  if (high > ALLOT_MAX_SLOTS) high = ALLOT_MAX_SLOTS;
  for (uint32_t i = 0; i < high; ++i) {
    const uint64_t word = __atomic_load_n(&slice_.file->slot_words[i], __ATOMIC_ACQUIRE);
    if (ALLOT_SLOT_STATE(word) == ALLOT_SLOT_LIVE && ALLOT_SLOT_PID(word) == pid) return true;
  }
  return false;
}

bool identify(nvmlDevice_t handle, uint8_t uuid[16], uint32_t* index) {
  if (find_known(handle, uuid, index)) return true;
  char text[NVML_DEVICE_UUID_V2_BUFFER_SIZE] = {};
  unsigned number = 0;
  if (get_uuid(handle, text, sizeof(text)) != NVML_SUCCESS || !parse_uuid(text, uuid)) return false;
  if (get_index(handle, &number) != NVML_SUCCESS) number = 0;  // MIG devices have none
  *index = number;
  known_lock.lock();
  if (known_count < kMostKnown) {
    Known& fresh = known[known_count++];
    fresh.handle = handle;
    for (int k = 0; k < 16; ++k) fresh.uuid[k] = uuid[k];
    fresh.index = number;
  }
  known_lock.unlock();
  return true;
}

void forget_handles() {
  known_lock.lock();
  known_count = 0;
  known_lock.unlock();
}

}  // namespace allot::shim
