// The report and the chart of a scenario.
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <set>

#include "model/scenario.h"

namespace allot::model {
namespace {

constexpr size_t kMaxRows = 40;

[[gnu::format(printf, 2, 3)]] void append(std::string* out, const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  int size = std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  out->append(text, std::min(static_cast<size_t>(std::max(size, 0)), sizeof text - 1));
}

// Ticks at which a queue gained or lost a task; the order within a queue does not count.
std::vector<uint64_t> changes(const ScenarioResult& result) {
  std::vector<uint64_t> ticks;
  std::vector<std::multiset<std::string>> before;
  for (uint64_t tick = 0; tick < result.queues.size(); ++tick) {
    std::vector<std::multiset<std::string>> now;
    for (const auto& queue : result.queues[tick]) now.emplace_back(queue.begin(), queue.end());
    if (tick == 0 || now != before) ticks.push_back(tick);
    before = std::move(now);
  }
  return ticks;
}

}  // namespace

std::string scenario_text(const ScenarioResult& result) {
  std::string out;
  append(&out, "kernel %s, %d CPUs, %llu ms\n\nevents\n", result.kernel.c_str(), result.cpus,
         static_cast<unsigned long long>(result.ticks));
  for (const ScenarioLog& entry : result.log)
    append(&out, "%8llu ms  %s\n", static_cast<unsigned long long>(entry.tick), entry.text.c_str());

  std::vector<uint64_t> ticks = changes(result);
  append(&out, "\nqueues (tasks running or waiting on each CPU, when they change)\n%11s", "");
  for (int cpu = 0; cpu < result.cpus; ++cpu)
    append(&out, " %5s", ("cpu" + std::to_string(cpu)).c_str());
  append(&out, "  imbalance\n");
  for (size_t i = 0; i < ticks.size(); ++i) {
    if (i == kMaxRows) {
      append(&out, "%11s ... %zu more changes\n", "", ticks.size() - i);
      break;
    }
    size_t longest = 0;
    size_t shortest = SIZE_MAX;
    append(&out, "%8llu ms", static_cast<unsigned long long>(ticks[i]));
    for (const auto& queue : result.queues[ticks[i]]) {
      longest = std::max(longest, queue.size());
      shortest = std::min(shortest, queue.size());
      append(&out, " %5zu", queue.size());
    }
    append(&out, "  %zu\n", longest - shortest);
  }

  std::map<std::string, int> causes;
  for (const Migration& each : result.migrations) ++causes[move_cause_name(each.cause)];
  append(&out, "\nmigrations: %zu", result.migrations.size());
  for (const auto& [cause, count] : causes) append(&out, ", %d by %s", count, cause.c_str());
  append(&out, "\n");
  for (size_t i = 0; i < std::min<size_t>(result.migrations.size(), 20); ++i) {
    const Migration& each = result.migrations[i];
    append(&out, "%8llu ms  %-10s CPU %d -> %d  (%s)\n", static_cast<unsigned long long>(each.tick),
           result.names.at(each.tid).c_str(), each.from, each.to,
           move_cause_name(each.cause).c_str());
  }
  append(
      &out,
      "\nimbalance: %.2f tasks on average; %llu ms of CPU time idle while an allowed task waited\n",
      result.mean_imbalance, static_cast<unsigned long long>(result.idle_ticks));
  append(&out, "\nCPU time since %llu ms\n%-12s %-12s %9s %9s %11s\n",
         static_cast<unsigned long long>(result.shares_since), "task", "allowed", "got", "fair",
         "migrations");
  for (size_t i = 0; i < std::min<size_t>(result.shares.size(), 40); ++i) {
    const ScenarioShare& share = result.shares[i];
    append(&out, "%-12s %-12s %8.1f%% %8.1f%% %11d\n", share.name.c_str(), share.mask.c_str(),
           share.measured * 100, share.predicted * 100, share.migrations);
  }
  return out;
}

}  // namespace allot::model
