// allot set: changes a slice while its programs run. A new memory limit is written into the region
// file and applies to the next allocation; it takes back no memory that the slice already holds.
// GPU time changes as soon as the slice's agents wake.
#include <unistd.h>

#include <optional>

#include "cli/commands.h"
#include "cli/cpus/cpu_slices.h"
#include "cli/failure.h"
#include "cli/gpus/gpu_inventory.h"
#include "cli/launch/admission.h"
#include "cli/launch/bounds.h"
#include "cli/launch/seal.h"
#include "cli/launch/small_limit.h"
#include "cli/log/deeds.h"
#include "cli/output.h"
#include "cli/region/open_slice.h"
#include "cli/slice_spec.h"
#include "core/ledger.h"
#include "core/time_policy.h"
#include "shm/slice_file.h"

namespace allot::cli {
namespace {

struct SetOptions {
  std::string name, gpu;
  std::vector<std::string> gpu_mem;
  std::optional<std::string> share, max, latency, priority, level;
  bool overcommit = false;
  bool seal = false, unseal = false;

  bool empty() const {
    return gpu_mem.empty() && !share && !max && !latency && !priority && !level && !seal && !unseal;
  }
};

// The slice's GPUs as an inventory, so that every command looks up a UUID in the same way.
Inventory gpus_of(const shm::Slice& slice) {
  Inventory inventory;
  const uint32_t count =
      std::min(__atomic_load_n(&slice.file->header.gpu_count, __ATOMIC_ACQUIRE), ALLOT_MAX_GPUS);
  for (uint32_t i = 0; i < count; ++i) {
    const AllotGpu& from = slice.file->gpus[i];
    Gpu gpu;
    std::copy(std::begin(from.uuid), std::end(from.uuid), gpu.uuid.begin());
    gpu.uuid_text = uuid_to_text(gpu.uuid);
    gpu.index = i;
    gpu.total_bytes = from.physical_bytes;
    inventory.gpus.push_back(gpu);
  }
  return inventory;
}

// "0", as `allot gpus` counts, where the slice knows that; else its UUID.
std::string label_of(const shm::Slice& slice, const Inventory& mine, uint32_t position) {
  const uint32_t number =
      __atomic_load_n(&slice.file->gpus[position].index_plus_one, __ATOMIC_RELAXED);
  return number == 0 ? mine.gpus[position].uuid_text : std::to_string(number - 1);
}

// Which of the slice's GPUs `selector` means. An index is that of `allot gpus`, where the slice
// knows it; else the position in the slice.
uint32_t position_of(const shm::Slice& slice, const Inventory& mine, std::string_view flag,
                     const std::string& selector) {
  if (selector.find_first_not_of("0123456789") != std::string::npos) {
    return find_gpu(mine, flag, selector).index;
  }
  bool known = false;
  for (const Gpu& gpu : mine.gpus) {
    const uint32_t number =
        __atomic_load_n(&slice.file->gpus[gpu.index].index_plus_one, __ATOMIC_RELAXED);
    if (number != 0 && std::to_string(number - 1) == selector) return gpu.index;
    known = known || number != 0;
  }
  if (!known) return find_gpu(mine, flag, selector).index;
  refuse("{}: the slice has no GPU {}; 'allot ps' shows its GPUs", flag, selector);
}

struct Change {
  uint32_t position;
  uint64_t bytes;
};

// A change of one GPU's time; without a value it stays as it is.
struct TimeChange {
  uint32_t position;
  uint32_t share, max;  // permille, after the change
  uint32_t share_before, max_before;
};

std::vector<Change> read_changes(const SetOptions& options, const shm::Slice& slice,
                                 const Inventory& mine) {
  std::vector<std::string> only;
  if (!options.gpu.empty()) only = parse_gpu_list("--gpu", options.gpu);
  std::vector<Change> changes;
  for (const std::string& text : options.gpu_mem) {
    for (const MemoryLimit& limit : parse_gpu_mem("--gpu-mem", text)) {
      if (!limit.gpu.empty()) {
        changes.push_back({position_of(slice, mine, "--gpu-mem", limit.gpu), limit.bytes});
      } else if (!only.empty()) {
        for (const std::string& gpu : only) {
          changes.push_back({position_of(slice, mine, "--gpu", gpu), limit.bytes});
        }
      } else {
        for (const Gpu& gpu : mine.gpus) changes.push_back({gpu.index, limit.bytes});
      }
    }
  }
  for (const Change& change : changes) {
    const uint64_t total = mine.gpus[change.position].total_bytes;
    if (change.bytes == ALLOT_UNLIMITED || total == 0 || change.bytes <= total) continue;
    refuse("--gpu-mem: {} is more than the {} that the GPU has; write at most that",
           size_text(change.bytes), size_text(total));
  }
  return changes;
}

std::string apply(shm::Slice& slice, const Inventory& mine, const Change& change) {
  core::Ledger ledger(slice.file);
  const uint64_t before = ledger.limit(change.position);
  ledger.set_limit(change.position, change.bytes);
  const uint64_t used = ledger.used(change.position);
  std::string line =
      fmt::format("GPU {}: {} -> {}, {} in use", label_of(slice, mine, change.position),
                  size_text(before), size_text(change.bytes), size_text(used));
  if (used > change.bytes) {
    line += "; nothing is freed, but allocations fail until use is below the limit";
  }
  return line + "\n";
}

uint32_t permille_of(const uint32_t& field) {
  return std::min(__atomic_load_n(&field, __ATOMIC_RELAXED), core::kWhole);
}

std::vector<TimeChange> read_time_changes(const SetOptions& options, const shm::Slice& slice,
                                          const Inventory& mine) {
  std::vector<TimeChange> changes;
  if (!options.share && !options.max) return changes;
  std::vector<uint32_t> positions;
  if (options.gpu.empty()) {
    for (const Gpu& gpu : mine.gpus) positions.push_back(gpu.index);
  } else {
    for (const std::string& gpu : parse_gpu_list("--gpu", options.gpu)) {
      positions.push_back(position_of(slice, mine, "--gpu", gpu));
    }
  }
  for (const uint32_t position : positions) {
    const AllotGpu& gpu = slice.file->gpus[position];
    TimeChange change = {position, 0, 0, permille_of(gpu.share_permille),
                         permille_of(gpu.max_permille)};
    change.share =
        options.share ? parse_share_or_none("--gpu-share", *options.share) : change.share_before;
    change.max = options.max ? parse_share_or_none("--gpu-max", *options.max) : change.max_before;
    if (change.max != 0 && change.max < change.share) {
      refuse("{}: the ceiling of GPU {} would be {}, below the share of {}; change both together",
             options.max ? "--gpu-max" : "--gpu-share", label_of(slice, mine, position),
             percent_text(change.max), percent_text(change.share));
    }
    changes.push_back(change);
  }
  return changes;
}

std::string apply(shm::Slice& slice, const Inventory& mine, const TimeChange& change) {
  AllotGpu& gpu = slice.file->gpus[change.position];
  __atomic_store_n(&gpu.share_permille, change.share, __ATOMIC_RELAXED);
  __atomic_store_n(&gpu.max_permille, change.max, __ATOMIC_RELAXED);
  return fmt::format("GPU {}: share {} -> {}, ceiling {} -> {}\n",
                     label_of(slice, mine, change.position), percent_text(change.share_before),
                     percent_text(change.share), percent_text(change.max_before),
                     percent_text(change.max));
}

// What binds the owner, not root: the administrator's rules, and the seal of the slice.
void check_bounds(const SetOptions& options, const shm::Slice& slice, const Inventory& mine,
                  const std::vector<Change>& changes, const std::vector<TimeChange>& time_changes) {
  const Bounds bounds;
  const Seal seal(slice);
  for (const Change& change : changes) {
    const std::string label = label_of(slice, mine, change.position);
    bounds.check_memory("--gpu-mem", change.bytes);
    seal.check_memory(label, change.position, change.bytes);
  }
  for (const TimeChange& change : time_changes) {
    const std::string label = label_of(slice, mine, change.position);
    if (options.share) bounds.check_share("--gpu-share", change.share);
    if (options.max) bounds.check_max("--gpu-max", change.max);
    seal.check_time(label, change.position, change.share, change.max);
  }
  if (options.priority) {
    const uint32_t priority = parse_priority("--priority", *options.priority);
    bounds.check_priority("--priority", priority);
    seal.check_priority(priority);
  }
  if (options.level) seal.check_level();
}

std::string latency_text(uint32_t latency_us) {
  return latency_us == 0 ? "default" : fmt::format("{} ms", latency_us / 1000.0);
}

std::string apply_words(shm::Slice& slice, const SetOptions& options) {
  AllotHeader& header = slice.file->header;
  std::string report;
  if (options.latency) {
    const uint32_t latency_us = parse_latency("--gpu-latency", *options.latency);
    const uint32_t before = __atomic_exchange_n(&header.latency_us, latency_us, __ATOMIC_RELAXED);
    report += fmt::format("latency {} -> {}\n", latency_text(before), latency_text(latency_us));
  }
  if (options.priority) {
    const uint32_t priority = parse_priority("--priority", *options.priority);
    const uint32_t before = __atomic_exchange_n(&header.priority, priority, __ATOMIC_RELAXED);
    report += fmt::format("priority {} -> {}\n", priority_text(before), priority_text(priority));
  }
  if (options.level) {
    const uint32_t level = parse_level("--level", *options.level);
    const uint32_t before = __atomic_exchange_n(&header.level, level, __ATOMIC_RELAXED);
    report += fmt::format("level {} -> {}\n", level_text(before), level_text(level));
  }
  return report;
}

// Check the form first: whether a text is a size must not depend on which slices exist.
void check_form(const SetOptions& options) {
  check_name("set", options.name);
  if (options.empty()) {
    wrong_usage(
        "set: nothing to change; give --gpu-mem, --gpu-share, --gpu-max, --gpu-latency, "
        "--priority or --level");
  }
  if (options.seal && options.unseal) wrong_usage("set: --seal and --unseal exclude each other");
  if ((options.seal || options.unseal) && !is_machine_root())
    refuse("set: {}: only root may; ask the administrator", options.seal ? "--seal" : "--unseal");
  for (const std::string& text : options.gpu_mem) parse_gpu_mem("--gpu-mem", text);
  if (options.share) parse_share_or_none("--gpu-share", *options.share);
  if (options.max) parse_share_or_none("--gpu-max", *options.max);
  if (options.latency) parse_latency("--gpu-latency", *options.latency);
  if (options.priority) parse_priority("--priority", *options.priority);
  if (options.level) parse_level("--level", *options.level);
  if (!options.gpu.empty() && options.gpu_mem.empty() && !options.share && !options.max) {
    wrong_usage(
        "set: --gpu has no effect without --gpu-mem, --gpu-share or --gpu-max; the rest is the "
        "whole "
        "slice's");
  }
}

std::string set(const SetOptions& options) {
  check_form(options);
  refuse_cpus_alone("set", options.name);
  OpenSlice slice("set", options.name);
  shm::reclaim_dead(*slice);
  const Inventory mine = gpus_of(*slice);
  const bool of_gpus = !options.gpu_mem.empty() || options.share || options.max;
  if (of_gpus && mine.gpus.empty())
    refuse("set: '{}' has no GPU yet; try again when its program runs", options.name);
  // Everything is checked before anything is changed.
  const std::vector<Change> changes = read_changes(options, *slice, mine);
  const std::vector<TimeChange> time_changes = read_time_changes(options, *slice, mine);
  check_bounds(options, *slice, mine, changes, time_changes);
  std::optional<Admission> admission;
  if (options.share && !options.overcommit) {
    admission.emplace(slice.folder(), slice.path());
    for (const TimeChange& change : time_changes) {
      // A smaller share is always allowed, even where too much is promised.
      if (change.share <= change.share_before) continue;
      const Gpu& gpu = mine.gpus[change.position];
      admission->check(gpu.uuid, label_of(*slice, mine, change.position), change.share);
    }
  }
  std::string report;
  for (const Change& change : changes) report += apply(*slice, mine, change);
  for (const TimeChange& change : time_changes) report += apply(*slice, mine, change);
  report += apply_words(*slice, options);
  if (options.seal || options.unseal) report += seal_slice(*slice, options.seal);
  slice.tell_agents();
  for (const Change& change : changes) {
    const std::string small = small_limit_text(
        mine.gpus[change.position].uuid, label_of(*slice, mine, change.position), change.bytes);
    if (!small.empty()) note(small);
  }
  return report;
}

}  // namespace

void add_set(CLI::App& app, int* exit_status) {
  CLI::App* sub = app.add_subcommand("set", "change a slice while its programs run");
  const auto options = std::make_shared<SetOptions>();
  sub->add_option("name", options->name, "the slice, as 'allot ps' names it")
      ->required()
      ->type_name("NAME");
  sub->add_option("--gpu-mem", options->gpu_mem,
                  "new memory limit; 'none' removes it; GPU:SIZE for one GPU")
      ->type_name("SIZE|none")
      ->expected(1)
      ->take_all();
  sub->add_option("--gpu", options->gpu,
                  "only these GPUs of the slice: indexes or UUIDs, joined by commas")
      ->type_name("LIST");
  sub->add_option("--gpu-share", options->share, "new guaranteed share of GPU time")
      ->type_name("PERCENT|none");
  sub->add_option("--gpu-max", options->max, "new ceiling of GPU time")->type_name("PERCENT|none");
  sub->add_option(
         "--gpu-latency", options->latency,
         "longest pause, in ms, of a program that waits for its GPU work while other slices run")
      ->type_name("MS|default");
  sub->add_option("--priority", options->priority, "high runs first, low last")
      ->type_name("high|normal|low");
  sub->add_option("--level", options->level, "how GPU time is held")->type_name("LEVEL");
  sub->add_flag("--overcommit", options->overcommit,
                "allow shares that sum to more than 100 % of a GPU; all shrink in proportion");
  sub->add_flag("--seal", options->seal,
                "root only: from now on the owner may lower the limits, and raise them to no more "
                "than they are now");
  sub->add_flag("--unseal", options->unseal, "root only: take that back");
  sub->footer(
      "GPU time changes at once; memory at the next allocation. A limit below what is in use is "
      "allowed: nothing is freed, but\nallocations fail until use is below the limit.\n"
      "\n"
      "Examples:\n"
      "  allot set alice --gpu-mem 4G\n"
      "  allot set alice --gpu 1 --gpu-mem none\n"
      "  allot set alice --gpu-share 50 --gpu-max none\n"
      "  allot set alice --priority low\n"
      "  sudo allot set alice --gpu-max 30 --seal");
  sub->callback([options, exit_status] {
    print(logged("set", options->name, [&] { return set(*options); }));
    *exit_status = kExitOk;
  });
}

}  // namespace allot::cli
