// /init of the guest: runs random operations on the real kernel and on the model, side by side, and
// compares errno and complete state after every one.
//
// The run is cut into episodes of 200 operations, each from a freshly reset system and with its own
// seed; so a failing one can be run again by itself, and be shrunk here, at memory speed, to the
// few operations that matter. Asked for on the kernel command line:
//   allot.mode=random allot.hierarchy=v1|v2|v1v2mode allot.seed=N allot.first=EPISODE
//   allot.episodes=N
//   allot.mode=replay (operations in /replay.txt, separated by ';')   allot.mode=shares
// What it prints is read by tools/kernel_test.py: "T episode hashes", "MISMATCH ...", "REPLAY ...",
// "DONE ...". What must not happen here: a rule of the kernel; those are the model's.
#include <linux/reboot.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <sstream>

#include "guest_kernel.h"
#include "guest_shares.h"
#include "ops.h"

namespace allot::kernel_test {
namespace {

using model::Cpusets;
using model::Era;
using model::Hierarchy;

struct Settings {
  std::string mode = "random";
  Hierarchy hierarchy = Hierarchy::kV1;
  uint64_t seed = 1;
  uint64_t first = 0;
  uint64_t episodes = 5;
};

Settings read_settings() {
  Settings settings;
  std::ifstream file("/proc/cmdline");
  std::string word;
  while (file >> word) {
    size_t equals = word.find('=');
    if (equals == std::string::npos || !word.starts_with("allot.")) continue;
    std::string key = word.substr(6, equals - 6);
    std::string value = word.substr(equals + 1);
    if (key == "mode") settings.mode = value;
    if (key == "hierarchy") {
      settings.hierarchy = value == "v2"   ? Hierarchy::kV2
                           : value == "v1" ? Hierarchy::kV1
                                           : Hierarchy::kV1V2Mode;
    }
    if (key == "seed") settings.seed = std::strtoull(value.c_str(), nullptr, 10);
    if (key == "first") settings.first = std::strtoull(value.c_str(), nullptr, 10);
    if (key == "episodes") settings.episodes = std::strtoull(value.c_str(), nullptr, 10);
  }
  return settings;
}

Era running_era() {
  utsname name{};
  uname(&name);
  int major = 0;
  int minor = 0;
  std::sscanf(name.release, "%d.%d", &major, &minor);
  return major > 6 || (major == 6 && minor >= 2) ? Era::k6_12 : Era::k6_1;
}

class Run {
  using Seconds = std::chrono::duration<double>;

 public:
  explicit Run(const Settings& settings)
      : settings_(settings), kernel_(settings.hierarchy), era_(running_era()) {
    machine_ = kernel_.machine();
    kernel_.reset();
    driver_.tid = 1;
    driver_.cpus = kernel_.task_mask(1, "\nCpus_allowed_list:\t");
    driver_.mems = kernel_.task_mask(1, "\nMems_allowed_list:\t");
    std::printf("MACHINE possible=%s online=%s nodes=%s memory=%s level_max=%d driver=%s/%s\n",
                machine_.possible_cpus.list().c_str(), machine_.online_cpus.list().c_str(),
                machine_.possible_nodes.list().c_str(), machine_.memory_nodes.list().c_str(),
                machine_.sched_domain_level_max, driver_.cpus->list().c_str(),
                driver_.mems->list().c_str());
  }

  int random() {
    int mismatches = 0;
    uint64_t total = 0;
    auto start = std::chrono::steady_clock::now();
    for (uint64_t episode = settings_.first; episode < settings_.first + settings_.episodes;
         ++episode) {
      std::vector<Op> done;
      std::string hashes;
      bool failed = false;
      for (int attempt = 0; attempt < 3; ++attempt) {
        stalled_ = false;
        failed = !one_episode(episode, &done, &hashes);
        if (!stalled_) break;
        // The host left this machine without CPU time; that says nothing about the kernel's rules.
        std::printf("STALLED episode %llu, done again\n", static_cast<unsigned long long>(episode));
        kernel_.reset();
      }
      total += done.size();
      std::printf("T %llu %s\n", static_cast<unsigned long long>(episode), hashes.c_str());
      if (failed) {
        std::printf("MISMATCH episode %llu step %zu: %s\n",
                    static_cast<unsigned long long>(episode), done.size(),
                    done.back().line().c_str());
        shrink(done);
        if (++mismatches >= 3) break;
      }
      kernel_.reset();
      if (episode % 10 == 9) {
        double seconds = Seconds(std::chrono::steady_clock::now() - start).count();
        std::printf(
            "P %llu operations in %.1f s: %.1f performing, %.1f predicting, %.1f reading back\n",
            static_cast<unsigned long long>(total), seconds, spent_[0].count(), spent_[1].count(),
            spent_[2].count());
        std::fflush(stdout);
      }
    }
    std::printf("DONE operations=%llu mismatches=%d\n", static_cast<unsigned long long>(total),
                mismatches);
    return mismatches;
  }

