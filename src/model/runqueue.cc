// See runqueue.h. Sources of the rules: kernel/sched.c of 2.6.23 (set_cpus_allowed, migrate_task,
// migration_thread, __migrate_task, any_online_cpu) and kernel/sched/core.c of 6.1 and 6.12
// (__set_cpus_allowed_ptr_locked, affine_move_task, select_task_rq, select_fallback_rq).
#include "model/runqueue.h"

#include <algorithm>
#include <cerrno>
#include <limits>

namespace allot::model {
namespace {

// A running task is pushed only after waiting ones could not be pulled this often
// (cache_nice_tries + 2).
constexpr int kFailuresBeforePush = 3;

}  // namespace

std::string move_cause_name(MoveCause cause) {
  switch (cause) {
    case MoveCause::kMask:
      return "mask";
    case MoveCause::kWake:
      return "wake";
    case MoveCause::kFork:
      return "fork";
    case MoveCause::kBalance:
      return "balance";
    case MoveCause::kPush:
      return "push";
    case MoveCause::kHotplug:
      return "hotplug";
  }
  return "?";
}

RunQueues::RunQueues(const Mask& cpus, SchedForm form, std::vector<Mask> llc)
    : online_(cpus), form_(form), llc_(std::move(llc)) {
  for (int cpu = cpus.first(); cpu >= 0; cpu = cpus.next(cpu)) rqs_[cpu];
}

Mask RunQueues::llc_of(int cpu) const {
  for (const Mask& each : llc_) {
    if (each.test(cpu)) return each;
  }
  return online_;
}

int RunQueues::choose(const Mask& mask) {
  Mask usable = mask & online_;
  if (form_ == SchedForm::k2_6_23) return usable.first();
  cursor_ = usable.next(cursor_);
  if (cursor_ < 0) cursor_ = usable.first();
  return cursor_;
}

int RunQueues::idlest(const Mask& among) const {
  int best = -1;
  for (int cpu = among.first(); cpu >= 0; cpu = among.next(cpu)) {
    if (best < 0 || nr_running(cpu) < nr_running(best)) best = cpu;
  }
  return best;
}

// Placement of a new task: the idlest allowed CPU. Of a woken one: where it was if that is idle,
// else an idle CPU that shares its cache, else where it was. If that is forbidden now: same cache,
// then any.
int RunQueues::select_task_rq(const QueuedTask& task, bool fork, int from) {
  Mask usable = task.allowed & online_;
  if (usable.count() == 1) return usable.first();
  if (fork) {
    // 2.6.23 leaves a child where its parent runs unless an idler CPU is found.
    int best = idlest(usable);
    bool stay = from >= 0 && usable.test(from) && nr_running(from) <= nr_running(best);
    return stay ? from : best;
  }
  Mask near = usable & llc_of(task.cpu);
  bool at_home = usable.test(task.cpu);
  if (at_home && nr_running(task.cpu) == 0) return task.cpu;
  int idle = idlest(near);
  if (idle >= 0 && nr_running(idle) == 0) return idle;
  if (at_home) return task.cpu;
  return near.empty() ? usable.first() : near.first();
}

double RunQueues::queue_time(int cpu) const {
  double least = std::numeric_limits<double>::infinity();
  for (int tid : queue(cpu)) least = std::min(least, tasks_.at(tid).virtual_time);
  return least;
}

void RunQueues::activate(QueuedTask* task, int cpu) {
  double least = queue_time(cpu);
  // What it ran elsewhere does not count here: it starts level with those that had least.
  if (least != std::numeric_limits<double>::infinity()) task->virtual_time = least;
  task->cpu = cpu;
  task->state = RunState::kQueued;
  rqs_.at(cpu).waiting.push_back(task->tid);
  if (rqs_.at(cpu).current == 0) pick_next(cpu);
}

void RunQueues::deactivate(QueuedTask* task) {
  auto found = rqs_.find(task->cpu);
  task->state = RunState::kSleeping;
  if (found == rqs_.end()) return;
  Rq& rq = found->second;
  std::erase(rq.waiting, task->tid);
  if (rq.current == task->tid) {
    rq.current = 0;
    pick_next(task->cpu);
  }
}

void RunQueues::note(const QueuedTask& task, int from, MoveCause cause) {
  if (from != task.cpu) migrations_.push_back({tick_, task.tid, from, task.cpu, cause});
}

int RunQueues::add(int tid, const Mask& allowed, double weight, int parent_cpu) {
  if (tid <= 0 || tasks_.count(tid) != 0) return EEXIST;
  if (!allowed.intersects(online_)) return EINVAL;
  QueuedTask task;
  task.tid = tid;
  task.allowed = allowed;
  task.weight = weight;
  QueuedTask& placed = tasks_.emplace(tid, task).first->second;
  placed.cpu = parent_cpu >= 0 ? parent_cpu : (allowed & online_).first();
  activate(&placed, select_task_rq(placed, true, parent_cpu));
  return 0;
}

int RunQueues::remove(int tid) {
  auto found = tasks_.find(tid);
  if (found == tasks_.end()) return ESRCH;
  if (found->second.state != RunState::kSleeping) deactivate(&found->second);
  tasks_.erase(found);
  return 0;
}

int RunQueues::sleep(int tid) {
  auto found = tasks_.find(tid);
  if (found == tasks_.end()) return ESRCH;
  if (found->second.state != RunState::kSleeping) deactivate(&found->second);
  return 0;
}

int RunQueues::wake(int tid) {
  auto found = tasks_.find(tid);
  if (found == tasks_.end()) return ESRCH;
  QueuedTask& task = found->second;
  if (task.state != RunState::kSleeping) return 0;
  if (!task.allowed.intersects(online_)) task.allowed = online_;  // select_fallback_rq()
  int from = task.cpu;
  activate(&task, select_task_rq(task, false, from));
  if (from != task.cpu) ++task.migrations;
  note(task, from, MoveCause::kWake);
  return 0;
}

int RunQueues::start_set_cpus_allowed(int tid, const Mask& mask, bool* pending) {
  *pending = false;
  auto found = tasks_.find(tid);
  if (found == tasks_.end()) return ESRCH;
  if (!mask.intersects(online_)) return EINVAL;
  QueuedTask& task = found->second;
  if (form_ == SchedForm::kToday && task.allowed == mask) return 0;
  task.allowed = mask;
  if (mask.test(task.cpu) && online_.test(task.cpu)) return 0;
  int destination = choose(mask);
  if (task.state == RunState::kSleeping) {
    // Case 1. Today its CPU number stays as it is, forbidden or not, until it wakes.
    if (form_ == SchedForm::k2_6_23) {
      int from = task.cpu;
      task.cpu = destination;
      ++task.migrations;
      note(task, from, MoveCause::kMask);
    }
    return 0;
  }
  if (form_ == SchedForm::kToday && task.state == RunState::kQueued) {
    migrate(tid, task.cpu, destination, MoveCause::kMask);
    return 0;
  }
  // Case 2.
  rqs_.at(task.cpu).requests.push_back({tid, destination, false, false});
  *pending = true;
  return 0;
}

int RunQueues::set_cpus_allowed(int tid, const Mask& mask) {
  bool pending = false;
  if (int err = start_set_cpus_allowed(tid, mask, &pending)) return err;
  if (pending) {
    int source = tasks_.at(tid).cpu;
    while (run_migration_thread(source)) {
    }
  }
  return 0;
}

bool RunQueues::run_migration_thread(int cpu) {
  auto found = rqs_.find(cpu);
  if (found == rqs_.end() || found->second.requests.empty()) return false;
  MigrationRequest request = found->second.requests.front();
  found->second.requests.pop_front();
  migrate(request.tid, cpu, request.destination, MoveCause::kMask);
  return true;
}

// __migrate_task(): since the request was made the world may have changed, so everything is looked
// at again. Not moving is right in each of these cases: someone else has moved the task, or will.
bool RunQueues::migrate(int tid, int source, int destination, MoveCause cause) {
  auto found = tasks_.find(tid);
  if (found == tasks_.end()) return false;  // it died
  QueuedTask& task = found->second;
  if (!online_.test(destination)) return false;       // the destination went off line
  if (task.cpu != source) return false;               // moved already
  if (!task.allowed.test(destination)) return false;  // the mask changed again
  bool on_queue = task.state != RunState::kSleeping;
  if (on_queue) deactivate(&task);
  task.cpu = destination;
  if (on_queue) activate(&task, destination);
  ++task.migrations;
  note(task, source, cause);
  return true;
}

void RunQueues::offline(int cpu) {
  if (!online_.test(cpu) || online_.count() == 1) return;
  online_.clear(cpu);
  for (int tid : queue(cpu)) {
    QueuedTask& task = tasks_.at(tid);
    if (!task.allowed.intersects(online_)) task.allowed = online_;
    Mask near = task.allowed & online_ & llc_of(cpu);
    int destination = near.empty() ? (task.allowed & online_).first() : near.first();
    migrate(tid, cpu, destination, MoveCause::kHotplug);
  }
  rqs_.erase(cpu);
}

void RunQueues::online(int cpu) {
  online_.set(cpu);
  rqs_[cpu];
}

void RunQueues::pick_next(int cpu) {
  Rq& rq = rqs_.at(cpu);
  if (rq.current != 0) {
    tasks_.at(rq.current).state = RunState::kQueued;
    rq.waiting.push_back(rq.current);
    rq.current = 0;
  }
  if (rq.waiting.empty()) return;
  auto least = std::min_element(rq.waiting.begin(), rq.waiting.end(), [&](int a, int b) {
    return tasks_.at(a).virtual_time < tasks_.at(b).virtual_time;
  });
  rq.current = *least;
  rq.waiting.erase(least);
  tasks_.at(rq.current).state = RunState::kRunning;
}

void RunQueues::tick() {
  ++tick_;
  for (auto& [cpu, rq] : rqs_) {
    while (run_migration_thread(cpu)) {
    }
    if (rq.current != 0) {
      QueuedTask& task = tasks_.at(rq.current);
      ++task.ran;
      task.virtual_time += 1.0 / task.weight;
    }
    pick_next(cpu);
  }
}

// One pull to `to`: from the longest queue of the domain that is longer by two (by one when `to`
// idles and something waits), a waiting task that may run there; the one that ran least recently.
bool RunQueues::pull(int to, const Mask& domain) {
  std::vector<int> sources;
  for (int cpu = domain.first(); cpu >= 0; cpu = domain.next(cpu)) {
    bool longer = nr_running(cpu) >= nr_running(to) + 2;
    if (cpu != to && longer) sources.push_back(cpu);
  }
  std::stable_sort(sources.begin(), sources.end(),
                   [&](int a, int b) { return nr_running(a) > nr_running(b); });
  // A source whose tasks are all pinned is dropped and the next one tried.
  for (int source : sources) {
    for (int tid : rqs_.at(source).waiting) {
      if (!tasks_.at(tid).allowed.test(to)) continue;
      rqs_.at(to).balance_failed = 0;
      return migrate(tid, source, to, MoveCause::kBalance);
    }
  }
  if (sources.empty()) return false;
  if (++rqs_.at(to).balance_failed <= kFailuresBeforePush) return false;
  rqs_.at(to).balance_failed = 0;
  for (int source : sources) {
    int tid = rqs_.at(source).current;
    if (tid != 0 && tasks_.at(tid).allowed.test(to))
      return migrate(tid, source, to, MoveCause::kPush);
  }
  return false;
}

int RunQueues::balance() {
  int moved = 0;
  std::vector<Mask> domains = domains_.empty() ? std::vector<Mask>{online_} : domains_;
  for (const Mask& each : domains) {
    Mask domain = each & online_;
    std::vector<int> order;
    for (int cpu = domain.first(); cpu >= 0; cpu = domain.next(cpu)) order.push_back(cpu);
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return nr_running(a) < nr_running(b); });
    for (int cpu : order) {
      for (size_t i = 0; i < tasks_.size() && pull(cpu, domain); ++i) ++moved;
    }
  }
  return moved;
}

