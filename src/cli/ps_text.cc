// See ps_text.h.
#include "cli/ps_text.h"

#include <algorithm>
#include <map>

#include "cli/failure.h"
#include "cli/launch/admission.h"
#include "cli/output.h"
#include "cli/slice_spec.h"

namespace allot::cli {
namespace {

constexpr size_t kStateColumn = 7;  // its column

// "0", or "GPU-1a2b3c4d-5e6f" where the slice does not know the index.
std::string gpu_label(const SliceView& slice, const SliceGpuView& gpu, bool say_software) {
  const std::string label =
      gpu.index >= 0 ? std::to_string(gpu.index) : uuid_to_text(gpu.uuid).substr(0, 17);
  return slice.software() && say_software ? label + " (software)" : label;
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

// Three figures are enough for people: "3.0 s", "12 min", "5.2 h".
std::string seconds_text(uint64_t ns) {
  const double seconds = static_cast<double>(ns) / 1e9;
  if (seconds < 99.95) return fmt::format("{:.1f} s", seconds);
  if (seconds < 600) return fmt::format("{:.0f} s", seconds);
  if (seconds < 6000) return fmt::format("{:.0f} min", seconds / 60);
  return seconds < 360000 ? fmt::format("{:.1f} h", seconds / 3600)
                          : fmt::format("{:.0f} d", seconds / 86400);
}

// How the GPU time of a process is held, and how much it was.
std::string held_time_text(const SliceView& slice, const ProcessView& process) {
  const std::string unheld = unheld_text(slice, process);
  const std::string tables = tables_text(process.full_tables);
  const std::string also =
      (unheld.empty() ? "" : "; " + unheld) + (tables.empty() ? "" : "; " + tables);
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
  if (!answers) text += "; its agent is not responding";
  return text + also;
}

std::string host_text(const ProcessView& process) {
  if (process.evicted == ALLOT_EVICTED_NOT) return "";
  if (process.evicted == ALLOT_EVICTED_DRIVER) return ", all of it on the host";
  return fmt::format(", {} of it on the host", size_text(process.host_bytes));
}

std::string held_text(const SliceView& slice, const ProcessView& process) {
  std::string held;
  for (size_t i = 0; i < process.charges.size(); ++i) {
    if (process.charges.size() > 1 && sum_of_kinds(process.charges[i]) == 0) continue;
    held += fmt::format("{}{}{}", held.empty() ? "" : "; ",
                        process.charges.size() > 1
                            ? fmt::format("on {} ", gpu_label(slice, slice.gpus[i], false))
                            : "",
                        kinds_text(process.charges[i]));
  }
  return held.empty() ? "nothing" : held;
}

void add_process(const PsRow& row, const ProcessView& process, size_t width, Table* table) {
  std::string line = fmt::format("  {}{}  {}", process.pid,
                                 process.foreign ? " in another container" : "", process.command);
  if (row.only_cpus) {
    table->note(cut(line, width));
    return;
  }
  const std::string details = fmt::format("holds {}{}; GPU time: {}", held_text(row.slice, process),
                                          host_text(process), held_time_text(row.slice, process));
  if (columns_of(line) + 2 + columns_of(details) <= width) {
    table->note(line + "  " + details, 0);
  } else {
    table->note(cut(line, width), 0);
    table->note("        " + details, 8);
  }
}

Colour colour_of(const std::string& state) {
  if (state == "active") return Colour::kGreen;
  if (state == "throttled") return Colour::kYellow;
  if (state == "frozen" || state == "freezing") return Colour::kBlue;
  if (state == "evicted" || state == "evicting") return Colour::kMagenta;
  return Colour::kPlain;
}

std::string launcher_text(const SliceView& slice) {
  return fmt::format("{}{}", slice.launcher_pid,
                     slice.launcher_foreign ? " in another container (pid namespace)" : "");
}

void add_row(const PsRow& row, bool say_software, size_t width, Table* table) {
  const SliceView& slice = row.slice;
  const std::string cpus = row.cpus ? row.cpus->cpus : "-";
  for (size_t i = 0; i < slice.gpus.size(); ++i) {
    const SliceGpuView& gpu = slice.gpus[i];
    const std::string state = slice_state(slice, i);
    table->row({i == 0 ? slice.name : "", i == 0 ? slice.user : "",
                gpu_label(slice, gpu, say_software), size_text(gpu.used_bytes),
                size_text(gpu.limit_bytes), percent_text(gpu.share_permille),
                percent_text(gpu.max_permille), state, seconds_text(gpu.time_used_ns),
                i == 0 ? cpus : "", i == 0 ? priority_text(slice.priority) : "",
                size_text(gpu.peak_bytes), std::to_string(gpu.refused)});
    table->colour(kStateColumn, colour_of(state));
  }
  if (slice.gpus.empty()) {
    table->row({slice.name, slice.user, "-", "-", "-", "-", "-",
                slice.evicted()  ? "evicted"
                : slice.frozen() ? "frozen"
                                 : "-",
                "-", cpus, row.only_cpus ? "-" : priority_text(slice.priority), "-", "-"});
  }
  for (const ProcessView& process : slice.processes) add_process(row, process, width, table);
  if (slice.processes.empty() && slice.launcher_pid > 0 && !row.only_cpus)
    table->note(slice.launcher_alive
                    ? fmt::format("  no process on a GPU yet; launcher {}", launcher_text(slice))
                    : "  no process on a GPU");
  if (slice.launcher_pid > 0 && !slice.launcher_alive && !row.only_cpus)
    table->note(fmt::format(
        "  its launcher, {}, has ended; what it started runs on: 'allot stop {}' ends it",
        launcher_text(slice), slice.name));
}

// What all slices have of one GPU.
struct GpuSum {
  std::string label;
  uint64_t used = 0, promised = 0, physical = 0, shares = 0;
  unsigned slices = 0, unlimited = 0;
};

std::string sums_text(const std::vector<PsRow>& rows, size_t width) {
  std::map<std::pair<int, Uuid>, GpuSum> sums;
  for (const PsRow& row : rows) {
    for (const SliceGpuView& gpu : row.slice.gpus) {
      GpuSum& sum = sums[{gpu.index, gpu.uuid}];
      sum.label = gpu_label(row.slice, gpu, true);
      sum.used += gpu.used_bytes - std::min(gpu.host_bytes, gpu.used_bytes);
      sum.physical = std::max(sum.physical, gpu.physical_bytes);
      sum.shares += gpu.share_permille;
      ++sum.slices;
      if (gpu.limit_bytes == ALLOT_UNLIMITED) {
        ++sum.unlimited;
      } else {
        sum.promised += gpu.limit_bytes;
      }
    }
  }
  std::string text;
  for (const auto& [key, sum] : sums) {
    std::string line = fmt::format("GPU {}: {} used", sum.label, size_text(sum.used));
    if (sum.promised > 0 || sum.unlimited < sum.slices)
      line += fmt::format(", {} promised", size_text(sum.promised));
    if (sum.physical > 0) line += fmt::format(" of {}", size_text(sum.physical));
    if (sum.shares > 0)
      line += ", shares " +
              percent_text(static_cast<uint32_t>(std::min<uint64_t>(sum.shares, 1000000)));
    line += fmt::format(", {} slice{}", sum.slices, sum.slices == 1 ? "" : "s");
    if (sum.unlimited > 0) line += fmt::format(" ({} without limit)", sum.unlimited);
    text += wrapped(line, width, 2) + "\n";
  }
  return text.empty() ? "" : "\n" + text;
}

}  // namespace

std::string slice_state(const SliceView& slice, size_t gpu) {
  if (slice.evicted()) return slice.eviction_text();
  return state_text(slice.clients, static_cast<uint32_t>(gpu), slice.frozen());
}

uint64_t sum_of_kinds(const ByKind& kinds) {
  uint64_t total = 0;
  for (const uint64_t bytes : kinds) total += bytes;
  return total;
}

bool natural_less(const std::string& a, const std::string& b) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  size_t i = 0;
  size_t j = 0;
  while (i < a.size() && j < b.size()) {
    if (!digit(a[i]) || !digit(b[j])) {
      if (a[i] != b[j]) return static_cast<unsigned char>(a[i]) < static_cast<unsigned char>(b[j]);
      ++i;
      ++j;
      continue;
    }
    const auto number = [&](const std::string& text, size_t* at) {
      while (*at < text.size() && text[*at] == '0') ++*at;
      const size_t begin = *at;
      while (*at < text.size() && digit(text[*at])) ++*at;
      return text.substr(begin, *at - begin);
    };
    const std::string left = number(a, &i);
    const std::string right = number(b, &j);
    if (left.size() != right.size()) return left.size() < right.size();
    if (left != right) return left < right;
  }
  if (i < a.size() || j < b.size()) return j < b.size();
  return a < b;  // "a01" and "a1"
}

std::string ps_text(const std::vector<PsRow>& rows, const RegionView& region, bool all,
                    size_t width) {
  bool any_cpus = false;
  bool software = false;
  bool hardware = false;
  for (const PsRow& row : rows) {
    any_cpus = any_cpus || row.cpus.has_value();
    if (row.only_cpus) continue;
    (row.slice.software() ? software : hardware) = true;
  }
  Table table(std::vector<Column>{{"NAME", 0, 6},
                                  {"USER", 5, 6},
                                  {"GPU", 0, 0},
                                  {"USED", 0, 0},
                                  {"LIMIT", 1, 0},
                                  {"SHARE", 2, 0},
                                  {"MAX", 3, 0},
                                  {"STATE", 0, 0},
                                  {"TIME", 4, 0},
                                  {"CPUS", any_cpus ? 1 : 99, 8},
                                  {"PRIORITY", 6, 0},
                                  {"PEAK", 7, 0},
                                  {"REFUSED", 8, 0}});
  if (!any_cpus) table.leave_out(9);
  const bool say_software = software && (hardware || !all);
  for (const PsRow& row : rows) add_row(row, say_software, width, &table);
  std::string text = rows.empty() ? "no slices\n" : table.text(width);
  if (all) text += sums_text(rows, width);
  for (const std::string& name : region.cleared)
    text += fmt::format("cleared: {} (no process was left in it)\n", name);
  for (const std::string& name : region.stale) {
    text += wrapped(fmt::format(
                        "stale: {} (no process is left in it; its owner's next command clears it)",
                        name),
                    width, 2) +
            "\n";
  }
  return text;
}

std::string counters_text(const std::vector<PsRow>& rows, size_t width) {
  Table table(std::vector<Column>{{"NAME", 0, 8},
                                  {"USER", 2, 0},
                                  {"GPU", 0, 0},
                                  {"TIME", 0, 0},
                                  {"HELD-BACK", 0, 0},
                                  {"REFUSED", 0, 0},
                                  {"FROZEN", 0, 0},
                                  {"EVICTED", 1, 0}});
  for (const PsRow& row : rows) {
    const SliceView& slice = row.slice;
    if (row.only_cpus) continue;
    const std::string frozen = slice.counts ? seconds_text(slice.frozen_ns) : "-";
    const std::string evicted = slice.counts ? std::to_string(slice.evictions) : "-";
    for (size_t i = 0; i < slice.gpus.size(); ++i) {
      const SliceGpuView& gpu = slice.gpus[i];
      table.row({i == 0 ? slice.name : "", i == 0 ? slice.user : "", gpu_label(slice, gpu, false),
                 seconds_text(gpu.time_used_ns), seconds_text(gpu.time_throttled_ns),
                 std::to_string(gpu.refused), i == 0 ? frozen : "", i == 0 ? evicted : ""});
    }
    if (slice.gpus.empty())
      table.row({slice.name, slice.user, "-", "-", "-", "-", frozen, evicted});
    for (const ProcessView& process : slice.processes) {
      table.note(cut(fmt::format("  {}  {}", process.pid, process.command), width));
      if (!process.counters) continue;
      const AllotCounters& its = *process.counters;
      table.note(fmt::format("        {} used, {} held back, {} refused, {} frozen, evicted {} "
                             "time{}",
                             seconds_text(its.time_used_ns), seconds_text(its.time_throttled_ns),
                             its.refused, seconds_text(its.frozen_ns), its.evictions,
                             its.evictions == 1 ? "" : "s"),
                 8);
    }
  }
  const std::string text = table.text(width);
  return rows.empty() ? "no slices\n" : text;
}

}  // namespace allot::cli
