// See guest_shares.h. A load is 2 to 12 spinning processes with random CPU masks: in every other
// load one CPU each, which leaves the kernel no choice (pinned), else now and then several (mixed),
// where who shares with whom is the kernel's choice and the model gives only what even sharing
// would be. Each is let run for a while before and during the measurement, and its run time read
// from /proc/PID/schedstat.
#include "guest_shares.h"

#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "model/fair_share.h"
#include "ops.h"
#include "subject.h"

namespace allot::kernel_test {
namespace {

constexpr double kSettleSeconds = 1.0;
constexpr double kMeasureSeconds = 4.0;

double now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

void pause_for(double seconds) {
  timespec time{};
  time.tv_sec = static_cast<time_t>(seconds);
  time.tv_nsec = static_cast<long>((seconds - std::floor(seconds)) * 1e9);
  nanosleep(&time, nullptr);
}

double run_seconds(int real) {
  std::ifstream file("/proc/" + std::to_string(real) + "/schedstat");
  double nanos = 0;
  file >> nanos;
  return nanos * 1e-9;
}

model::Mask random_mask(Random* random, bool pinned) {
  model::Mask mask{random->below(8)};
  if (pinned || random->chance(60)) return mask;
  for (int extra = 1 + random->below(3); extra > 0; --extra) mask.set(random->below(8));
  return mask;
}

struct Score {
  int good = 0, all = 0;
};

void run_case(int number, uint64_t seed, Score* score) {
  Random random(seed);
  Subjects subjects;
  std::vector<model::ShareTask> tasks(static_cast<size_t>(2 + random.below(11)));
  for (size_t t = 0; t < tasks.size(); ++t) {
    int id = 101 + static_cast<int>(t);
    tasks[t].allowed = random_mask(&random, number % 2 == 0);
    subjects.fork(1, id, false);
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int cpu = tasks[t].allowed.first(); cpu >= 0; cpu = tasks[t].allowed.next(cpu))
      CPU_SET(cpu, &set);
    sched_setaffinity(subjects.real(id), sizeof set, &set);
  }
  for (size_t t = 0; t < tasks.size(); ++t) subjects.spin(101 + static_cast<int>(t), true);
  pause_for(kSettleSeconds);
  std::vector<double> before(tasks.size());
  std::vector<double> started(tasks.size());
  for (size_t t = 0; t < tasks.size(); ++t) {
    before[t] = run_seconds(subjects.real(101 + static_cast<int>(t)));
    started[t] = now();
  }
  pause_for(kMeasureSeconds);
  std::vector<double> predicted = model::fair_shares(tasks, model::Mask::range(0, 7));
  for (size_t t = 0; t < tasks.size(); ++t) {
    double ran = run_seconds(subjects.real(101 + static_cast<int>(t))) - before[t];
    double share = ran / (now() - started[t]);
    double off = std::fabs(share - predicted[t]);
    bool close = off <= 0.05;
    std::printf("SHARE case %d task %zu cpus %s predicted %.3f measured %.3f%s\n", number, t,
                tasks[t].allowed.list().c_str(), predicted[t], share, close ? "" : "  <-- off");
    score->good += close ? 1 : 0;
    ++score->all;
  }
  for (size_t t = 0; t < tasks.size(); ++t) subjects.spin(101 + static_cast<int>(t), false);
  subjects.exit_all();
  std::fflush(stdout);
}

}  // namespace

void run_shares(uint64_t seed, int cases) {
  Score pinned, mixed;
  for (int i = 0; i < cases; ++i)
    run_case(i, episode_seed(seed, static_cast<uint64_t>(i)), i % 2 == 0 ? &pinned : &mixed);
  std::printf("DONE shares=%d pinned=%d within_5_points=%d mixed=%d within_5_points=%d\n",
              pinned.all + mixed.all, pinned.all, pinned.good, mixed.all, mixed.good);
}

}  // namespace allot::kernel_test
