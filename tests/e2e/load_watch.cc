// See load_watch.h.
#include "tests/e2e/load_watch.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>

#include "tests/e2e/command.h"

namespace allot::e2e {
namespace {

constexpr double kOthersMost = 0.10;  // of all CPUs
constexpr double kStolenMost = 0.02;
constexpr double kLateMost = 0.02;  // of the sleeps
constexpr double kLateSeconds = 0.001;
constexpr double kSlowerMost = 1.10;

double seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

std::string percent(double part) {
  return std::to_string(static_cast<int>(part * 100 + 0.5)) + " %";
}

}  // namespace

LoadWatch::LoadWatch()
    : spin_s_(spin_s()), before_(look()), sleeper_([this] { sleep_and_look(); }) {}

LoadWatch::~LoadWatch() {
  stop();
}

void LoadWatch::stop() {
  end_ = true;
  if (sleeper_.joinable()) sleeper_.join();
}

// All CPUs' time, and what of it is ours: of this process and of those that it has waited for.
LoadWatch::Cpus LoadWatch::look() {
  double user = 0, nice = 0, system = 0, idle = 0, wait = 0, irq = 0, soft = 0, steal = 0;
  std::string name;
  std::ifstream("/proc/stat") >> name >> user >> nice >> system >> idle >> wait >> irq >> soft >>
      steal;
  const double tick = static_cast<double>(sysconf(_SC_CLK_TCK));
  Cpus cpus = {(user + nice + system + irq + soft) / tick, steal / tick, 0, now()};
  for (const int whose : {RUSAGE_SELF, RUSAGE_CHILDREN}) {
    rusage used = {};
    getrusage(whose, &used);
    cpus.ours_s += seconds(used.ru_utime) + seconds(used.ru_stime);
  }
  return cpus;
}

// The best of some runs of a loop of a millisecond or so.
double LoadWatch::spin_s() {
  double best = 1;
  for (int run = 0; run < 8; ++run) {
    const double begin = now();
    volatile uint64_t sum = 0;
    for (int i = 0; i < 500'000; ++i) sum = sum + static_cast<uint64_t>(i);
    best = std::min(best, now() - begin);
  }
  return best;
}

void LoadWatch::sleep_and_look() {
  while (!end_) {
    const double due = now() + 0.002;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    ++sleeps_;
    if (now() - due > kLateSeconds) ++late_;
  }
}

std::string LoadWatch::why_busy() {
  stop();
  const Cpus after = look();
  const double all =
      (after.at_s - before_.at_s) * static_cast<double>(sysconf(_SC_NPROCESSORS_ONLN));
  const double ours = after.ours_s - before_.ours_s;
  const double others = (after.busy_s - before_.busy_s - ours) / all;
  const double stolen = (after.stolen_s - before_.stolen_s) / all;
  const double late =
      static_cast<double>(late_) / static_cast<double>(std::max<uint64_t>(sleeps_, 1));
  const double slower = spin_s() / spin_s_;
  if (others > kOthersMost) return "others used " + percent(others) + " of the CPUs";
  if (stolen > kStolenMost) return percent(stolen) + " of the CPUs' time was taken from outside";
  if (late > kLateMost) return percent(late) + " of all sleeps ended 1 ms late";
  if (slower > kSlowerMost || slower * kSlowerMost < 1)
    return "a loop took " + percent(slower) + " of its time at the start";
  return "";
}

}  // namespace allot::e2e
