// The result of `bench share` as a table: a line a slice and phase, and what was promised and not
// kept.
#include <fmt/format.h>

#include <algorithm>

#include "bench/share_report.h"

namespace allot::bench {
namespace {

using nlohmann::ordered_json;

std::string cell(const ordered_json& slice, const char* field, const char* form) {
  if (!slice.contains(field) || !slice[field].is_number()) return "-";
  return fmt::format(fmt::runtime(form), slice[field].get<double>());
}

std::string percent_cell(const ordered_json& slice, const char* field) {
  if (!slice.contains(field) || !slice[field].is_number()) return "-";
  return fmt::format("{:.1f}", slice[field].get<double>() * 100);
}

// Two tables, because one would be too wide for a terminal of 80 columns.
constexpr const char* kShares = "{:<6}{:<6}{:<12}{:>7}{:>6}{:>10}{:>8}{:>6}{:>7}  {}\n";
constexpr const char* kWaits = "{:<6}{:<6}{:>9}{:>14}{:>10}{:>10}{:>10}{:>10}\n";

std::string slice_line(int phase, int which, const ordered_json& slice) {
  const bool max = slice.contains("max_error_points");
  const ordered_json& promised = slice["promises"];
  const auto missed = std::count_if(promised.begin(), promised.end(),
                                    [](const ordered_json& one) { return !one["kept"]; });
  return fmt::format(fmt::runtime(kShares), phase, which, slice["load"].get<std::string>(),
                     cell(slice, "share", "{:.1f}"), cell(slice, "max", "{:.1f}"),
                     percent_cell(slice, "achieved"),
                     percent_cell(slice.value("native", ordered_json::object()), "achieved"),
                     percent_cell(slice, "gpu_time"),
                     cell(slice, max ? "max_error_points" : "share_error_points", "{:+.2f}"),
                     promised.empty() ? "-"
                     : missed == 0    ? "kept"
                                      : fmt::format("{} not kept", missed));
}

std::string waits_line(int phase, int which, const ordered_json& slice) {
  const bool max = slice.contains("max_error_points");
  const ordered_json waits = slice.value("waits", ordered_json());
  return fmt::format(
      fmt::runtime(kWaits), phase, which, percent_cell(slice, "share_of_total"),
      cell(slice, max ? "max_worst_second_points" : "share_worst_second_points", "{:.2f}"),
      cell(waits, "p50", "{:.3f}"), cell(waits, "p99", "{:.3f}"), cell(waits, "p999", "{:.3f}"),
      cell(waits, "max", "{:.3f}"));
}

std::string missed_lines(int phase, int which, const ordered_json& slice) {
  std::string text;
  for (const ordered_json& one : slice["promises"]) {
    if (one["kept"]) continue;
    text +=
        fmt::format("not kept: phase {} slice {} ({}):\n  {} is {:.2f}, promised {} {:.2f}\n",
                    phase, which, slice["load"].get<std::string>(), one["what"].get<std::string>(),
                    one["value"].get<double>(), one["kind"] == "at_least" ? "at least" : "at most",
                    one["limit"].get<double>());
  }
  return text;
}

}  // namespace

std::string phases_text(const ordered_json& result) {
  std::string text = fmt::format(fmt::runtime(kShares), "PHASE", "SLICE", "LOAD", "SHARE%", "MAX%",
                                 "OF-ALONE%", "NATIVE%", "GPU%", "ERROR", "PROMISES");
  std::string waits = "\n" + fmt::format(fmt::runtime(kWaits), "PHASE", "SLICE", "OF-SUM%",
                                         "WORST-SECOND", "P50-MS", "P99-MS", "P99.9-MS", "MAX-MS");
  std::string missed;
  int number = 0;
  for (const ordered_json& phase : result["phases"]) {
    int which = 0;
    for (const ordered_json& slice : phase["slices"]) {
      text += slice_line(number, which, slice);
      waits += waits_line(number, which, slice);
      missed += missed_lines(number, which++, slice);
    }
    text += fmt::format("{:<6}all: {:.1f} % of alone in sum", number++,
                        phase["total_achieved"].get<double>() * 100);
    if (phase.contains("native_total_achieved"))
      text +=
          fmt::format("; natively {:.1f} %", phase["native_total_achieved"].get<double>() * 100);
    text += "\n";
  }
  return text + waits + missed;
}

}  // namespace allot::bench
