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

std::string escape(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else {
      out += c;
    }
  }
  return out;
}

const char* colour(size_t length) {
  constexpr const char* kColours[] = {"#eeeeee", "#7fbf7b", "#f4c95d", "#f08c4a", "#d7503c"};
  return kColours[std::min<size_t>(length, 4)];
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

std::string scenario_svg(const ScenarioResult& result) {
  constexpr double kLeft = 60;
  constexpr double kWidth = 840;
  constexpr double kStrip = 44;
  double events = 24 + 14 * static_cast<double>(std::min<size_t>(result.log.size(), 20));
  double strips = kStrip * result.cpus;
  double scale = kWidth / static_cast<double>(std::max<uint64_t>(1, result.ticks));
  size_t longest = 1;
  for (const auto& row : result.queues) {
    for (const auto& queue : row) longest = std::max(longest, queue.size());
  }
  std::string out;
  append(&out,
         "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
         "font-family=\"sans-serif\" font-size=\"11\">\n",
         kLeft + kWidth + 20, strips + events + 60);
  append(&out,
         "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n<text x=\"%.0f\" y=\"16\" "
         "font-size=\"13\">Tasks on each CPU's run queue, kernel %s</text>\n",
         kLeft, escape(result.kernel).c_str());
  for (int cpu = 0; cpu < result.cpus; ++cpu) {
    double bottom = 28 + kStrip * (cpu + 1) - 4;
    append(&out, "<text x=\"8\" y=\"%.0f\">CPU %d</text>\n", bottom - 12, cpu);
    for (size_t tick = 0; tick < result.queues.size();) {
      size_t length = result.queues[tick][static_cast<size_t>(cpu)].size();
      size_t end = tick;
      while (end < result.queues.size() &&
             result.queues[end][static_cast<size_t>(cpu)].size() == length)
        ++end;
      double height =
          std::max(2.0, (kStrip - 8) * static_cast<double>(length) / static_cast<double>(longest));
      append(&out,
             "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"%s\"><title>%zu "
             "tasks, %zu-%zu ms</title></rect>\n",
             kLeft + scale * static_cast<double>(tick), bottom - height,
             scale * static_cast<double>(end - tick), height, colour(length), length, tick, end);
      tick = end;
    }
  }
  double base = 28 + strips;
  append(&out,
         "<text x=\"%.0f\" y=\"%.0f\">0</text><text x=\"%.0f\" y=\"%.0f\" text-anchor=\"end\">%llu "
         "ms</text>\n",
         kLeft, base + 12, kLeft + kWidth, base + 12,
         static_cast<unsigned long long>(result.ticks));
  for (size_t i = 0; i < std::min<size_t>(result.log.size(), 20); ++i) {
    const ScenarioLog& entry = result.log[i];
    double x = kLeft + scale * static_cast<double>(entry.tick);
    append(&out,
           "<line x1=\"%.2f\" y1=\"24\" x2=\"%.2f\" y2=\"%.2f\" stroke=\"#555\" "
           "stroke-dasharray=\"3 3\"/>\n",
           x, x, base);
    append(&out, "<text x=\"%.0f\" y=\"%.0f\" fill=\"%s\">%llu ms  %s</text>\n", kLeft,
           base + 30 + 14 * static_cast<double>(i), entry.err == 0 ? "#333" : "#b22",
           static_cast<unsigned long long>(entry.tick), escape(entry.text).c_str());
  }
  append(&out,
         "<text x=\"%.0f\" y=\"%.0f\">%zu migrations; imbalance %.2f tasks on "
         "average</text>\n</svg>\n",
         kLeft, base + 36 + 14 * static_cast<double>(std::min<size_t>(result.log.size(), 20)),
         result.migrations.size(), result.mean_imbalance);
  return out;
}

}  // namespace allot::model
