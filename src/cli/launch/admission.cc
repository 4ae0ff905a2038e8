// See admission.h.
#include "cli/launch/admission.h"

#include <unistd.h>

#include "cli/failure.h"
#include "cli/output.h"
#include "cli/region/region_view.h"
#include "core/time_policy.h"

namespace allot::cli {

Admission::Admission(const std::string& folder, const std::string& except_path)
    : lock_(folder.c_str()) {
  const RegionView region = read_region();
  for (const UnreadableSlice& file : region.unreadable) {
    if (file.may_run && file.path != except_path && uncounted_.empty())
      uncounted_ = fmt::format("{} cannot be counted: {}", file.path, file.reason);
  }
  for (const SliceView& slice : region.slices) {
    if (slice.path == except_path) continue;
    for (const SliceGpuView& gpu : slice.gpus) {
      const bool holds = gpu.limit_bytes != ALLOT_UNLIMITED && !slice.evicted();
      const uint64_t untaken =
          holds && gpu.limit_bytes > gpu.used_bytes ? gpu.limit_bytes - gpu.used_bytes : 0;
      if (gpu.share_permille == 0 && untaken == 0) continue;
      const std::string whose =
          slice.uid == geteuid() ? slice.name : fmt::format("{} of {}", slice.name, slice.user);
      promises_.push_back({whose, gpu.uuid, std::min(gpu.share_permille, core::kWhole), untaken});
    }
  }
}

void Admission::check(const Uuid& gpu, const std::string& label, uint32_t share_permille) const {
  if (share_permille != 0 && !uncounted_.empty()) {
    throw NotNow(fmt::format(
        "--gpu-share: the share of a slice {}; wait for its end, or add --overcommit", uncounted_));
  }
  std::vector<uint32_t> shares;
  std::string who;
  uint32_t sum = 0;
  for (const Promise& promise : promises_) {
    if (promise.gpu != gpu || promise.share_permille == 0) continue;
    shares.push_back(promise.share_permille);
    sum += promise.share_permille;
    who += fmt::format("{}{} has {}", who.empty() ? "" : ", ", promise.slice,
                       percent_text(promise.share_permille));
  }
  if (core::share_fits(shares, share_permille)) return;
  const uint32_t left = sum < core::kWhole ? core::kWhole - sum : 0;
  throw NotNow(fmt::format(
      "--gpu-share: {} of GPU {} is more than the {} that is unreserved ({}); ask for less, or add "
      "--overcommit, which shrinks all shares in proportion",
      percent_text(share_permille), label, left == 0 ? "nothing" : percent_text(left), who));
}

void Admission::check_memory(const Gpu& gpu, uint64_t bytes) const {
  if (bytes == ALLOT_UNLIMITED || !gpu.free_known) return;
  uint64_t promised = 0;
  for (const Promise& promise : promises_) {
    if (promise.gpu == gpu.uuid) promised += promise.untaken_bytes;
  }
  const uint64_t free = gpu.free_bytes > promised ? gpu.free_bytes - promised : 0;
  if (bytes <= free) return;
  throw NotNow(fmt::format(
      "--gpu-mem: {} is not free on GPU {}: {} is unused, and {} of that is promised to slices",
      size_text(bytes), gpu.index, size_text(gpu.free_bytes), size_text(promised)));
}

std::string percent_text(uint32_t permille) {
  if (permille == 0) return "none";
  return permille % 10 == 0 ? fmt::format("{}%", permille / 10)
                            : fmt::format("{}.{}%", permille / 10, permille % 10);
}

}  // namespace allot::cli