int RunQueues::nr_running(int cpu) const {
  auto found = rqs_.find(cpu);
  if (found == rqs_.end()) return 0;
  return static_cast<int>(found->second.waiting.size()) + (found->second.current != 0 ? 1 : 0);
}

std::vector<int> RunQueues::queue(int cpu) const {
  std::vector<int> tids;
  auto found = rqs_.find(cpu);
  if (found == rqs_.end()) return tids;
  if (found->second.current != 0) tids.push_back(found->second.current);
  tids.insert(tids.end(), found->second.waiting.begin(), found->second.waiting.end());
  return tids;
}

const QueuedTask* RunQueues::find(int tid) const {
  auto found = tasks_.find(tid);
  return found == tasks_.end() ? nullptr : &found->second;
}

std::vector<int> RunQueues::tasks() const {
  std::vector<int> tids;
  for (const auto& [tid, task] : tasks_) tids.push_back(tid);
  return tids;
}

const std::deque<MigrationRequest>& RunQueues::requests(int cpu) const {
  return rqs_.at(cpu).requests;
}

int RunQueues::imbalance() const {
  int longest = 0;
  int shortest = std::numeric_limits<int>::max();
  for (const auto& [cpu, rq] : rqs_) {
    longest = std::max(longest, nr_running(cpu));
    shortest = std::min(shortest, nr_running(cpu));
  }
  return rqs_.empty() ? 0 : longest - shortest;
}

