// Running a scenario: masks and errnos come from the cpuset model, places and time from the run
// queues. Longer than most files: every action of the language tells its story beside what it does.
#include "model/scenario.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <set>

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
    result_.unknown = result_.unknown || outcome.reason.why == Why::kUnknown;
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

  struct Pending {
    int child = 0, parent = 0;
  };

  void begin_fork(const std::string& name, int parent) {
    int child = 100 + static_cast<int>(result_.names.size());
    result_.names[child] = name;
    pending_.push_back({child, parent});
    log(result_.names[parent] + " begins to fork " + name +
        ": mask copied, start time taken, not on the list yet");
  }

  std::string names_of(const std::vector<int>& tids) {
    std::string text;
    for (size_t i = 0; i < std::min<size_t>(tids.size(), 6); ++i)
      text += " " + result_.names[tids[i]];
    return tids.size() > 6 ? text + " ... (" + std::to_string(tids.size()) + " tasks)" : text;
  }

  // Tasks of the scan that have been updated since they were last asked for, in the order of
  // updates.
  static void collect_updates(const HeapScan& scan, std::set<int>* known, std::vector<int>* fresh) {
    for (const ScanTask& task : scan.members()) {
      if (task.updated && known->insert(task.tid).second) fresh->push_back(task.tid);
    }
  }

  // cgroup_scan_tasks() over the group's own tasks, with the forks that are under way in it: which
  // task is updated in which round, and who escapes. `before` is the group's mask before the write.
  void scan_group(const std::string& path, const Mask& before) {
    bool historical = scenario_.era == Era::k2_6_25;
    HeapScan scan(historical ? ScanForm::kHistorical : ScanForm::kToday);
    std::vector<std::pair<size_t, Pending>> forks;
    std::vector<int> members = cpusets_.tasks(path);
    for (const Pending& each : pending_) {
      if (cpusets_.group_of(each.parent) == path) members.push_back(each.child);
    }
    std::sort(members.begin(), members.end());  // ids are given in the order of starting
    for (int tid : members) {
      auto fork = std::find_if(pending_.begin(), pending_.end(),
                               [tid](const Pending& each) { return each.child == tid; });
      if (fork == pending_.end()) {
        scan.add_member(tid);
        continue;
      }
      size_t id = scan.begin_fork(fork->parent, tid);
      scan.advance_fork(id);
      scan.advance_fork(id);
      forks.emplace_back(id, *fork);
      pending_.erase(fork);
    }
    std::set<int> known;
    std::vector<int> fresh;
    scan.begin();
    size_t left_out = 0;
    for (int round = 1; scan.step() || !fresh.empty();) {
      collect_updates(scan, &known, &fresh);
      bool over = scan.rounds() > round || scan.finished();
      if (!over) continue;
      std::string text = "scan of " + path + ", round " + std::to_string(round) + ": heap of " +
                         std::to_string(HeapScan::kHeapSlots) +
                         " slots by start time:" + names_of(fresh);
      if (!historical) text = "walk of " + path + "'s task list:" + names_of(fresh);
      if (size_t more = scan.overflowed() - left_out; more > 0)
        text += "; " + std::to_string(more) + " later ones did not fit";
      left_out = scan.overflowed();
      log(text);
      fresh.clear();
      round = scan.rounds();
      for (auto& [id, fork] : forks) {
        while (!scan.fork_done(id)) scan.advance_fork(id);
      }
      if (scan.finished()) break;
    }
    if (historical)
      log("scan of " + path + ": nothing new, done after " + std::to_string(scan.rounds()) +
          " walks");
    std::vector<int> lost = scan.escaped();
    for (auto& [id, fork] : forks) {
      while (!scan.fork_done(id)) scan.advance_fork(id);
      bool escaped = std::find(lost.begin(), lost.end(), fork.child) != lost.end();
      finish_fork(fork, escaped, before);
    }
  }

  void finish_fork(const Pending& fork, bool escaped, const Mask& before) {
    TaskInit init;
    init.tid = fork.child;
    init.group = cpusets_.group_of(fork.parent);
    init.cpus = escaped ? before : cpusets_.cpus_mask(fork.parent);
    cpusets_.adopt_task(init);
    lives_[fork.child].load = lives_[fork.parent].load;
    queues_.add(fork.child, cpusets_.cpus_mask(fork.child), queues_.find(fork.parent)->weight,
                queues_.find(fork.parent)->cpu);
    const std::string& name = result_.names[fork.child];
    log(escaped ? name + " ESCAPED with the old mask " + before.list() +
                      ": started before the latest one processed, on the list after the walk"
                : name + " comes onto the list and has the new mask");
  }

  // set_cpus_allowed() for one task, and what became of it: nothing, case 1 or case 2 of
  // migrate_task().
  void move_to_mask(int tid) {
    const QueuedTask before = *queues_.find(tid);
    const std::string& name = result_.names[tid];
    bool pending = false;
    if (queues_.start_set_cpus_allowed(tid, cpusets_.cpus_mask(tid), &pending) != 0) return;
    std::string source = std::to_string(before.cpu);
    std::string now = std::to_string(queues_.find(tid)->cpu);
    std::string text;
    if (pending) {
      size_t waiting = queues_.requests(before.cpu).size();
      std::string to = std::to_string(queues_.requests(before.cpu).back().destination);
      while (queues_.run_migration_thread(before.cpu)) {
      }
      now = std::to_string(queues_.find(tid)->cpu);
      bool old = scenario_.form == SchedForm::k2_6_23;
      text = name + ": case 2, on queue " + source + (old ? ": request " : ": stopper request ") +
             std::to_string(waiting) + " to " + (old ? "migration/" : "the stopper of CPU ") +
             source + " (-> CPU " + to + "); __migrate_task: off queue " + source + ", CPU " + now +
             ", onto queue " + now;
    } else if (before.state == RunState::kSleeping) {
      text = name + ": case 1, asleep: " +
             (now == source ? "nothing is moved, it is placed when it wakes"
                            : "its CPU is set to " + now);
    } else if (now != source) {
      text = name + ": case 2, waiting on queue " + source + ": moved to queue " + now + " at once";
    }
    if (text.empty()) return;
    if (++told_ <= kToldMoves) log(text);
    if (told_ == kToldMoves + 1) log("... further tasks the same way");
  }

  // After any change: what the cpuset model says about masks is carried out on the run queues.
  void follow_masks() {
    for (int tid : cpusets_.all_tasks()) {
      const QueuedTask* task = queues_.find(tid);
      if (task != nullptr && task->allowed != cpusets_.cpus_mask(tid)) move_to_mask(tid);
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
        log("pin " + name + ": '" + words[2] + "' is not a list of CPUs", err);
        return;
      }
      report("pin " + name + " to " + words[2], cpusets_.set_affinity(tid, mask));
    } else if (action == "move") {
      Outcome moved = cpusets_.attach_process(words[2], tid);
      report("move " + name + " to " + words[2] +
                 (moved.ok() ? ": guarantee_online_cpus gives " + cpusets_.legal_cpus(tid).list()
                             : ""),
             moved);
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
      log(name + " wakes on CPU " + std::to_string(queues_.find(tid)->cpu) +
          ", which select_task_rq took among " + cpusets_.legal_cpus(tid).list());
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
      log(name + " forks " + words[2] + " on CPU " + std::to_string(queues_.find(child)->cpu) +
          ", which select_task_rq took among " + cpusets_.legal_cpus(child).list());
    } else if (action == "fork-begin") {
      begin_fork(words[2], tid);
    }
  }

  void perform(const std::vector<std::string>& words) {
    const std::string& action = words[0];
    told_ = 0;
    if (action == "write") {
      Mask old = cpusets_.effective_cpus(words[1]);
      report("write " + words[1] + " " + words[2] + " " + words[3],
             cpusets_.write(words[1], words[2], words[3].empty() ? "\n" : words[3]));
      bool changed = cpusets_.has_group(words[1]) && old != cpusets_.effective_cpus(words[1]);
      if (words[2] == "cpuset.cpus" && changed) scan_group(words[1], old);
    } else if (action == "mkdir") {
      Outcome made = cpusets_.mkdir(words[1]);
      report("mkdir " + words[1], made);
    } else if (action == "rmdir") {
      report("rmdir " + words[1], cpusets_.rmdir(words[1]));
    } else if (action == "show") {
      show(words[1]);
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

  void show(const std::string& path) {
    if (!cpusets_.has_group(path)) {
      log("there is no group " + path, ENOENT);
      return;
    }
    for (const std::string& file : cpusets_.files(path)) {
      std::string text = cpusets_.read(path, file).value_or("");
      if (file == "tasks" || file == "cgroup.procs" || file == "cgroup.threads") {
        text.clear();
        for (int tid : cpusets_.tasks(path)) text += result_.names[tid] + " ";
      }
      std::replace(text.begin(), text.end(), '\n', ' ');
      log((path == "/" ? "" : path) + "/" + file + ": " + text);
    }
  }

  void plug(const std::string& text, bool up) {
    int cpu = -1;
    std::from_chars(text.data(), text.data() + text.size(), cpu);
    Outcome outcome = up ? cpusets_.online(cpu) : cpusets_.offline(cpu);
    report("CPU " + text + (up ? " comes online" : " goes offline"), outcome);
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
    result_.online.push_back(queues_.cpus());
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
  static constexpr int kToldMoves = 8;  // of one event
  int told_ = 0;
  std::vector<Pending> pending_;
  ScenarioResult result_;
};

}  // namespace

ScenarioResult run_scenario(const Scenario& scenario) {
  return Simulation(scenario).run();
}

}  // namespace allot::model
