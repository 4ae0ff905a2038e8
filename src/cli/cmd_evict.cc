// allot evict and allot restore: the words around evict.h.
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/commands.h"
#include "cli/cpus/cpu_slices.h"
#include "cli/evict/evict.h"
#include "cli/failure.h"
#include "cli/log/deeds.h"
#include "cli/output.h"
#include "cli/slice_spec.h"
#include "cli/usage.h"

namespace allot::cli {
namespace {

using nlohmann::json;

struct EvictOrRestoreOptions {
  std::string name;
  double timeout_seconds = 30;
  std::optional<std::string> way;
  bool as_json = false;
};

json moved_json(const std::string& name, const char* state, const Moved& moved) {
  json processes = json::array();
  for (const MovedProcess& process : moved.processes) {
    processes.push_back({{"pid", process.pid},
                         {"command", process.command},
                         {"bytes", process.bytes},
                         {"stays_bytes", process.stays_bytes},
                         {"lock_seconds", process.lock_seconds},
                         {"move_seconds", process.move_seconds}});
  }
  return {{"name", name},          {"state", state},       {"changed", !moved.nothing},
          {"way", moved.way},      {"bytes", moved.bytes}, {"seconds", moved.seconds},
          {"processes", processes}};
}

std::string count_text(size_t count) {
  if (count == 0) return "none of its processes uses a GPU";
  return fmt::format("{} process{}", count, count == 1 ? "" : "es");
}

// A slice that is frozen does not run when it comes back.
std::string also_frozen(OpenSlice& slice, const std::string& name, bool out) {
  const uint32_t flags = __atomic_load_n(&slice->file->header.flags, __ATOMIC_ACQUIRE);
  if (out || (flags & ALLOT_SLICE_FROZEN) == 0) return "";
  return fmt::format("; it is frozen: 'allot thaw {}' lets it run", name);
}

std::string done_text(const std::string& name, const Moved& moved, bool out) {
  const std::string how =
      moved.bytes == 0 ? ""
                       : fmt::format("{} {}; ", size_text(moved.bytes), within_text(moved.seconds));
  const char* done = out             ? moved.nothing ? "was evicted already" : "evicted"
                     : moved.nothing ? "was not evicted"
                                     : "restored";
  return fmt::format("{}: {} ({}{})", name, done, how, count_text(moved.processes.size()));
}

void work(const EvictOrRestoreOptions& options, bool out) {
  const char* command = out ? "evict" : "restore";
  check_name(command, options.name);
  refuse_cpus_alone(command, options.name);
  MoveOptions move;
  move.timeout_seconds = options.timeout_seconds;
  if (options.way) move.way = parse_swap("--swap", *options.way) ? Way::kFast : Way::kDriver;
  if (!options.as_json) move.say = [](const std::string& line) { print(line + "\n"); };
  Moved moved;
  const std::string line = logged(command, options.name, [&] {
    OpenSlice slice(command, options.name);
    moved = out ? evict(slice, options.name, move) : restore(slice, options.name, move);
    return done_text(options.name, moved, out) + also_frozen(slice, options.name, out);
  });
  if (options.as_json) {
    print_json(moved_json(options.name, out ? "evicted" : "running", moved));
  } else {
    print(line + "\n");
  }
}

void add(CLI::App& app, const char* command, const char* what, const char* waits,
         const char* footer, bool out, int* exit_status) {
  CLI::App* sub = app.add_subcommand(command, what);
  const auto options = std::make_shared<EvictOrRestoreOptions>();
  sub->add_option("name", options->name, "the slice, as 'allot ps' names it")
      ->required()
      ->type_name("NAME");
  sub->add_option("--timeout", options->timeout_seconds, waits)
      ->check(seconds_up_to(86400))
      ->type_name("SECONDS");
  if (out) {
    sub->add_option("--swap", options->way,
                    "how to move it (default: as the slice was started, 'allot run --swap')")
        ->type_name("driver|fast");
  }
  sub->add_flag("--json", options->as_json, "machine-readable output; fields in docs/commands.md");
  sub->footer(footer);
  sub->callback([options, exit_status, out] {
    work(*options, out);
    *exit_status = kExitOk;
  });
}

}  // namespace

void add_evict(CLI::App& app, int* exit_status) {
  add(app, "evict", "move the GPU memory of a slice to the host",
      "how long to wait for submitted GPU work (default: 30)",
      "Moves all GPU memory of all its processes to the host and frees it on the GPU for others.\n"
      "The programs' calls into CUDA wait until 'allot restore'; their CPU work continues.\n"
      "Needs driver 570. Managed and shared (IPC) memory cannot be moved: the command then says\n"
      "so and changes nothing.\n"
      "A slice started with 'allot run --swap fast' moves its large blocks itself, at the speed\n"
      "of PCIe. Contexts, small blocks, pools and managed memory then stay on the GPU, and the\n"
      "command says how much.\n"
      "\n"
      "Examples:\n"
      "  allot evict alice\n"
      "  allot evict alice --timeout 120 --json",
      true, exit_status);
  add(app, "restore", "bring the memory of an evicted slice back to the GPU",
      "how long to wait until its limits are in force again (default: 30)",
      "Brings every byte back to its address, then resumes the programs. Without room on the GPU\n"
      "nothing changes, and the command says how much is missing. It also completes a slice whose\n"
      "evict was killed.\n"
      "\n"
      "Example:\n"
      "  allot restore alice",
      false, exit_status);
}

}  // namespace allot::cli
