// See sim_sizes.h.
#include "cli/launch/sim_sizes.h"

#include <fmt/format.h>

#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "abi/env.h"
#include "cli/failure.h"
#include "cli/gpus/gpu_inventory.h"
#include "cli/output.h"
#include "cli/region/region_view.h"

namespace allot::cli {
namespace {

// Sets a variable, or takes it away, while it lives.
class Setting {
 public:
  Setting(const char* name, const char* value) : name_(name) {
    if (const char* before = std::getenv(name); before != nullptr) before_ = before;
    put(value);
  }
  ~Setting() { put(before_ ? before_->c_str() : nullptr); }
  Setting(const Setting&) = delete;
  Setting& operator=(const Setting&) = delete;

 private:
  void put(const char* value) {
    if (value == nullptr) {
      unsetenv(name_);
    } else {
      setenv(name_, value, 1);
    }
  }
  const char* name_;
  std::optional<std::string> before_;
};

std::vector<uint64_t> sizes_of(const Inventory& inventory) {
  std::vector<uint64_t> sizes;
  for (const Gpu& gpu : inventory.gpus) sizes.push_back(gpu.total_bytes);
  return sizes;
}

// As --sim takes them: "2x16G", "80G,24G".
std::string sizes_text(const std::vector<uint64_t>& sizes) {
  const auto one = [](uint64_t bytes) {
    const uint64_t mib = bytes >> 20;
    return mib % 1024 == 0 ? fmt::format("{}G", mib / 1024) : fmt::format("{}M", mib);
  };
  std::string text;
  bool same = true;
  for (const uint64_t size : sizes) {
    same = same && size == sizes.front();
    text += (text.empty() ? "" : ",") + one(size);
  }
  return same ? fmt::format("{}x{}", sizes.size(), one(sizes.front())) : text;
}

bool is_on(const SliceView& slice, const Inventory& machine) {
  if (!slice.software()) return false;
  for (const SliceGpuView& gpu : slice.gpus) {
    for (const Gpu& there : machine.gpus) {
      if (gpu.uuid == there.uuid) return true;
    }
  }
  return false;
}

}  // namespace

void refuse_other_sizes(const DriverFiles& sim, bool typed) {
  const char* given = std::getenv(ALLOT_ENV_SIM_GPUS);
  if (given == nullptr || *given == '\0') return;
  const std::string wanted = given;
  const RegionView region = read_region();
  if (region.slices.empty() && !typed) return;
  const Setting look(ALLOT_ENV_SIM_LOOK, "1");
  const Inventory asked = ask_driver(sim);
  const Setting no_sizes(ALLOT_ENV_SIM_GPUS, nullptr);
  const Inventory stands = ask_driver(sim);
  if (asked.gpus.empty() || stands.gpus.empty() || sizes_of(asked) == sizes_of(stands)) return;
  for (const SliceView& slice : region.slices) {
    if (!is_on(slice, stands)) continue;
    refuse(
        "the software GPU: it is in use as {} by slice '{}', and {} was asked for; use it without "
        "sizes, end its slices ('allot stop {}'), or set {} to another folder",
        sizes_text(sizes_of(stands)), slice.name, wanted, slice.name, ALLOT_ENV_SIM_DIR);
  }
  if (!typed || stands.gpus.empty()) return;
  note(fmt::format("the software GPU is {} from now on, also for --sim without sizes; it was {}",
                   sizes_text(sizes_of(asked)), sizes_text(sizes_of(stands))));
}

}  // namespace allot::cli
