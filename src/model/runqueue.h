// Per-CPU run queues and how a task gets from one to another: sched_setaffinity of Linux 2.6.23,
// which the source documents describe, and today's.
//
//   rq[0]  running T1   queue T4 T6      requests (T4 -> CPU 2)      <- migration/0 serves these
//   rq[1]  running T2   queue            requests
//   rq[2]  running -    queue            requests
//
// A CPU runs only tasks of its own queue. A task leaves its queue by
//   a mask change   set_cpus_allowed(): nothing when its CPU is still allowed. Else migrate_task()
//                   has two cases. 1: it neither runs nor waits: only its CPU number is set (today:
//                   not even that, it is placed when it wakes). 2: it runs or waits: 2.6.23 queues
//                   a request at the source CPU and waits until the migration thread has served it;
//                   today a waiting task is moved at once, and only a running one needs the stopper
//                   thread.
//   __migrate_task  takes it off, sets its CPU, puts it on; but first looks again: destination gone
//                   offline? task moved already? destination no longer allowed? Then nothing is
//                   done.
//   balancing       an underloaded CPU pulls waiting tasks that may run there; a running one only
//                   by a push, after balancing failed several times.
//   hotplug         a CPU that goes away pushes everything.
// Where it goes: 2.6.23 takes the lowest allowed CPU (any_online_cpu), so many tasks pile up on
// one; today a cursor spreads them (cpumask_any_and_distribute). New and woken tasks go through
// select_task_rq(), which picks among the allowed CPUs.
//
// Time is a number of ticks; a CPU runs the task of its queue that has had least. What must not
// happen here: a claim about which legal CPU a real kernel picks; the order of preference is one of
// several legal ones, legality itself is exact.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "model/mask.h"

namespace allot::model {

enum class SchedForm : uint8_t { k2_6_23, kToday };
enum class RunState : uint8_t { kSleeping, kQueued, kRunning };

struct MigrationRequest {
  int tid = 0;
  int destination = 0;
  bool done = false;
  bool moved = false;
};

struct QueuedTask {
  int tid = 0;
  Mask allowed;
  RunState state = RunState::kSleeping;
  int cpu = 0;  // whose queue, or where it last ran
  double weight = 1.0;
  uint64_t ran = 0;         // ticks
  double virtual_time = 0;  // ran / weight, kept near that of its queue
  int migrations = 0;
};

enum class MoveCause : uint8_t { kMask, kWake, kFork, kBalance, kPush, kHotplug };
std::string move_cause_name(MoveCause cause);

struct Migration {
  uint64_t tick = 0;
  int tid = 0;
  int from = 0;
  int to = 0;
  MoveCause cause = MoveCause::kMask;
};

// Not thread safe; allocates; never blocks: "waiting" for a request means serving it.
class RunQueues {
 public:
  // cpus: the online ones. llc: CPUs that share a cache, one mask each; empty: all do.
  RunQueues(const Mask& cpus, SchedForm form, std::vector<Mask> llc = {});

  // A new task wakes up for the first time and is placed. EINVAL: no online CPU allowed; EEXIST.
  int add(int tid, const Mask& allowed, double weight = 1.0, int parent_cpu = -1);
  int remove(int tid);
  int sleep(int tid);
  int wake(int tid);

  // set_cpus_allowed(): EINVAL when no CPU of the mask is online, ESRCH. The task is off every
  // forbidden CPU when this returns, unless it sleeps.
  int set_cpus_allowed(int tid, const Mask& mask);
  // The same in two halves, so that something can happen in between: the request stays queued until
  // run_migration_thread() serves it. *pending is false when nothing had to be queued.
  int start_set_cpus_allowed(int tid, const Mask& mask, bool* pending);
  // The migration thread of a CPU serves its oldest request: __migrate_task(). False: none waiting.
  bool run_migration_thread(int cpu);

  void offline(int cpu);
  void online(int cpu);
  // Domains within which balancing moves tasks; empty: one of all CPUs.
  void set_domains(std::vector<Mask> domains) { domains_ = std::move(domains); }

  // One pass of periodic balancing in every domain; the number of tasks moved.
  int balance();
  // Runs every CPU for one tick.
  void tick();

  int nr_running(int cpu) const;          // running and waiting
  std::vector<int> queue(int cpu) const;  // running first, then waiting in order
  const QueuedTask* find(int tid) const;
  std::vector<int> tasks() const;
  const Mask& cpus() const { return online_; }
  const std::deque<MigrationRequest>& requests(int cpu) const;
  const std::vector<Migration>& migrations() const { return migrations_; }
  uint64_t now() const { return tick_; }
  // Longest queue less the shortest, among online CPUs.
  int imbalance() const;
  // CPUs that idle while a task that may run there waits elsewhere: work that is not conserved.
  int idle_while_waiting() const;
  // Empty when every queue obeys the rules (each task once, on a legal online CPU); else the fault.
  std::string check() const;

 private:
  struct Rq {
    int current = 0;  // 0: idle
    std::deque<int> waiting;
    std::deque<MigrationRequest> requests;
    int balance_failed = 0;
  };

  int choose(const Mask& mask);  // where a task goes whose mask changed
  int select_task_rq(const QueuedTask& task, bool fork, int from);
  int idlest(const Mask& among) const;
  Mask llc_of(int cpu) const;
  void activate(QueuedTask* task, int cpu);
  void deactivate(QueuedTask* task);
  void note(const QueuedTask& task, int from, MoveCause cause);
  bool migrate(int tid, int source, int destination, MoveCause cause);  // __migrate_task()
  void pick_next(int cpu);
  bool pull(int to, const Mask& domain);
  double queue_time(int cpu) const;

  Mask online_;
  SchedForm form_;
  std::vector<Mask> llc_;
  std::vector<Mask> domains_;
  std::map<int, Rq> rqs_;
  std::map<int, QueuedTask> tasks_;
  std::vector<Migration> migrations_;
  int cursor_ = -1;  // of cpumask_any_and_distribute()
  uint64_t tick_ = 0;
};

}  // namespace allot::model
