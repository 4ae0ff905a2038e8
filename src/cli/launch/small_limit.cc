// See small_limit.h. A context's size is known only once there is one, so this is a hint and
// refuses nothing.
#include "cli/launch/small_limit.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/output.h"
#include "cli/region/region_view.h"

namespace allot::cli {
namespace {

// H100: 518 MiB with driver 580; the software GPU takes the same.
constexpr uint64_t kUsualBytes = uint64_t{512} << 20;

}  // namespace

uint64_t context_bytes(const Uuid& gpu) {
  uint64_t most = 0;
  for (const SliceView& slice : read_region().slices) {
    for (size_t i = 0; i < slice.gpus.size(); ++i) {
      if (slice.gpus[i].uuid != gpu) continue;
      for (const ProcessView& process : slice.processes) {
        if (i < process.charges.size())
          most = std::max(most, process.charges[i][ALLOT_KIND_DRIVER]);
      }
    }
  }
  // A process with many modules is no measure of a context.
  return most == 0 ? kUsualBytes : std::min(most, 2 * kUsualBytes);
}

std::string small_limit_text(const Uuid& gpu, const std::string& label, uint64_t limit_bytes) {
  if (limit_bytes == ALLOT_UNLIMITED || limit_bytes >= 2 * kUsualBytes) return "";
  const uint64_t context = context_bytes(gpu);
  if (limit_bytes >= context) return "";
  return fmt::format(
      "--gpu-mem: {} on GPU {} is less than a CUDA context takes there, about {}; programs run "
      "out "
      "of memory at their first call",
      size_text(limit_bytes), label, size_text(context));
}

void note_small_limits(const std::vector<ChosenGpu>& gpus) {
  std::string said;
  for (const ChosenGpu& entry : gpus) {
    const std::string text =
        small_limit_text(entry.gpu->uuid, std::to_string(entry.gpu->index), entry.limit_bytes);
    if (text.empty() || text == said) continue;
    note(text);
    said = text;
  }
}

}  // namespace allot::cli
