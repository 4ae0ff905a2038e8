// What slices cost, and what rebalancing brings: the figures of bench/results/cpus/slice.txt.
//
//   slice_bench start [RUNS=200]     place + fork + enter + exec + release of "true", and taskset's
//   slice_bench affinity [THREADS]   one sched_setaffinity per thread of a stopped process
//   slice_bench rebalance [SECONDS]  8 spinners pinned to one CPU of a slice of up to 4, before and
//                                    under watch
//   slice_bench balanced [SECONDS]   2 spinners on each CPU of the slice: watch must do nothing
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "cpus/attach.h"
#include "cpus/watch.h"
#include "storm.h"

namespace allot::cpus {
namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point from) {
  return std::chrono::duration<double, std::milli>(Clock::now() - from).count();
}

void report(const char* what, std::vector<double> ms) {
  std::sort(ms.begin(), ms.end());
  std::printf("%-28s p50 %7.3f ms  p99 %7.3f ms  n %zu\n", what, ms[ms.size() / 2],
              ms[ms.size() * 99 / 100], ms.size());
}

PlacementRequest request_for(const CpuSet& cpus, const std::string& folder) {
  PlacementRequest r;
  r.name = "bench";
  r.cpus = to_list(cpus) + ",";
  r.folder = folder;
  return r;
}

double with_slice(const CpuSet& cpus, const std::string& folder, bool use_cpuset) {
  Clock::time_point from = Clock::now();
  PlacementRequest r = request_for(cpus, folder);
  r.use_cpuset = use_cpuset;
  Expected<Placement> p = place(r);
  if (!p) return -1;
  pid_t child = fork_into(*p);
  if (child == 0) {
    enter(*p);
    execlp("true", "true", nullptr);
    _exit(127);
  }
  set_member(&*p, child);
  waitpid(child, nullptr, 0);
  release(&*p);
  return ms_since(from);
}

double with_taskset(const CpuSet& cpus) {
  Clock::time_point from = Clock::now();
  std::string list = to_list(cpus);
  pid_t child = fork();
  if (child == 0) {
    execlp("taskset", "taskset", "-c", list.c_str(), "true", nullptr);
    _exit(127);
  }
  waitpid(child, nullptr, 0);
  return ms_since(from);
}

int start(const CpuSet& allowed, const std::string& folder, int runs) {
  std::vector<double> taskset, cpuset, affinity;
  CpuSet last{allowed.last()};
  for (int i = 0; i < runs; ++i) {
    taskset.push_back(with_taskset(last));
    cpuset.push_back(with_slice(last, folder, true));
    affinity.push_back(with_slice(last, folder, false));
  }
  report("taskset -c N true", taskset);
  report("slice by cpuset", cpuset);
  report("slice by affinity", affinity);
  return 0;
}

int affinity(const CpuSet& allowed, int threads) {
  Storm storm = Storm::start(threads, 0, 500);
  if (storm.pid == 0 || !storm.freeze()) return 1;
  std::vector<pid_t> tids = threads_of(FsRoot{}, storm.pid);
  std::vector<double> us;
  for (int round = 0; round < 20; ++round) {
    CpuSet target{round % 2 == 0 ? allowed.first() : allowed.last()};
    Clock::time_point from = Clock::now();
    for (pid_t tid : tids) set_affinity(tid, target);
    us.push_back(ms_since(from) * 1000 / static_cast<double>(tids.size()));
  }
  storm.end();
  std::sort(us.begin(), us.end());
  std::printf("affinity, %zu threads: p50 %.2f us a thread, worst of 20 rounds %.2f us\n",
              tids.size(), us[10], us.back());
  return 0;
}

// CPU seconds that the spinners have used.
double used_s(const std::vector<pid_t>& pids) {
  double sum = 0;
  for (pid_t pid : pids) {
    std::string text = FsRoot{}.read("/proc/" + std::to_string(pid) + "/schedstat").value_or("0");
    sum += std::strtod(text.c_str(), nullptr) / 1e9;
  }
  return sum;
}

struct Spinners {
  Placement placement;
  std::vector<pid_t> pids;