  void replay() {
    std::ifstream file("/replay.txt");
    std::string text((std::istreambuf_iterator<char>(file)), {});
    std::vector<Op> ops;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line, ';');) {
      Op op;
      if (Op::parse(line.substr(0, line.find('\n')), &op)) ops.push_back(op);
    }
    size_t bad = fails(ops, true);
    std::printf("DONE operations=%zu mismatches=%d\n", ops.size(), bad < ops.size() ? 1 : 0);
  }

 private:
  bool one_episode(uint64_t episode, std::vector<Op>* done, std::string* hashes) {
    Cpusets model = fresh();
    Generator generator(episode_seed(settings_.seed, episode));
    done->clear();
    hashes->clear();
    for (int i = 0; i < kOpsPerEpisode; ++i) {
      done->push_back(generator.next(model));
      if (!step(done->back(), &model, hashes, false)) return false;
    }
    return true;
  }

  Cpusets fresh() const {
    Cpusets model(machine_, era_, settings_.hierarchy);
    model.adopt_task(driver_);
    return model;
  }

  // True when kernel and model agree afterwards.
  bool step(const Op& op, Cpusets* model, std::string* hashes, bool report) {
    auto start = std::chrono::steady_clock::now();
    int kernel_err = kernel_.apply(op, *model);
    if (kernel_err == ETIME) stalled_ = true;
    auto applied = std::chrono::steady_clock::now();
    int model_err = apply(op, model);
    std::vector<std::string> expected = model->observe();
    auto predicted = std::chrono::steady_clock::now();
    std::vector<std::string> seen = kernel_.observe(*model);
    auto observed = std::chrono::steady_clock::now();
    spent_[0] += applied - start;
    spent_[1] += predicted - applied;
    spent_[2] += observed - predicted;
    if (hashes != nullptr) {
      char text[16];
      std::snprintf(text, sizeof text, "%08x", state_hash(kernel_err, seen));
      *hashes += text;
    }
    bool same = kernel_err == model_err && seen == expected;
    if (report)
      std::printf("  %-40s kernel %d model %d%s\n", op.line().c_str(), kernel_err, model_err,
                  same ? "" : "   <-- differs");
    if (report && !same) {
      for (size_t i = 0; i < std::max(seen.size(), expected.size()); ++i) {
        std::string a = i < seen.size() ? seen[i] : "(none)";
        std::string b = i < expected.size() ? expected[i] : "(none)";
        if (a != b) std::printf("    kernel: %s\n    model:  %s\n", a.c_str(), b.c_str());
      }
    }
    return same;
  }

  // The index of the first operation after which kernel and model differ; ops.size() when none.
  size_t fails(const std::vector<Op>& ops, bool report) {
    kernel_.reset();
    Cpusets model = fresh();
    for (size_t i = 0; i < ops.size(); ++i) {
      if (!step(ops[i], &model, nullptr, report)) return i;
    }
    return ops.size();
  }

  // Leaves out ever smaller segments for as long as the rest still fails.
  void shrink(std::vector<Op> ops) {
    for (size_t piece = ops.size() / 2; piece > 0; piece = piece > 1 ? piece / 2 : 0) {
      for (size_t at = 0; at + piece <= ops.size();) {
        std::vector<Op> fewer(ops);
        fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(at),
                    fewer.begin() + static_cast<std::ptrdiff_t>(at + piece));
        size_t bad = fails(fewer, false);
        if (bad < fewer.size()) {
          fewer.resize(bad + 1);
          ops = fewer;
        } else {
          at += piece;
        }
      }
    }
    fails(ops, true);
    std::string line;
    for (const Op& op : ops) line += (line.empty() ? "" : ";") + op.line();
    std::printf("REPLAY %s\n", line.c_str());
  }

  Settings settings_;
  bool stalled_ = false;  // a subject did not answer in time
  Seconds spent_[3] = {};
  GuestKernel kernel_;
  Era era_;
  model::Machine machine_;
  model::TaskInit driver_;
};

}  // namespace
}  // namespace allot::kernel_test

int main() {
  using namespace allot::kernel_test;
  mkdir("/proc", 0755);
  mkdir("/sys", 0755);
  mount("none", "/proc", "proc", 0, "");
  mount("none", "/sys", "sysfs", 0, "");
  setvbuf(stdout, nullptr, _IOLBF, 1 << 16);
  Settings settings = read_settings();
  utsname name{};
  uname(&name);
  std::printf("KERNEL %s\n", name.release);
  if (settings.mode == "shares") {
    run_shares(settings.seed, static_cast<int>(settings.episodes));
  } else {
    Run run(settings);
    if (settings.mode == "replay") {
      run.replay();
    } else {
      run.random();
    }
  }
  std::fflush(stdout);
  sync();
  reboot(RB_AUTOBOOT);
  return 0;
}
