// allot set: changes a slice while its programs run. The new limit stands in the region file and rules
// the next allocation; what is held already is not taken away.
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/failure.h"
#include "cli/gpu_inventory.h"
#include "cli/output.h"
#include "cli/slice_spec.h"
#include "cli/tenants.h"
#include "core/ledger.h"
#include "shm/region.h"

namespace allot::cli {
namespace {

struct Options {
  std::string name, gpu;
  std::vector<std::string> gpu_mem;
};

// Holds the mapping for as long as the command needs it.
class OpenTenant {
 public:
  explicit OpenTenant(const std::string& name) {
    const std::string folder = region_folder(false);
    const std::string path = folder.empty() ? "" : tenant_path(folder, name);
    const Result<shm::Tenant> opened = folder.empty() ? Result<shm::Tenant>(fail(Errc::kNotFound))
                                                      : shm::open_tenant(path.c_str(), true);
    if (!opened) cannot_open(name, path, opened.error());
    tenant_ = *opened;
  }
  ~OpenTenant() { shm::unmap(tenant_); }
  OpenTenant(const OpenTenant&) = delete;
  OpenTenant& operator=(const OpenTenant&) = delete;
  shm::Tenant& operator*() { return tenant_; }
  shm::Tenant* operator->() { return &tenant_; }

 private:
  [[noreturn]] static void cannot_open(const std::string& name, const std::string& path,
                                       const Error& error) {
    if (error.code == Errc::kNotFound)
      refuse("set: no slice '{}'; 'allot ps' lists what there is", name);
    if (error.code == Errc::kNoPermission) {
      refuse("set: '{}' is another user's slice ({}); only its owner may change it", name, path);
    }
    refuse("set: {}: {}; end its programs and remove the file", path, describe(error));
  }
  shm::Tenant tenant_;
};

// The slice's GPUs as an inventory, so that a UUID is looked up the same way everywhere.
Inventory gpus_of(const shm::Tenant& tenant) {
  Inventory inventory;
  const uint32_t count =
      std::min(__atomic_load_n(&tenant.file->header.gpu_count, __ATOMIC_ACQUIRE), ALLOT_MAX_GPUS);
  for (uint32_t i = 0; i < count; ++i) {
    const AllotGpu& from = tenant.file->gpus[i];
    Gpu gpu;
    std::copy(std::begin(from.uuid), std::end(from.uuid), gpu.uuid.begin());
    gpu.uuid_text = uuid_to_text(gpu.uuid);
    gpu.index = i;
    gpu.total_bytes = from.physical_bytes;
    inventory.gpus.push_back(gpu);
  }
  return inventory;
}

// Which of the slice's GPUs `selector` means. An index counts as `allot gpus` counts, where the slice
// knows it; else as the slice's own order.
uint32_t position_of(const shm::Tenant& tenant, const Inventory& mine, std::string_view flag,
                     const std::string& selector) {
  if (selector.find_first_not_of("0123456789") != std::string::npos) {
    return find_gpu(mine, flag, selector).index;
  }
  bool known = false;
  for (const Gpu& gpu : mine.gpus) {
    const uint32_t number =
        __atomic_load_n(&tenant.file->gpus[gpu.index].index_plus_one, __ATOMIC_RELAXED);
    if (number != 0 && std::to_string(number - 1) == selector) return gpu.index;
    known = known || number != 0;
  }
  if (!known) return find_gpu(mine, flag, selector).index;
  refuse("{}: the slice has no part of GPU {}; 'allot ps' shows what it has", flag, selector);
}

struct Change {
  uint32_t position;
  uint64_t bytes;
};

std::vector<Change> read_changes(const Options& options, const shm::Tenant& tenant,
                                 const Inventory& mine) {
  std::vector<std::string> only;
  if (!options.gpu.empty()) only = parse_gpu_list("--gpu", options.gpu);
  std::vector<Change> changes;
  for (const std::string& text : options.gpu_mem) {
    for (const MemoryLimit& limit : parse_gpu_mem("--gpu-mem", text)) {
      if (!limit.gpu.empty()) {
        changes.push_back({position_of(tenant, mine, "--gpu-mem", limit.gpu), limit.bytes});
      } else if (!only.empty()) {
        for (const std::string& gpu : only) {
          changes.push_back({position_of(tenant, mine, "--gpu", gpu), limit.bytes});
        }
      } else {
        for (const Gpu& gpu : mine.gpus) changes.push_back({gpu.index, limit.bytes});
      }
    }
  }
  for (const Change& change : changes) {
    const uint64_t total = mine.gpus[change.position].total_bytes;
    if (change.bytes == ALLOT_UNLIMITED || total == 0 || change.bytes <= total) continue;
    refuse("--gpu-mem: {} is more than the GPU has, which is {}; write at most that",
           size_text(change.bytes), size_text(total));
  }
  return changes;
}

std::string apply(shm::Tenant& tenant, const Inventory& mine, const Change& change) {
  core::Ledger ledger(tenant.file);
  const uint64_t before = ledger.limit(change.position);
  ledger.set_limit(change.position, change.bytes);
  const uint64_t used = ledger.used(change.position);
  std::string line = fmt::format("{}: {} -> {}, {} in use", mine.gpus[change.position].uuid_text,
                                 size_text(before), size_text(change.bytes), size_text(used));
  if (used > change.bytes) {
    line += "; nothing is taken away: further allocations fail until use is below the limit";
  }
  return line + "\n";
}

void set(const Options& options) {
  check_name("set", options.name);
  // Form before machine: a size that is none must not depend on which slices there are.
  for (const std::string& text : options.gpu_mem) parse_gpu_mem("--gpu-mem", text);
  OpenTenant tenant(options.name);
  shm::reclaim_dead(*tenant);
  const Inventory mine = gpus_of(*tenant);
  if (mine.gpus.empty())
    refuse("set: '{}' has no GPU yet; try again when its program runs", options.name);
  std::string report;
  for (const Change& change : read_changes(options, *tenant, mine))
    report += apply(*tenant, mine, change);
  print(report);
}

}  // namespace

void add_set(CLI::App& app, int* exit_status) {
  CLI::App* sub = app.add_subcommand("set", "change a slice while its programs run");
  const auto options = std::make_shared<Options>();
  sub->add_option("name", options->name, "the slice, as 'allot ps' names it")
      ->required()
      ->type_name("NAME");
  sub->add_option("--gpu-mem", options->gpu_mem,
                  "new memory limit; 'none' takes it away; GPU:SIZE for one GPU")
      ->required()
      ->type_name("SIZE|none")
      ->expected(1)
      ->take_all();
  sub->add_option("--gpu", options->gpu,
                  "only these GPUs of the slice: indexes or UUIDs, joined by commas")
      ->type_name("LIST");
  sub->footer(
      "Takes effect at the next allocation. A limit below what is in use is allowed: nothing is "
      "lost, and\n"
      "further allocations fail until enough was freed.\n"
      "\n"
      "Examples:\n"
      "  allot set alice --gpu-mem 4G\n"
      "  allot set alice --gpu 1 --gpu-mem none");
  sub->callback([options, exit_status] {
    set(*options);
    *exit_status = kExitOk;
  });
}

}  // namespace allot::cli
