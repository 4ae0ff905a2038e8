// allot ps: the slices and the processes in them, read from the region. Needs no driver.
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/failure.h"
#include "cli/output.h"
#include "cli/slice_spec.h"
#include "cli/tenants.h"

namespace allot::cli {
namespace {

using nlohmann::json;

// "0", or "GPU-1a2b3c4d-5e6f" where the slice does not know the index.
std::string gpu_label(const TenantView& tenant, const TenantGpuView& gpu) {
  const std::string label =
      gpu.index >= 0 ? std::to_string(gpu.index) : uuid_to_text(gpu.uuid).substr(0, 17);
  return tenant.software() ? label + " (software)" : label;
}

json index_json(const TenantGpuView& gpu) {
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

json limit_json(uint64_t bytes) {
  return bytes == ALLOT_UNLIMITED ? json(nullptr) : json(bytes);
}

json percent_json(uint32_t permille) {
  return permille == 0 ? json(nullptr) : json(permille / 10.0);
}

json process_json(const TenantView& tenant, const ProcessView& process) {
  json gpus = json::array();
  for (size_t i = 0; i < tenant.gpus.size() && i < process.charges.size(); ++i) {
    gpus.push_back({{"index", index_json(tenant.gpus[i])},
                    {"uuid", uuid_to_text(tenant.gpus[i].uuid)},
                    {"used_bytes", sum(process.charges[i])},
                    {"by_kind", kinds_json(process.charges[i])}});
  }
  return {{"pid", process.pid},
          {"command", process.command},
          {"level", level_text(process.level)},
          {"gpus", gpus}};
}

json tenant_json(const TenantView& tenant) {
  json gpus = json::array();
  for (const TenantGpuView& gpu : tenant.gpus) {
    gpus.push_back({{"index", index_json(gpu)},
                    {"uuid", uuid_to_text(gpu.uuid)},
                    {"limit_bytes", limit_json(gpu.limit_bytes)},
                    {"used_bytes", gpu.used_bytes},
                    {"peak_bytes", gpu.peak_bytes},
                    {"physical_bytes", gpu.physical_bytes},
                    {"refused", gpu.refused},
                    {"share_percent", percent_json(gpu.share_permille)},
                    {"max_percent", percent_json(gpu.max_permille)},
                    {"by_kind", kinds_json(gpu.by_kind)}});
  }
  json processes = json::array();
  for (const ProcessView& process : tenant.processes)
    processes.push_back(process_json(tenant, process));
  return {{"name", tenant.name},
          {"user", tenant.user},
          {"uid", tenant.uid},
          {"software", tenant.software()},
          {"fail", tenant.fail_closed() ? "closed" : "open"},
          {"priority", priority_text(tenant.priority)},
          {"level", level_text(tenant.level)},
          {"launcher_pid", tenant.launcher_pid},
          {"created_unix_ns", tenant.created_unix_ns},
          {"unknown_symbols", tenant.unknown_symbols},
          {"path", tenant.path},
          {"gpus", gpus},
          {"processes", processes}};
}

void print_text(const RegionView& region) {
  Table table({"NAME", "USER", "GPU", "USED", "LIMIT", "PEAK", "REFUSED", "PROCESSES"});
  for (const TenantView& tenant : region.tenants) {
    std::string count = std::to_string(tenant.processes.size());
    if (tenant.processes.empty() && tenant.launcher_pid > 0) {
      count += fmt::format(" (none on a GPU yet; launcher {})", tenant.launcher_pid);
    }
    for (size_t i = 0; i < tenant.gpus.size(); ++i) {
      const TenantGpuView& gpu = tenant.gpus[i];
      table.row({i == 0 ? tenant.name : "", i == 0 ? tenant.user : "", gpu_label(tenant, gpu),
                 size_text(gpu.used_bytes), size_text(gpu.limit_bytes), size_text(gpu.peak_bytes),
                 std::to_string(gpu.refused), i == 0 ? count : ""});
    }
    if (tenant.gpus.empty()) table.row({tenant.name, tenant.user, "-", "-", "-", "-", "-", count});
    for (const ProcessView& process : tenant.processes) {
      std::string held;
      for (size_t i = 0; i < process.charges.size(); ++i) {
        if (process.charges.size() > 1 && sum(process.charges[i]) == 0) continue;
        held += fmt::format("{}{}{}", held.empty() ? "" : "; ",
                            process.charges.size() > 1
                                ? fmt::format("on {} ", gpu_label(tenant, tenant.gpus[i]))
                                : "",
                            kinds_text(process.charges[i]));
      }
      table.note(fmt::format("  {}  {}  holds {}; GPU time {}", process.pid, process.command,
                             held.empty() ? "nothing" : held,
                             process.level == ALLOT_LEVEL_OBSERVE
                                 ? "not limited"
                                 : fmt::format("by {}", level_text(process.level))));
    }
  }
  std::string text = region.tenants.empty() ? "no slices\n" : table.text();
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
    for (const UnreadableTenant& file : region.unreadable) {
      fmt::print(stderr, "allot: note: {}: {}; remove it when no program uses it\n",
                 harmless(file.path), file.reason);
    }
    return;
  }
  json out = {{"folder", region.folder.empty() ? json(nullptr) : json(region.folder)},
              {"tenants", json::array()},
              {"cleared", region.cleared},
              {"stale", region.stale},
              {"unreadable", json::array()}};
  for (const TenantView& tenant : region.tenants) out["tenants"].push_back(tenant_json(tenant));
  for (const UnreadableTenant& file : region.unreadable) {
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
      "by kind: linear, array, managed, pool, vmm, graph, import, and driver (contexts, modules).\n"
      "Slices that nobody is left in are cleared and named.\n"
      "\n"
      "Examples:\n"
      "  allot ps\n"
      "  allot ps --json | jq '.tenants[] | {name, used: .gpus[0].used_bytes}'");
  sub->callback([as_json, exit_status] {
    ps(*as_json);
    *exit_status = kExitOk;
  });
}

}  // namespace allot::cli