int RunQueues::idle_while_waiting() const {
  int wasted = 0;
  for (const auto& [cpu, rq] : rqs_) {
    if (nr_running(cpu) != 0) continue;
    bool wanted = std::any_of(rqs_.begin(), rqs_.end(), [&, idle = cpu](const auto& other) {
      const std::deque<int>& waiting = other.second.waiting;
      return std::any_of(waiting.begin(), waiting.end(),
                         [&](int tid) { return tasks_.at(tid).allowed.test(idle); });
    });
    wasted += wanted ? 1 : 0;
  }
  return wasted;
}

std::string RunQueues::check() const {
  std::map<int, int> seen;
  for (const auto& [cpu, rq] : rqs_) {
    if (!online_.test(cpu)) return "a queue of offline CPU " + std::to_string(cpu);
    for (int tid : queue(cpu)) {
      const QueuedTask& task = tasks_.at(tid);
      if (++seen[tid] > 1) return "task " + std::to_string(tid) + " is queued twice";
      if (task.cpu != cpu) return "task " + std::to_string(tid) + " is on another CPU's queue";
      bool requested = std::any_of(rq.requests.begin(), rq.requests.end(),
                                   [&](const MigrationRequest& r) { return r.tid == tid; });
      if (!task.allowed.test(cpu) && !requested) {
        return "task " + std::to_string(tid) + " is on forbidden CPU " + std::to_string(cpu);
      }
      if ((task.state == RunState::kRunning) != (rq.current == tid))
        return "state of task " + std::to_string(tid);
    }
  }
  for (const auto& [tid, task] : tasks_) {
    if (task.state != RunState::kSleeping && seen.count(tid) == 0)
      return "task " + std::to_string(tid) + " is lost";
  }
  return "";
}

}  // namespace allot::model