  Spinners() = default;
  Spinners(const Spinners&) = delete;
  Spinners& operator=(const Spinners&) = delete;
  ~Spinners() {
    for (pid_t pid : pids) {
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
    release(&placement);
  }
  // 8 of them in a slice of `slice`, pinned to the CPUs of `pins` in turn.
  bool start(const CpuSet& slice, const std::string& folder, const std::vector<int>& pins) {
    Expected<Placement> p = place(request_for(slice, folder));
    if (!p) return false;
    placement = *p;
    for (size_t i = 0; i < 8; ++i) {
      pid_t child = fork_into(placement);
      if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        enter(placement);
        set_affinity(0, CpuSet{pins[i % pins.size()]});
        for (std::atomic<unsigned> turns{0};;) turns.fetch_add(1, std::memory_order_relaxed);
      }
      if (i == 0) set_member(&placement, child);
      pids.push_back(child);
    }
    return true;
  }
};

CpuSet up_to_four(const CpuSet& allowed) {
  CpuSet some;
  for (int cpu = allowed.first(); cpu >= 0 && some.count() < 4; cpu = allowed.next(cpu))
    some.add(cpu);
  return some;
}

int rebalance(const CpuSet& allowed, const std::string& folder, double seconds) {
  CpuSet slice = up_to_four(allowed);
  Spinners spinners;
  if (!spinners.start(slice, folder, {slice.first()})) return 1;
  WatchOptions options;
  options.folder = folder;
  Clock::time_point from = Clock::now();
  double before = used_s(spinners.pids);
  while (ms_since(from) < 2000) usleep(50'000);
  double alone = (used_s(spinners.pids) - before) / (ms_since(from) / 1000);
  Watcher watcher(options);
  int moves = 0;
  from = Clock::now();
  double mark_s = 2, used_at_mark = -1;
  double last_move_s = 0;
  while (ms_since(from) < seconds * 1000) {
    double now = ms_since(from) / 1000;
    if (used_at_mark < 0 && now >= mark_s) {
      used_at_mark = used_s(spinners.pids);
      mark_s = ms_since(from) / 1000;
    }
    for (const WatchAction& a : watcher.look(now)) {
      ++moves;
      last_move_s = now;
      std::printf("  %5.2f s  %s: %s\n", now, a.what.c_str(), a.why.c_str());
    }
    watcher.wait(200);
  }
  double with_watch = (used_s(spinners.pids) - used_at_mark) / (ms_since(from) / 1000 - mark_s);
  std::printf(
      "8 spinners on 1 of %d CPUs: %.2f CPUs used; under watch, from %.1f s on: %.2f CPUs, %.1f %% "
      "of what it could; %d moves, the last at %.2f s\n",
      slice.count(), alone, mark_s, with_watch, 100 * with_watch / slice.count(), moves,
      last_move_s);
  return 0;
}

int balanced(const CpuSet& allowed, const std::string& folder, double seconds) {
  CpuSet slice = up_to_four(allowed);
  std::vector<int> pins;
  for (int cpu = slice.first(); cpu >= 0; cpu = slice.next(cpu)) pins.push_back(cpu);
  Spinners spinners;
  if (!spinners.start(slice, folder, pins)) return 1;
  WatchOptions options;
  options.folder = folder;
  Watcher watcher(options);
  int actions = 0, looks = 0;
  Clock::time_point from = Clock::now();
  while (ms_since(from) < seconds * 1000) {
    for (const WatchAction& a : watcher.look(ms_since(from) / 1000)) {
      ++actions;
      std::printf("  %5.2f s  %s: %s\n", ms_since(from) / 1000, a.what.c_str(), a.why.c_str());
    }
    ++looks;
    watcher.wait(200);
  }
  std::printf("8 spinners, evenly on %d CPUs: %d actions in %d looks over %.0f s\n", slice.count(),
              actions, looks, ms_since(from) / 1000);
  return actions == 0 ? 0 : 1;
}

}  // namespace
}  // namespace allot::cpus

int main(int argc, char** argv) {
  using namespace allot::cpus;
  std::string what = argc > 1 ? argv[1] : "start";
  int number = argc > 2 ? std::atoi(argv[2]) : 0;
  CpuSet allowed = cpus_within_cpuset().value_or(CpuSet{});
  char name[] = "/tmp/allot-bench-XXXXXX";
  std::string folder = mkdtemp(name);
  int status = 2;
  if (what == "start") status = start(allowed, folder, number > 0 ? number : 200);
  if (what == "affinity") status = affinity(allowed, number > 0 ? number : 1000);
  if (what == "rebalance") status = rebalance(allowed, folder, number > 0 ? number : 10);
  if (what == "balanced") status = balanced(allowed, folder, number > 0 ? number : 60);
  std::filesystem::remove_all(folder);
  return status;
}
