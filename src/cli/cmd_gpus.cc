// allot gpus: the GPUs, and what the slices use and were promised of each.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>

#include "abi/env.h"
#include "cli/commands.h"
#include "cli/failure.h"
#include "cli/gpus/gpu_inventory.h"
#include "cli/output.h"
#include "cli/region/region_view.h"

namespace allot::cli {
namespace {

using nlohmann::json;

// What the slices of this machine have of one GPU.
struct Taken {
  uint64_t used_bytes = 0;
  uint64_t promised_bytes = 0;  // sum of the limits
  uint32_t slices = 0;
  uint32_t unlimited = 0;  // of them without a limit
};

std::map<Uuid, Taken> taken_of(const RegionView& region) {
  std::map<Uuid, Taken> taken;
  for (const SliceView& slice : region.slices) {
    for (const SliceGpuView& gpu : slice.gpus) {
      Taken& one = taken[gpu.uuid];
      one.used_bytes += gpu.used_bytes;
      ++one.slices;
      if (gpu.limit_bytes == ALLOT_UNLIMITED) {
        ++one.unlimited;
      } else {
        one.promised_bytes += gpu.limit_bytes;
      }
    }
  }
  return taken;
}

std::string driver_text(const Inventory& inventory) {
  if (inventory.software)
    return "software GPU: its memory is this machine's own, no real GPU is used\n";
  std::string text =
      "driver " + (inventory.driver_version.empty() ? "?" : inventory.driver_version);
  if (inventory.cuda_version > 0) {
    text += fmt::format(", CUDA {}.{}", inventory.cuda_version / 1000,
                        inventory.cuda_version % 1000 / 10);
  }
  return text + " (queried through " + inventory.source + ")\n";
}

// The slice in which this command runs, or null. Inside a slice all figures are the slice's.
const char* own_slice() {
  return std::getenv(ALLOT_ENV_SLICE);
}

void print_text(const Inventory& inventory, const std::map<Uuid, Taken>& taken, bool wide) {
  // The beginning of a UUID selects a GPU as well as the whole.
  Table table(std::vector<Column>{{"INDEX", 0, 0},
                                  {"NAME", 0, 8},
                                  {"TOTAL", 0, 0},
                                  {"USED", 0, 0},
                                  {"PROMISED", 0, 0},
                                  {"FREE", 0, 0},
                                  {"SLICES", 2, 0},
                                  {"UUID", 1, 15}});
  for (const Gpu& gpu : inventory.gpus) {
    const auto found = taken.find(gpu.uuid);
    const Taken one = found == taken.end() ? Taken{} : found->second;
    std::string name = harmless(gpu.name);
    if (gpu.mig_enabled) name += " (divided: MIG)";
    std::string slices = std::to_string(one.slices);
    if (one.unlimited > 0) slices += fmt::format(" ({} without limit)", one.unlimited);
    table.row({std::to_string(gpu.index), name, size_text(gpu.total_bytes),
               size_text(one.used_bytes), size_text(one.promised_bytes),
               gpu.free_known ? size_text(gpu.free_bytes) : "?", slices, gpu.uuid_text});
  }
  const size_t width = wide ? Table::kNoLimit : screen_width();
  std::string text = driver_text(inventory);
  if (!text.empty() && text.back() == '\n') text.pop_back();
  text = wrapped(text, width, 2) + "\n";
  if (const char* slice = own_slice(); slice != nullptr)
    text += fmt::format("as seen from inside the slice {}\n", harmless(slice));
  print(text + table.text(width));
}

json gpus_json(const Inventory& inventory, const std::map<Uuid, Taken>& taken) {
  json gpus = json::array();
  for (const Gpu& gpu : inventory.gpus) {
    const auto found = taken.find(gpu.uuid);
    const Taken one = found == taken.end() ? Taken{} : found->second;
    gpus.push_back({{"index", gpu.index},
                    {"uuid", gpu.uuid_text},
                    {"name", gpu.name},
                    {"software", inventory.software},
                    {"mig_enabled", gpu.mig_enabled},
                    {"total_bytes", gpu.total_bytes},
                    {"free_bytes", gpu.free_known ? json(gpu.free_bytes) : json(nullptr)},
                    {"slices", one.slices},
                    {"slices_without_limit", one.unlimited},
                    {"slices_used_bytes", one.used_bytes},
                    {"promised_bytes", one.promised_bytes}});
  }
  const char* slice = own_slice();
  return {{"software", inventory.software},
          {"inside_slice", slice == nullptr ? json(nullptr) : json(slice)},
          {"source", inventory.source},
          {"driver_version", inventory.driver_version},
          {"cuda_version", inventory.cuda_version},
          {"gpus", gpus}};
}

struct GpusOptions {
  bool as_json = false;
  bool wide = false;
  std::string sim;
};

// Without a driver, slices may still run: on the software GPU.
void refuse_for_software_slices(const DriverFiles& driver, const RegionView& region) {
  if (!driver.cuda.empty() || !driver.nvml.empty()) return;
  const auto software = std::count_if(region.slices.begin(), region.slices.end(),
                                      [](const SliceView& slice) { return slice.software(); });
  if (software == 0) return;
  refuse("there is no NVIDIA driver; {} on the software GPU: 'allot gpus --sim' lists that one",
         software == 1 ? "a slice runs" : fmt::format("{} slices run", software));
}

void gpus(const GpusOptions& options) {
  only_look();
  const DriverFiles driver = options.sim.empty() ? find_driver() : use_sim(options.sim);
  const RegionView region = read_region();
  refuse_for_software_slices(driver, region);
  const Inventory inventory = need_gpus(driver);
  const std::map<Uuid, Taken> taken = taken_of(region);
  if (options.as_json) {
    print_json(gpus_json(inventory, taken));
  } else {
    print_text(inventory, taken, options.wide);
  }
}

}  // namespace

void add_gpus(CLI::App& app, int* exit_status) {
  CLI::App* sub = app.add_subcommand("gpus", "list the GPUs and how much of each the slices hold");
  const auto options = std::make_shared<GpusOptions>();
  sub->add_flag("--json", options->as_json, "machine-readable output; fields in docs/commands.md");
  sub->add_flag("--wide", options->wide, "do not shorten names and UUIDs to fit the terminal");
  sub->add_option("--sim", options->sim, "the software GPU, such as --sim=2x80G")
      ->type_name("[=SPEC]");
  sub->footer(
      "USED is what slices have taken. PROMISED is the sum of the slices' limits; above TOTAL, not "
      "all\nslices can be full at once. FREE is what the driver reports; programs outside allot "
      "use memory too.\n"
      "\n"
      "Examples:\n"
      "  allot gpus\n"
      "  allot gpus --sim=2x80G --json");
  sub->callback([options, exit_status] {
    gpus(*options);
    *exit_status = kExitOk;
  });
}

}  // namespace allot::cli
