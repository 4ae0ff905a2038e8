// The report and the chart of a scenario.
#include <algorithm>
#include <cstdint>
#include <set>

#include "model/print.h"
#include "model/scenario.h"

namespace allot::model {
namespace {

constexpr size_t kMaxRows = 40, kMaxMoves = 20;

// What a list leaves out is said.
void print_more(std::string* out, size_t count, size_t shown, const char* what) {
  if (count > shown) print_to(out, "%11s ... %zu more %s\n", "", count - shown, what);
}

// Ticks from which a row of the table begins: the start, each event and each move. What happens
// between them is tasks that sleep and wake.
std::vector<uint64_t> row_starts(const ScenarioResult& result) {
  std::set<uint64_t> ticks{0};
  for (const ScenarioLog& entry : result.log) ticks.insert(entry.tick);
  for (const Migration& move : result.migrations) ticks.insert(move.tick);
  ticks.erase(ticks.lower_bound(result.queues.size()), ticks.end());
  return {ticks.begin(), ticks.end()};
}

// The least and the most tasks of a queue in the ticks from `from` until `to`.
std::string range_of(const ScenarioResult& result, size_t cpu, uint64_t from, uint64_t to) {
  size_t least = SIZE_MAX, most = 0;
  for (uint64_t tick = from; tick < to; ++tick) {
    const size_t tasks = result.queues[tick][cpu].size();
    least = std::min(least, tasks);
    most = std::max(most, tasks);
  }
  return least == most ? std::to_string(most) : std::to_string(least) + "-" + std::to_string(most);
}

// The longest less the shortest queue, at most.
size_t imbalance(const ScenarioResult& result, uint64_t from, uint64_t to) {
  size_t worst = 0;
  for (uint64_t tick = from; tick < to; ++tick) {
    size_t longest = 0, shortest = SIZE_MAX;
    for (const auto& queue : result.queues[tick]) {
      longest = std::max(longest, queue.size());
      shortest = std::min(shortest, queue.size());
    }
    worst = std::max(worst, longest - shortest);
  }
  return worst;
}

void print_queues(std::string* out, const ScenarioResult& result) {
  const std::vector<uint64_t> ticks = row_starts(result);
  print_to(out, "\nqueues (tasks running or waiting on each CPU, from each event or move on)\n%11s",
           "");
  for (int cpu = 0; cpu < result.cpus; ++cpu)
    print_to(out, " %5s", ("cpu" + std::to_string(cpu)).c_str());
  print_to(out, "  imbalance\n");
  for (size_t i = 0; i < std::min(ticks.size(), kMaxRows); ++i) {
    const uint64_t end = i + 1 < ticks.size() ? ticks[i + 1] : result.queues.size();
    print_to(out, "%8llu ms", static_cast<unsigned long long>(ticks[i]));
    for (size_t cpu = 0; cpu < static_cast<size_t>(result.cpus); ++cpu)
      print_to(out, " %5s", range_of(result, cpu, ticks[i], end).c_str());
    print_to(out, "  %zu\n", imbalance(result, ticks[i], end));
  }
  print_more(out, ticks.size(), kMaxRows, "changes");
}

}  // namespace

std::string scenario_text(const ScenarioResult& result) {
  std::string out;
  print_to(&out, "kernel %s, %d CPUs, %llu ms\n\nevents\n", result.kernel.c_str(), result.cpus,
           static_cast<unsigned long long>(result.ticks));
  for (const ScenarioLog& entry : result.log)
    print_to(&out, "%8llu ms  %s\n", static_cast<unsigned long long>(entry.tick),
             entry.text.c_str());

  print_queues(&out, result);

  std::map<std::string, int> causes;
  for (const Migration& each : result.migrations) ++causes[move_cause_name(each.cause)];
  print_to(&out, "\nmigrations: %zu", result.migrations.size());
  for (const auto& [cause, count] : causes) print_to(&out, ", %d by %s", count, cause.c_str());
  print_to(&out, "\n");
  for (size_t i = 0; i < std::min(result.migrations.size(), kMaxMoves); ++i) {
    const Migration& each = result.migrations[i];
    print_to(&out, "%8llu ms  %-10s CPU %d -> %d  (%s)\n",
             static_cast<unsigned long long>(each.tick), result.names.at(each.tid).c_str(),
             each.from, each.to, move_cause_name(each.cause).c_str());
  }
  print_more(&out, result.migrations.size(), kMaxMoves, "moves");
  print_to(
      &out,
      "\nimbalance: %.2f tasks on average; %llu ms of CPU time idle while an allowed task waited\n",
      result.mean_imbalance, static_cast<unsigned long long>(result.idle_ticks));
  print_to(&out, "\nCPU time since %llu ms\n%-12s %-12s %9s %9s %11s\n",
           static_cast<unsigned long long>(result.shares_since), "task", "allowed", "got", "fair",
           "migrations");
  for (size_t i = 0; i < std::min(result.shares.size(), kMaxRows); ++i) {
    const ScenarioShare& share = result.shares[i];
    print_to(&out, "%-12s %-12s %8.1f%% %8.1f%% %11d\n", share.name.c_str(), share.mask.c_str(),
             share.measured * 100, share.predicted * 100, share.migrations);
  }
  print_more(&out, result.shares.size(), kMaxRows, "tasks");
  return out;
}

}  // namespace allot::model
