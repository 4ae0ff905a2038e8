// How many threads escape a move, over many runs, by each method; the figures of
// bench/results/cpus/attach.txt. Counted by mask with the process stopped.
//
//   attach_storm RUNS [IDLE=1000] [MIN_CHAINS=16] [MAX_CHAINS=64]
//
// Every run starts a fresh process with IDLE sleeping threads and a number of chains that walks
// from MIN to MAX, and moves it once with each method in turn; `taskset -a` is the baseline.
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "cpus/attach.h"
#include "storm.h"

extern char** environ;

namespace allot::cpus {
namespace {

struct Method {
  const char* name = "";
  int runs = 0, failed = 0, runs_with_escape = 0;
  long escaped = 0, threads = 0;
  std::vector<double> ms;
  std::vector<double> paused_ms;
};

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1,
                         static_cast<size_t>(q * static_cast<double>(values.size())))];
}

bool taskset(pid_t pid, const CpuSet& cpus) {
  std::string list = to_list(cpus), target = std::to_string(pid);
  std::string command = fmt::format("taskset -a -p -c {} {} >/dev/null 2>&1", list, target);
  return system(command.c_str()) == 0;
}

bool move_with(Method* m, int method, pid_t pid, const CpuSet& cpus, const std::string& folder) {
  if (method == 2)
    return taskset(pid, cpus) || true;  // its exit status tells of vanished threads only
  AttachRequest request;
  request.pid = pid;
  request.placement.name = "storm";
  request.placement.cpus = to_list(cpus) + ",";
  request.placement.folder = folder;
  if (method == 1) {
    Expected<BindReport> report = bind_stopped(pid, cpus);
    if (report) m->paused_ms.push_back(report->paused_ms);
    if (!report) std::fprintf(stderr, "%s\n", report.error().text.c_str());
    return report.has_value();
  }
  Expected<AttachReport> report = attach(request);
  if (!report) std::fprintf(stderr, "%s\n", report.error().text.c_str());
  if (report && report->level != Level::kEnforced)
    std::fprintf(stderr, "only %s: %s\n", std::string(level_name(report->level)).c_str(),
                 report->reason.c_str());
  return report && report->level == Level::kEnforced;
}

void report(const Method& m) {
  std::printf(
      "%-10s runs %5d  failed %d  runs with an escape %5d  escaped %6ld of %8ld threads  "
      "ms p50 %6.1f p99 %6.1f",
      m.name, m.runs, m.failed, m.runs_with_escape, m.escaped, m.threads, quantile(m.ms, 0.5),
      quantile(m.ms, 0.99));
  if (!m.paused_ms.empty()) {
    std::printf("  paused ms p50 %.1f p99 %.1f", quantile(m.paused_ms, 0.5),
                quantile(m.paused_ms, 0.99));
  }
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace
}  // namespace allot::cpus

int main(int argc, char** argv) {
  using namespace allot::cpus;
  auto number = [&](int i, int otherwise) { return argc > i ? std::atoi(argv[i]) : otherwise; };
  int runs = number(1, 10), idle = number(2, 1000), min_chains = number(3, 16),
      max_chains = number(4, 64);
  Hierarchy h = find_hierarchy(FsRoot{});
  CpuSet allowed = cpus_within_cpuset().value_or(CpuSet{});
  char name[] = "/tmp/allot-storm-XXXXXX";
  std::string folder = mkdtemp(name);
  Method methods[3];
  methods[0].name = "cpuset";
  methods[1].name = "stop";
  methods[2].name = "taskset -a";
  int failures = 0;
  for (int run = 0; run < runs; ++run) {
    int chains = min_chains + (max_chains > min_chains ? run % (max_chains - min_chains + 1) : 0);
    for (int method = 0; method < 3; ++method) {
      Method& m = methods[method];
      if (method == 0 && h.base.empty()) continue;
      Storm storm = Storm::start(idle, chains, 500);
      if (storm.pid == 0) {
        std::fprintf(stderr, "the storm did not start\n");
        return 1;
      }
      auto from = std::chrono::steady_clock::now();
      CpuSet target{run % 2 == 0 ? allowed.last() : allowed.first()};
      bool moved = move_with(&m, method, storm.pid, target, folder);
      m.ms.push_back(
          std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - from)
              .count());
      if (!storm.freeze()) {
        std::fprintf(stderr, "the storm could not be stopped to count\n");
        storm.end();
        return 1;
      }
      int outside = threads_outside(storm.pid, target);
      m.threads += static_cast<long>(threads_of(FsRoot{}, storm.pid).size());
      storm.end();
      ++m.runs;
      m.failed += moved ? 0 : 1;
      m.escaped += outside;
      m.runs_with_escape += outside > 0 ? 1 : 0;
      if (method < 2) failures += outside > 0 || !moved ? 1 : 0;
    }
    if ((run + 1) % 50 == 0 && run + 1 < runs) {
      for (const Method& m : methods) report(m);
    }
  }
  for (const Method& m : methods) report(m);
  sweep(FsRoot{}, h);
  std::filesystem::remove_all(folder);
  return failures == 0 ? 0 : 1;
}
