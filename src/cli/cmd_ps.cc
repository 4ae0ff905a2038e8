// allot ps: the slices and the processes in them, read from the region. Needs no driver. The text
// is ps_text.cc.
#include <fnmatch.h>
#include <pwd.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "abi/env.h"
#include "cli/commands.h"
#include "cli/failure.h"
#include "cli/output.h"
#include "cli/ps_text.h"
#include "cli/region/region_view.h"
#include "cli/slice_spec.h"
#include "cli/words.h"
#ifdef ALLOT_HAVE_CPUS
#include "cli/cpus/cpu_slices.h"
#endif

namespace allot::cli {
namespace {

using nlohmann::json;

json index_json(const SliceGpuView& gpu) {
  return gpu.index < 0 ? json(nullptr) : json(gpu.index);
}

json kinds_json(const ByKind& kinds) {
  json out = json::object();
  for (unsigned kind = 0; kind < ALLOT_KINDS; ++kind) out[kind_text(kind)] = kinds[kind];
  return out;
}

json limit_json(uint64_t bytes) {
  return bytes == ALLOT_UNLIMITED ? json(nullptr) : json(bytes);
}

json percent_json(uint32_t permille) {
  return permille == 0 ? json(nullptr) : json(permille / 10.0);
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

json counters_json(const std::optional<AllotCounters>& counters) {
  if (!counters) return nullptr;
  return {
      {"time_used_ns", counters->time_used_ns}, {"time_throttled_ns", counters->time_throttled_ns},
      {"frozen_ns", counters->frozen_ns},       {"refused", counters->refused},
      {"evictions", counters->evictions},       {"restores", counters->restores}};
}

json process_json(const SliceView& slice, const ProcessView& process) {
  json gpus = json::array();
  for (size_t i = 0; i < slice.gpus.size() && i < process.charges.size(); ++i) {
    json gpu = {{"index", index_json(slice.gpus[i])},
                {"uuid", uuid_to_text(slice.gpus[i].uuid)},
                {"used_bytes", sum_of_kinds(process.charges[i])},
                {"by_kind", kinds_json(process.charges[i])},
                {"held", (process.unheld_gpus >> i & 1u) == 0},
                {"time", nullptr}};
    if (const ClientView* client = client_of(process.clients, i))
      gpu["time"] = client_json(*client);
    gpus.push_back(gpu);
  }
  return {{"pid", process.pid},
          {"foreign", process.foreign},
          {"command", process.command},
          {"level", level_text(process.level)},
          {"reason", reason_name(process.reason)},
          {"evicted", process.evicted != ALLOT_EVICTED_NOT},
          {"host_bytes", process.host_bytes},
          {"gpus_beyond", process.gpus_beyond},
          {"full_tables", table_names(process.full_tables)},
          {"counters", counters_json(process.counters)},
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
                    {"state", slice_state(slice, i)},
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
          {"sealed", (slice.flags & ALLOT_SLICE_SEALED) != 0},
          {"evicted", slice.evicted()},
          {"swap", slice.eviction_way()},
          {"launcher_pid", slice.launcher_pid},
          {"launcher_alive", slice.launcher_alive},
          {"launcher_foreign", slice.launcher_foreign},
          {"created_unix_ns", slice.created_unix_ns},
          {"unknown_symbols", slice.unknown_symbols},
          {"frozen_ns", slice.counts ? json(slice.frozen_ns) : json(nullptr)},
          {"evictions", slice.counts ? json(slice.evictions) : json(nullptr)},
          {"restores", slice.counts ? json(slice.restores) : json(nullptr)},
          {"path", slice.path},
          {"cpus", nullptr},
          {"gpus", gpus},
          {"processes", processes}};
}

json cpus_json(const CpuPart& part) {
  return {
      {"cpus", part.cpus}, {"exclusive", part.exclusive}, {"group", part.group}, {"pid", part.pid}};
}

// A slice of CPUs alone has the fields of one of GPUs, and null where they say nothing.
json row_json(const PsRow& row) {
  json out = slice_json(row.slice);
  if (row.cpus) out["cpus"] = cpus_json(*row.cpus);
  if (!row.only_cpus) return out;
  for (const char* field : {"fail", "priority", "level", "swap", "path", "created_unix_ns"})
    out[field] = nullptr;
  return out;
}

struct PsOptions {
  std::vector<std::string> names;
  std::string user, sort = "name";
  bool wide = false, as_json = false, counters = false;
};

uint32_t uid_of(const std::string& user) {
  if (const struct passwd* entry = getpwnam(user.c_str()); entry != nullptr) return entry->pw_uid;
  uint32_t uid = 0;
  const char* end = user.data() + user.size();
  const auto got = std::from_chars(user.data(), end, uid);
  if (user.empty() || got.ec != std::errc{} || got.ptr != end)
    wrong_usage("--user: there is no user '{}'; write a name or a number", shown(user));
  return uid;
}

[[maybe_unused]] std::string name_of_user(uint32_t uid) {
  const struct passwd* entry = getpwuid(uid);
  return entry != nullptr ? entry->pw_name : std::to_string(uid);
}

// The slices of CPUs: those of the same name as a slice of GPUs are part of it.
void add_cpus(const std::string& folder, std::vector<PsRow>* rows) {
#ifdef ALLOT_HAVE_CPUS
  std::string problem;
  for (const CpuSliceView& view : read_cpu_slices(folder, &problem)) {
    const CpuPart part = {view.cpus, view.exclusive, view.group, view.pid};
    const auto same = std::find_if(rows->begin(), rows->end(), [&](const PsRow& row) {
      return !row.only_cpus && !row.cpus && row.slice.name == view.name;
    });
    if (same != rows->end()) {
      same->cpus = part;
      continue;
    }
    PsRow row;
    row.only_cpus = true;
    row.cpus = part;
    row.slice.name = view.name;
    row.slice.uid = view.uid;
    row.slice.user = name_of_user(view.uid);
    ProcessView process;
    process.pid = view.pid;
    process.command = view.command;
    if (view.pid != 0) row.slice.processes.push_back(process);
    rows->push_back(row);
  }
  if (!problem.empty()) note(fmt::format("the slices of CPUs are not shown: {}", problem));
#else
  (void)folder;
  (void)rows;
#endif
}

uint64_t sum_over(const SliceView& slice, uint64_t (*figure)(const SliceGpuView&)) {
  uint64_t sum = 0;
  for (const SliceGpuView& gpu : slice.gpus) sum += figure(gpu);
  return sum;
}

// What a key sorts by; the largest comes first. Null for those that sort by text.
using Figure = uint64_t (*)(const SliceView&);
Figure figure_of(const std::string& key) {
  if (key == "used")
    return [](const SliceView& s) {
      return sum_over(s, [](const SliceGpuView& gpu) { return gpu.used_bytes; });
    };
  if (key == "limit")
    return [](const SliceView& s) {
      return sum_over(s, [](const SliceGpuView& gpu) {
        return gpu.limit_bytes == ALLOT_UNLIMITED ? gpu.physical_bytes : gpu.limit_bytes;
      });
    };
  if (key == "share")
    return [](const SliceView& s) {
      return sum_over(s, [](const SliceGpuView& gpu) { return uint64_t{gpu.share_permille}; });
    };
  if (key == "time")
    return [](const SliceView& s) {
      return sum_over(s, [](const SliceGpuView& gpu) { return gpu.time_used_ns; });
    };
  if (key == "created") return [](const SliceView& s) { return s.created_unix_ns; };
  return nullptr;
}

void sort_rows(const std::string& key, std::vector<PsRow>* rows) {
  std::stable_sort(rows->begin(), rows->end(), [](const PsRow& a, const PsRow& b) {
    return natural_less(a.slice.name, b.slice.name);
  });
  if (key == "user") {
    std::stable_sort(rows->begin(), rows->end(),
                     [](const PsRow& a, const PsRow& b) { return a.slice.user < b.slice.user; });
  } else if (const Figure figure = figure_of(key); figure != nullptr) {
    std::stable_sort(rows->begin(), rows->end(), [&](const PsRow& a, const PsRow& b) {
      return figure(a.slice) > figure(b.slice);
    });
  }
}

void check_sort(const std::string& key) {
  const std::vector<std::string> keys = {"name",  "user", "used",   "limit",
                                         "share", "time", "created"};
  if (std::find(keys.begin(), keys.end(), key) != keys.end()) return;
  const std::string hint = did_you_mean(key, keys);
  wrong_usage(
      "--sort: '{}' is not a sort key{} the keys are name, user, used, limit, share, time "
      "and created",
      shown(key), hint.empty() ? ";" : hint);
}

// Those that were asked for; each name must be there. Names may be patterns of the shell's kind.
std::vector<PsRow> chosen_rows(const std::vector<PsRow>& rows, const PsOptions& options) {
  std::vector<PsRow> out;
  std::vector<bool> found(options.names.size());
  const bool by_user = !options.user.empty();
  const uint32_t uid = by_user ? uid_of(options.user) : 0;
  for (const PsRow& row : rows) {
    bool named = options.names.empty();
    for (size_t i = 0; i < options.names.size(); ++i) {
      if (fnmatch(options.names[i].c_str(), row.slice.name.c_str(), 0) != 0) continue;
      named = found[i] = true;
    }
    if (named && (!by_user || row.slice.uid == uid)) out.push_back(row);
  }
  for (size_t i = 0; i < found.size(); ++i) {
    if (found[i]) continue;
    std::vector<std::string> names;
    for (const PsRow& row : rows) names.push_back(row.slice.name);
    const std::string hint = did_you_mean(options.names[i], names);
    refuse("ps: no slice '{}'{} 'allot ps' lists the slices", shown(options.names[i]),
           hint.empty() ? ";" : hint);
  }
  return out;
}

void ps_notes(const RegionView& region) {
  for (const UnreadableSlice& file : region.unreadable)
    note(fmt::format("{}: {}; remove it when no program uses it", file.path, file.reason));
  const char* chosen = std::getenv(ALLOT_ENV_DIR);
  if (region.folder.empty() && chosen != nullptr && *chosen != '\0')
    note(fmt::format("{}={}: there is no such folder; 'allot run' makes it", ALLOT_ENV_DIR,
                     shown(chosen)));
}

void ps(const PsOptions& options) {
  check_sort(options.sort);
  if (!options.user.empty()) uid_of(options.user);
  const RegionView region = read_region();
  std::vector<PsRow> rows;
  for (const SliceView& slice : region.slices) rows.push_back({slice, std::nullopt, false});
  add_cpus(region.folder, &rows);
  rows = chosen_rows(rows, options);
  sort_rows(options.sort, &rows);
  const bool all = options.names.empty() && options.user.empty();
  if (!options.as_json) {
    const size_t width = options.wide ? Table::kNoLimit : screen_width();
    print(options.counters ? counters_text(rows, width) : ps_text(rows, region, all, width));
    ps_notes(region);
    return;
  }
  json out = {{"folder", region.folder.empty() ? json(nullptr) : json(region.folder)},
              {"slices", json::array()},
              {"cleared", region.cleared},
              {"stale", region.stale},
              {"unreadable", json::array()}};
  for (const PsRow& row : rows) out["slices"].push_back(row_json(row));
  for (const UnreadableSlice& file : region.unreadable) {
    out["unreadable"].push_back({{"path", file.path}, {"reason", file.reason}});
  }
  print_json(out);
}

}  // namespace

void add_ps(CLI::App& app, int* exit_status) {
  CLI::App* sub = app.add_subcommand("ps", "list the slices and the processes in them");
  const auto options = std::make_shared<PsOptions>();
  sub->add_option("name", options->names, "only these slices; '*' and '?' are wildcards")
      ->type_name("NAME");
  sub->add_option("--user", options->user, "only this user's slices")->type_name("USER");
  sub->add_option("--sort", options->sort,
                  "by name, user, used, limit, share, time or created (default: name); the largest "
                  "first")
      ->type_name("KEY");
  sub->add_flag("--wide", options->wide,
                "do not drop columns or shorten lines to fit the terminal");
  sub->add_flag("--counters", options->counters,
                "what each slice and process has had so far: GPU time, time held back and frozen, "
                "evictions, refusals");
  sub->add_flag("--json", options->as_json, "machine-readable output; fields in docs/commands.md");
  sub->footer(
      "One line for each slice and GPU; below it its processes, with what they hold by kind "
      "(linear, "
      "array, managed, pool, vmm, graph, import, and driver: contexts and modules) and how their "
      "GPU "
      "time is held. Slices with CPUs only are listed too. The last lines sum up each GPU. "
      "STATE: active, idle, throttled (has work but may not run now), frozen, evicted (what it "
      "holds "
      "is "
      "on the host). Columns that do not fit the terminal are left out. Slices without a live "
      "process are removed and named.\n"
      "\n"
      "Examples:\n"
      "  allot ps\n"
      "  allot ps 'job*' --sort used\n"
      "  allot ps --counters\n"
      "  allot ps --json | jq '.slices[].name'");
  sub->callback([options, exit_status] {
    ps(*options);
    *exit_status = kExitOk;
  });
}

}  // namespace allot::cli
