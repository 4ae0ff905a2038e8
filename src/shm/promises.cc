// See promises.h.
#include "shm/promises.h"

#include <ctime>
#include <string_view>

#include "core/shared.h"
#include "core/time_policy.h"
#include "shm/region_folder.h"

namespace allot::shm {
namespace {

constexpr uint32_t kLookMs = 5;

struct Count {
  const uint8_t* uuid;
  std::string_view except;
  Promised sum;
};

void add(void* context, const char* path) {
  Count& count = *static_cast<Count*>(context);
  if (count.except == path) return;
  auto slice = open_slice(path, false);
  if (!slice) {
    // Whatever has another version, is renamed or unreadable, and runs.
    if (slice.error().code != Errc::kNotFound && may_be_in_use(path)) count.sum.uncounted = true;
    return;
  }
  const AllotSliceFile& file = *slice->file;
  const uint32_t gpus = core::load(file.header.gpu_count);
  for (uint32_t i = 0; i < gpus && i < ALLOT_MAX_GPUS; ++i) {
    const AllotGpu& gpu = file.gpus[i];
    if (__builtin_memcmp(gpu.uuid, count.uuid, sizeof(gpu.uuid)) != 0) continue;
    const uint32_t share = core::load(gpu.share_permille);
    if (share == 0 || !slice_in_use(*slice)) break;
    count.sum.share_permille += share < core::kWhole ? share : core::kWhole;
    break;
  }
  unmap(*slice);
}

}  // namespace

PromiseLock::PromiseLock(const char* folder) {
  auto open = open_folder(folder);
  if (!open) return;
  folder_ = std::move(open->fd);
  for (uint32_t waited = 0; waited < kPromisePatienceMs; waited += kLookMs) {
    if (sys::lock_now(folder_.get())) return;
    constexpr timespec kLook = {0, kLookMs * 1'000'000};
    nanosleep(&kLook, nullptr);
  }
}

Promised promised_share(const char* folder, const uint8_t uuid[16], const char* except_path) {
  Count count{uuid, except_path, {}};
  list_slices(folder, add, &count);
  return count.sum;
}

}  // namespace allot::shm
