// Running a scenario: masks and errnos come from the cpuset model, places and time from the run queues.
#include "model/scenario.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "model/fair_share.h"
#include "model/heap_scan.h"

namespace allot::model {
namespace {

constexpr double kLoadPeriod = 20;  // ticks: a task of load 50 % runs 10 and sleeps 10

Machine machine_of(const Scenario& scenario) {
  return Machine::flat(scenario.cpus, scenario.nodes);
}

class Simulation {
 public:
  explicit Simulation(const Scenario& scenario)
      : scenario_(scenario),
        cpusets_(machine_of(scenario), scenario.era, scenario.hierarchy),
        queues_(Mask::range(0, scenario.cpus - 1), scenario.form, scenario.llc),
        balance_every_(scenario.balance_every) {
    result_.kernel = scenario.kernel;
    result_.cpus = scenario.cpus;
    result_.ticks = scenario.ticks;
  }

  ScenarioResult run() {
    for (const ScenarioGroup& group : scenario_.groups) make_group(group);
    for (const ScenarioTask& task : scenario_.tasks) make_task(task);
    size_t next = 0;
    double imbalance = 0;
    for (uint64_t tick = 0; tick < scenario_.ticks; ++tick) {
      while (next < scenario_.events.size() && scenario_.events[next].tick <= tick) {
        perform(scenario_.events[next++].words);
        start_measuring();
      }
      if (balance_every_ != 0 && tick % balance_every_ == 0) queues_.balance();
      sample();
      imbalance += queues_.imbalance();
      result_.idle_ticks += static_cast<uint64_t>(queues_.idle_while_waiting());
      queues_.tick();
      follow_loads();
    }
    result_.mean_imbalance = imbalance / static_cast<double>(scenario_.ticks);
    finish();
    return result_;
  }

 private:
  struct Life {
    double load = 1.0;
    uint64_t ran_at_wake = 0;
    uint64_t wake_at = 0;
    bool held = false;  // put to sleep by an event
    uint64_t ran_at_measure = 0;
  };

  void log(std::string text, int err = 0) {
    result_.log.push_back({queues_.now(), std::move(text), err});
  }

  void report(const std::string& what, const Outcome& outcome) {
    std::string text = what;
    if (outcome.err != 0) text += std::string(": ") + std::strerror(outcome.err);
    if (outcome.reason.why != Why::kNone)
      text += (outcome.err != 0 ? " (" : ": ") + sentence(outcome.reason) +
              (outcome.err != 0 ? ")" : "");
    log(text, outcome.err);
  }

  void make_group(const ScenarioGroup& group) {
    for (size_t slash = group.path.find('/', 1);; slash = group.path.find('/', slash + 1)) {
      std::string path = group.path.substr(0, slash);
      std::string parent = path.substr(0, path.rfind('/'));
      if (scenario_.hierarchy == Hierarchy::kV2)
        cpusets_.write(parent.empty() ? "/" : parent, "cgroup.subtree_control", "+cpuset");
      if (!cpusets_.has_group(path)) cpusets_.mkdir(path);
      if (slash == std::string::npos) break;
    }
    if (!group.cpus.empty())
      report("group " + group.path + " cpus " + group.cpus,
             cpusets_.write(group.path, "cpuset.cpus", group.cpus));
    std::string mems = group.mems.empty() ? Mask::range(0, scenario_.nodes - 1).list() : group.mems;
    report("group " + group.path + " mems " + mems,
           cpusets_.write(group.path, "cpuset.mems", mems));
    if (group.exclusive)
      report("group " + group.path + " exclusive",
             cpusets_.write(group.path, "cpuset.cpu_exclusive", "1"));
  }

  int make_task(const ScenarioTask& task) {
    int tid = 100 + static_cast<int>(result_.names.size());
    TaskInit init;
    init.tid = tid;
    cpusets_.adopt_task(init);
    if (task.group != "/") {
      Outcome moved = cpusets_.attach_process(task.group, tid);
      if (!moved.ok() || result_.names.empty())
        report("task " + task.name + " into " + task.group, moved);
    }
    if (task.pin) {
      Outcome pinned = cpusets_.set_affinity(tid, *task.pin);
      if (!pinned.ok()) report("task " + task.name + " pinned to " + task.pin->list(), pinned);
    }
    result_.names[tid] = task.name;
    lives_[tid].load = task.load;
    queues_.add(tid, cpusets_.cpus_mask(tid), task.weight);
    if (task.sleeping) {
      queues_.sleep(tid);
      lives_[tid].held = true;
    }
    return tid;
  }

  std::vector<int> tids_of(const std::string& name) {
    std::vector<int> found;
    for (const auto& [tid, known] : result_.names) {
      bool all = name.ends_with('*') && known.starts_with(name.substr(0, name.size() - 1));
      if ((all || known == name) && cpusets_.tgid_of(tid) != 0) found.push_back(tid);
    }
    if (found.empty()) log("there is no task " + name, ESRCH);
    return found;
  }

  // After any change: what the cpuset model says about masks is carried out on the run queues.
  void follow_masks() {
    for (int tid : cpusets_.all_tasks()) {
      const QueuedTask* task = queues_.find(tid);
      if (task != nullptr && task->allowed != cpusets_.cpus_mask(tid))
        queues_.set_cpus_allowed(tid, cpusets_.cpus_mask(tid));
    }
    queues_.set_domains(scenario_.hierarchy == Hierarchy::kV1 ? cpusets_.sched_domains()
                                                              : std::vector<Mask>{});
  }

