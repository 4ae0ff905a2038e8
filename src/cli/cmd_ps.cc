// allot ps: the slices and the processes in them, read from the region. Needs no driver.
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/failure.h"
#include "cli/launch/admission.h"
#include "cli/output.h"
#include "cli/region/region_view.h"
#include "cli/slice_spec.h"

namespace allot::cli {
namespace {

using nlohmann::json;

// "0", or "GPU-1a2b3c4d-5e6f" where the slice does not know the index.
std::string gpu_label(const SliceView& slice, const SliceGpuView& gpu) {
  const std::string label =
      gpu.index >= 0 ? std::to_string(gpu.index) : uuid_to_text(gpu.uuid).substr(0, 17);
  return slice.software() ? label + " (software)" : label;
}

json index_json(const SliceGpuView& gpu) {
  return gpu.index < 0 ? json(nullptr) : json(gpu.index);
}

// "linear 512 MiB, driver 518 MiB"; "nothing" for an empty charge.
std::string kinds_text(const ByKind& kinds) {
  std::string text;
  for (unsigned kind = 0; kind < ALLOT_KINDS; ++kind) {
    if (kinds[kind] == 0) continue;
    text +=
        fmt::format("{}{} {}", text.empty() ? "" : ", ", kind_text(kind), size_text(kinds[kind]));
  }
  return text.empty() ? "nothing" : text;
}

uint64_t sum(const ByKind& kinds) {
  uint64_t total = 0;
  for (const uint64_t bytes : kinds) total += bytes;
  return total;
}

json kinds_json(const ByKind& kinds) {
  json out = json::object();
  for (unsigned kind = 0; kind < ALLOT_KINDS; ++kind) out[kind_text(kind)] = kinds[kind];
  return out;
}

std::string state_of(const SliceView& slice, size_t gpu) {
  if (slice.evicted()) return slice.eviction_text();
  return state_text(slice.clients, static_cast<uint32_t>(gpu), slice.frozen());
}

json limit_json(uint64_t bytes) {
  return bytes == ALLOT_UNLIMITED ? json(nullptr) : json(bytes);
}

json percent_json(uint32_t permille) {
  return permille == 0 ? json(nullptr) : json(permille / 10.0);
}

std::string seconds_text(uint64_t ns) {
  return fmt::format("{:.1f} s", static_cast<double>(ns) / 1e9);
}

json client_json(const ClientView& client) {
  return {{"level", level_text(client.level)},
          {"reason", reason_name(client.reason)},
          {"state", state_text(client)},
          {"answers", client.answers},
          {"time_used_ns", client.used_ns},
          {"time_throttled_ns", client.throttled_ns},
          {"window_percent", client.window_permille / 10.0},
          {"timeslice_us", client.timeslice_us},
          {"busy_percent", client.busy_permille / 10.0},
          {"saturates", client.saturates()}};
}

const ClientView* client_of(const std::vector<ClientView>& clients, size_t gpu) {
  for (const ClientView& client : clients) {
    if (client.gpu == gpu) return &client;
  }
  return nullptr;
}

// The window of a slice is that of its processes, which all have the same; null without any.
json window_json(const SliceView& slice, size_t gpu) {
  const ClientView* client = client_of(slice.clients, gpu);
  return client == nullptr ? json(nullptr) : json(client->window_permille / 10.0);
}

// How the GPU time of a process is held, and how much it was.
std::string time_text(const SliceView& slice, const ProcessView& process) {
  const std::string unheld = unheld_text(slice, process);
  const std::string also = unheld.empty() ? "" : "; " + unheld;
  if (process.clients.empty()) {
    return process.unheld_gpus != 0 ? unheld : "none used, no context on a GPU" + also;
  }
  uint64_t used = 0;
  uint64_t throttled = 0;
  bool answers = false;
  for (const ClientView& client : process.clients) {
    used += client.used_ns;
    throttled += client.throttled_ns;
    answers = answers || client.answers;
  }
  std::string text = seconds_text(used) + " used";
  if (throttled > 0) text += ", " + seconds_text(throttled) + " held back";
  const std::string why = reason_text(process.reason);
  if (process.level == ALLOT_LEVEL_AUTO) {
    text += ", not held yet";
  } else if (process.level == ALLOT_LEVEL_OBSERVE) {
    text += ", only observed";
  } else {
    text += fmt::format(", held by {}", level_text(process.level));
  }
  if (!why.empty()) text += fmt::format(" ({})", why);
  if (!answers) text += "; its agent does not answer";
  return text + also;
}

std::string host_text(const ProcessView& process) {
  if (process.evicted == ALLOT_EVICTED_NOT) return "";
  if (process.evicted == ALLOT_EVICTED_DRIVER) return ", all of it on the host";
  return fmt::format(", {} of it on the host", size_text(process.host_bytes));
}

json process_json(const SliceView& slice, const ProcessView& process) {
  json gpus = json::array();
  for (size_t i = 0; i < slice.gpus.size() && i < process.charges.size(); ++i) {
    json gpu = {
        {"index", index_json(slice.gpus[i])},           {"uuid", uuid_to_text(slice.gpus[i].uuid)},
        {"used_bytes", sum(process.charges[i])},        {"by_kind", kinds_json(process.charges[i])},
        {"held", (process.unheld_gpus >> i & 1u) == 0}, {"time", nullptr}};
    if (const ClientView* client = client_of(process.clients, i))
      gpu["time"] = client_json(*client);
    gpus.push_back(gpu);
  }
  return {{"pid", process.pid},
          {"command", process.command},
          {"level", level_text(process.level)},
          {"reason", reason_name(process.reason)},
          {"evicted", process.evicted != ALLOT_EVICTED_NOT},
          {"host_bytes", process.host_bytes},
          {"gpus_beyond", process.gpus_beyond},
          {"gpus", gpus}};
}

json slice_json(const SliceView& slice) {
  json gpus = json::array();
  for (size_t i = 0; i < slice.gpus.size(); ++i) {
    const SliceGpuView& gpu = slice.gpus[i];
    gpus.push_back({{"index", index_json(gpu)},
                    {"uuid", uuid_to_text(gpu.uuid)},
                    {"limit_bytes", limit_json(gpu.limit_bytes)},
                    {"used_bytes", gpu.used_bytes},
                    {"host_bytes", gpu.host_bytes},
                    {"peak_bytes", gpu.peak_bytes},
                    {"physical_bytes", gpu.physical_bytes},
                    {"refused", gpu.refused},
                    {"share_percent", percent_json(gpu.share_permille)},
                    {"max_percent", percent_json(gpu.max_permille)},
                    {"state", state_of(slice, i)},
                    {"window_percent", window_json(slice, i)},
                    {"time_used_ns", gpu.time_used_ns},
                    {"time_throttled_ns", gpu.time_throttled_ns},
                    {"by_kind", kinds_json(gpu.by_kind)}});
  }
  json processes = json::array();
  for (const ProcessView& process : slice.processes)
    processes.push_back(process_json(slice, process));
  return {{"name", slice.name},
          {"user", slice.user},
          {"uid", slice.uid},
          {"software", slice.software()},
          {"fail", slice.fail_closed() ? "closed" : "open"},
          {"priority", priority_text(slice.priority)},
          {"level", level_text(slice.level)},
          {"frozen", slice.frozen()},
          {"evicted", slice.evicted()},
          {"swap", slice.eviction_way()},
          {"launcher_pid", slice.launcher_pid},
          {"created_unix_ns", slice.created_unix_ns},
          {"unknown_symbols", slice.unknown_symbols},
          {"path", slice.path},
          {"gpus", gpus},
          {"processes", processes}};
}

void print_text(const RegionView& region) {
  Table table({"NAME", "USER", "GPU", "USED", "LIMIT", "PEAK", "REFUSED", "SHARE", "MAX",
               "PRIORITY", "STATE", "TIME", "PROCESSES"});
  for (const SliceView& slice : region.slices) {
    std::string count = std::to_string(slice.processes.size());
    if (slice.processes.empty() && slice.launcher_pid > 0) {
      count += fmt::format(" (none on a GPU yet; launcher {})", slice.launcher_pid);
    }
    for (size_t i = 0; i < slice.gpus.size(); ++i) {
      const SliceGpuView& gpu = slice.gpus[i];
      table.row({i == 0 ? slice.name : "", i == 0 ? slice.user : "", gpu_label(slice, gpu),
                 size_text(gpu.used_bytes), size_text(gpu.limit_bytes), size_text(gpu.peak_bytes),
                 std::to_string(gpu.refused), percent_text(gpu.share_permille),
                 percent_text(gpu.max_permille), i == 0 ? priority_text(slice.priority) : "",
                 state_of(slice, i), seconds_text(gpu.time_used_ns), i == 0 ? count : ""});
    }
    if (slice.gpus.empty()) {
      table.row({slice.name, slice.user, "-", "-", "-", "-", "-", "-", "-",
                 priority_text(slice.priority),
                 slice.evicted()  ? "evicted"
                 : slice.frozen() ? "frozen"
                                  : "-",
                 "-", count});
    }
    for (const ProcessView& process : slice.processes) {
      std::string held;
      for (size_t i = 0; i < process.charges.size(); ++i) {
        if (process.charges.size() > 1 && sum(process.charges[i]) == 0) continue;
        held += fmt::format("{}{}{}", held.empty() ? "" : "; ",
                            process.charges.size() > 1
                                ? fmt::format("on {} ", gpu_label(slice, slice.gpus[i]))
                                : "",
                            kinds_text(process.charges[i]));
      }
      table.note(fmt::format("  {}  {}  holds {}{}; GPU time: {}", process.pid, process.command,
                             held.empty() ? "nothing" : held, host_text(process),
                             time_text(slice, process)));
    }
  }
  std::string text = region.slices.empty() ? "no slices\n" : table.text();
  for (const std::string& name : region.cleared)
    text += fmt::format("cleared: {} (nobody was left in it)\n", name);
  for (const std::string& name : region.stale) {
    text +=
        fmt::format("stale: {} (nobody is left in it; its owner's next command clears it)\n", name);
  }
  print(text);
}

void ps(bool as_json) {
  const RegionView region = read_region();
  if (!as_json) {
    print_text(region);
    for (const UnreadableSlice& file : region.unreadable) {
      fmt::print(stderr, "allot: note: {}: {}; remove it when no program uses it\n",
                 harmless(file.path), file.reason);
    }
    return;
  }
  json out = {{"folder", region.folder.empty() ? json(nullptr) : json(region.folder)},
              {"slices", json::array()},
              {"cleared", region.cleared},
              {"stale", region.stale},
              {"unreadable", json::array()}};
  for (const SliceView& slice : region.slices) out["slices"].push_back(slice_json(slice));
  for (const UnreadableSlice& file : region.unreadable) {
    out["unreadable"].push_back({{"path", file.path}, {"reason", file.reason}});
  }
  print_json(out);
}

}  // namespace

void add_ps(CLI::App& app, int* exit_status) {
  CLI::App* sub = app.add_subcommand("ps", "list the slices and the processes in them");
  const auto as_json = std::make_shared<bool>(false);
  sub->add_flag("--json", *as_json, "machine-readable output; fields in docs/commands.md");
  sub->footer(
      "One line for each slice and GPU, one below it for each process that uses a GPU, with what "
      "it holds\n"
      "by kind: linear, array, managed, pool, vmm, graph, import, and driver (contexts, modules),\n"
      "and how its GPU time is held. STATE: active, idle, throttled (has work, may not run now), "
      "frozen,\n"
      "evicted (what it holds is on the host).\n"
      "Slices that nobody is left in are cleared and named.\n"
      "\n"
      "Examples:\n"
      "  allot ps\n"
      "  allot ps --json | jq '.slices[] | {name, used: .gpus[0].used_bytes}'");
  sub->callback([as_json, exit_status] {
    ps(*as_json);
    *exit_status = kExitOk;
  });
}

}  // namespace allot::cli