  void perform_on_task(const std::vector<std::string>& words, int tid) {
    const std::string& action = words[0];
    const std::string& name = result_.names[tid];
    if (action == "pin") {
      Mask mask;
      if (int err = parse_list(words[2], Mask::kBits, &mask)) {
        log("pin " + name + ": '" + words[2] + "' is no list of CPUs", err);
        return;
      }
      report("pin " + name + " to " + words[2], cpusets_.set_affinity(tid, mask));
    } else if (action == "move") {
      report("move " + name + " to " + words[2], cpusets_.attach_process(words[2], tid));
    } else if (action == "sleep") {
      queues_.sleep(tid);
      lives_[tid].held = true;
      log(name + " sleeps");
    } else if (action == "wake") {
      cpusets_.wake(tid);
      follow_masks();
      queues_.wake(tid);
      lives_[tid].held = false;
      lives_[tid].wake_at = 0;
      log(name + " wakes on CPU " + std::to_string(queues_.find(tid)->cpu));
    } else if (action == "exit") {
      cpusets_.exit(tid);
      queues_.remove(tid);
      log(name + " exits");
    } else if (action == "fork") {
      int child = 100 + static_cast<int>(result_.names.size());
      if (cpusets_.fork(tid, child, false).err != 0) return;
      result_.names[child] = words[2];
      lives_[child].load = lives_[tid].load;
      queues_.add(child, cpusets_.cpus_mask(child), queues_.find(tid)->weight,
                  queues_.find(tid)->cpu);
      log(name + " forks " + words[2] + " on CPU " + std::to_string(queues_.find(child)->cpu));
    }
  }

  void perform(const std::vector<std::string>& words) {
    const std::string& action = words[0];
    if (action == "write") {
      report("write " + words[1] + " " + words[2] + " " + words[3],
             cpusets_.write(words[1], words[2], words[3]));
    } else if (action == "offline" || action == "online") {
      plug(words[1], action == "online");
    } else if (action == "balance") {
      if (words[1] == "once") {
        log("balancing moved " + std::to_string(queues_.balance()) + " tasks");
      } else {
        balance_every_ = words[1] == "off"
                             ? 0
                             : std::max<uint64_t>(
                                   1, scenario_.balance_every == 0 ? 10 : scenario_.balance_every);
        log("balancing " + words[1]);
      }
    } else if (action == "scan") {
      for (const std::string& line :
           fork_race(words[1] == "today" ? ScanForm::kToday : ScanForm::kHistorical))
        log("scan (" + words[1] + "): " + line);
    } else {
      for (int tid : tids_of(words[1])) perform_on_task(words, tid);
    }
    follow_masks();
  }

  void plug(const std::string& text, bool up) {
    int cpu = -1;
    std::from_chars(text.data(), text.data() + text.size(), cpu);
    Outcome outcome = up ? cpusets_.online(cpu) : cpusets_.offline(cpu);
    report("CPU " + text + (up ? " comes on line" : " goes off line"), outcome);
    if (!outcome.ok()) return;
    if (up) {
      queues_.online(cpu);
    } else {
      // Tasks that run or wait there are pushed; one pinned to it alone loses its mask.
      for (int tid : queues_.queue(cpu)) cpusets_.wake(tid);
      follow_masks();
      queues_.offline(cpu);
    }
  }

  void follow_loads() {
    for (auto& [tid, life] : lives_) {
      const QueuedTask* task = queues_.find(tid);
      if (task == nullptr || life.held || life.load >= 1.0) continue;
      if (task->state == RunState::kSleeping) {
        if (queues_.now() >= life.wake_at) {
          queues_.wake(tid);
          life.ran_at_wake = task->ran;
        }
      } else if (static_cast<double>(task->ran - life.ran_at_wake) >= life.load * kLoadPeriod) {
        queues_.sleep(tid);
        life.wake_at = queues_.now() + static_cast<uint64_t>((1 - life.load) * kLoadPeriod);
      }
    }
  }

  void start_measuring() {
    result_.shares_since = queues_.now();
    for (auto& [tid, life] : lives_) {
      if (const QueuedTask* task = queues_.find(tid)) life.ran_at_measure = task->ran;
    }
  }

  void sample() {
    std::vector<std::vector<std::string>> row(static_cast<size_t>(scenario_.cpus));
    for (int cpu = 0; cpu < scenario_.cpus; ++cpu) {
      for (int tid : queues_.queue(cpu))
        row[static_cast<size_t>(cpu)].push_back(result_.names[tid]);
    }
    result_.queues.push_back(std::move(row));
  }

  void finish() {
    result_.migrations = queues_.migrations();
    for (int cpu = 0; cpu < scenario_.cpus; ++cpu)
      result_.online_at_end.push_back(queues_.cpus().test(cpu));
    std::vector<int> tids;
    std::vector<ShareTask> loads;
    for (int tid : queues_.tasks()) {
      if (lives_[tid].held) continue;
      tids.push_back(tid);
      loads.push_back({queues_.find(tid)->allowed, queues_.find(tid)->weight, lives_[tid].load});
    }
    std::vector<double> predicted = fair_shares(loads, queues_.cpus());
    double span = static_cast<double>(std::max<uint64_t>(1, queues_.now() - result_.shares_since));
    for (size_t i = 0; i < tids.size(); ++i) {
      const QueuedTask& task = *queues_.find(tids[i]);
      double ran = static_cast<double>(task.ran - lives_[tids[i]].ran_at_measure);
      result_.shares.push_back(
          {result_.names[tids[i]], task.allowed.list(), ran / span, predicted[i], task.migrations});
    }
  }

  const Scenario& scenario_;
  Cpusets cpusets_;
  RunQueues queues_;
  uint64_t balance_every_;
  std::map<int, Life> lives_;
  ScenarioResult result_;
};

}  // namespace

ScenarioResult run_scenario(const Scenario& scenario) {
  return Simulation(scenario).run();
}

}  // namespace allot::model
